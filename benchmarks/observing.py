"""What it costs to see what goes on: requests/s of proxies side by side that count, log and trace, and of one that does not.

    .venv/bin/python benchmarks/observing.py [--rounds 40] [--seconds 1] [--connections 64]

Needs wrk and the extra ``otel``. One replica; five proxies before it: nothing counted at all; counted and read each second,
as a scrape does; besides that a JSON access log (to a file), or 1 % of the requests traced; and all of it. Rounds are short
and interleaved, each in another order, and every figure is the median of what the rounds say by themselves (a proxy against
the one that does nothing in the same round), so that a noisy machine disturbs all alike. The proxy's CPU time for a request is
the steadier figure: it counts threads too, and not who else wants the core. A collector takes the spans and drops them.
Everything runs on 127.0.0.1 and is stopped at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
from data_plane import wait_for, wrk
from data_plane_app import PREFIX, make_app, no_middleware

from serveconf.local_ray import free_port

MODES = ("nothing", "metrics", "metrics, log", "metrics, traces", "metrics, log, traces")
SAMPLE = 0.01


def replica(path: str, secret: str) -> None:
    """The app as a replica serves it."""
    import uvloop

    from serveconf.handles.answering import Answering
    from serveconf.handles.traced import Tracing
    from serveconf.ingress.app import build
    from serveconf.tracing import Outlet
    from serveconf.wire import WireServer

    async def serve() -> None:
        served = build(make_app())
        tracing = Tracing(lambda: served.app.app, Outlet({"service.name": "d"}), name="d")
        app = Answering(served.app, lambda: None, None, tracing)
        server = WireServer(app, secret=bytes.fromhex(secret), max_ongoing=5_000)
        await server.listen_unix(path)
        await asyncio.get_running_loop().create_future()

    uvloop.run(serve())


def proxy(port: int, path: str, secret: str, endpoint: str, mode: str) -> None:
    """A proxy as it runs in a cluster, seeing as much as its mode says."""
    import uvloop

    from serveconf.proxy.app import ProxyApp
    from serveconf.proxy.dispatch import Backend
    from serveconf.proxy.pool import ReplicaPool
    from serveconf.proxy.server import ProxyServer
    from serveconf.proxy.tally import Tally
    from serveconf.routing import Front, Generation, ReplicaAddress, Route, Tracing

    if mode == "nothing":
        Tally.ended = lambda *_: None  # type: ignore[assignment, method-assign]

    async def serve() -> None:
        pool = ReplicaPool(node_id="n", secret=bytes.fromhex(secret))
        replicas = (ReplicaAddress(id="r", node_id="n", uds=path),)
        route = Route(PREFIX, "s", "d", replicas, max_ongoing_requests=5_000)
        app = ProxyApp(pool=pool, backend_factory=lambda route: Backend(route, pool), import_middleware=no_middleware)
        front = Front(
            access_log="json" if "log" in mode else None,
            tracing=Tracing(endpoint=endpoint, sample=SAMPLE) if "traces" in mode else None,
        )
        await app.stage(Generation(number=1, front=front, routes=(route,)))
        app.commit(1)
        await ProxyServer(app, "127.0.0.1", port, edge=app.edge).start()
        while True:
            await asyncio.sleep(1)
            if mode != "nothing":
                msgspec.msgpack.encode(app.figures())  # as the controller is told for a scrape

    uvloop.run(serve())


def collector(port: int) -> None:
    """Takes spans, and prints how many bytes came of them when it is stopped."""
    taken = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal taken
            taken += len(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(print(f"{taken / 1e6:.1f} MB of spans", file=sys.stderr)))
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def start(role: str, *arguments: str, stdout: int | None = None) -> subprocess.Popen[bytes]:
    """This file in another role."""
    return subprocess.Popen([sys.executable, __file__, "--role", role, *arguments], stdout=stdout)


def cpu_us(pid: int) -> float:
    """What a process's threads have had of a core; /proc/PID/stat tells it in steps of 10 ms only."""
    spent_ns = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            spent_ns += int((thread / "schedstat").read_text().split()[0])
    return spent_ns / 1e3


def show(rounds: list[dict[str, tuple[float, float]]]) -> None:
    """The table. A proxy's rate and CPU time in each round, by what it sees."""
    print(f"{len(rounds)} rounds; medians, and in brackets the middle half of the rounds")
    print(f"{'the proxy sees':24}{'requests/s':>12}{'of nothing':>22}{'us of CPU':>12}{'more than nothing':>24}")
    for mode in MODES:
        rate = statistics.median(seen[mode][0] for seen in rounds)
        ratio = spread([seen[mode][0] / seen["nothing"][0] for seen in rounds], ".3f")
        cost = statistics.median(seen[mode][1] for seen in rounds)
        more = spread([seen[mode][1] - seen["nothing"][1] for seen in rounds], "+.1f")
        print(f"{mode:24}{rate:12,.0f}{ratio:>22}{cost:12.1f}{more:>24}")


def spread(values: list[float], form: str) -> str:
    """The median and the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:{form}} ({low:{form}}..{high:{form}})"


def measure(rounds: int, seconds: float, connections: int, folder: Path) -> None:
    """Run and print the table."""
    path, secret = str(folder / "replica.sock"), secrets.token_hex(32)
    lines = os.open(folder / "access.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    away = free_port()
    started = [start("collector", str(away)), start("replica", path, secret)]
    bases: dict[str, str] = {}
    pids: dict[str, int] = {}
    try:
        wait_for(lambda: os.path.exists(path))
        for mode in MODES:
            port = free_port()
            process = start("proxy", str(port), path, secret, f"http://127.0.0.1:{away}", mode, stdout=lines)
            started.append(process)
            pids[mode] = process.pid
            bases[mode] = f"http://127.0.0.1:{port}{PREFIX}/hello"
            wait_for(lambda base=bases[mode]: urllib.request.urlopen(base).status == 200)  # type: ignore[misc]
        rounds_seen: list[dict[str, tuple[float, float]]] = []
        for mode in MODES:
            wrk(bases[mode], connections, 1)
        for _ in range(rounds):
            seen: dict[str, tuple[float, float]] = {}
            for mode in random.sample(MODES, len(MODES)):
                before = cpu_us(pids[mode])
                rate = wrk(bases[mode], connections, seconds).rate
                if rate:  # else the machine had other work for all of the round
                    seen[mode] = rate, (cpu_us(pids[mode]) - before) / (rate * seconds)
            if len(seen) == len(MODES):
                rounds_seen.append(seen)
        show(rounds_seen)
    finally:
        os.close(lines)
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(10)


def main() -> None:
    """Measure, or play one of the roles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    match arguments.role:
        case None:
            if shutil.which("wrk") is None:
                raise SystemExit("wrk is not installed")
            with tempfile.TemporaryDirectory() as folder:
                measure(arguments.rounds, arguments.seconds, arguments.connections, Path(folder))
        case ["replica", *rest]:
            replica(*rest)
        case ["proxy", port, *rest]:
            proxy(int(port), *rest)
        case ["collector", port]:
            collector(int(port))


if __name__ == "__main__":
    main()
