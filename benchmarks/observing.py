"""What it costs to see what goes on: requests/s of proxies side by side that count, log and trace, and of one that does not.

    .venv/bin/python benchmarks/observing.py [--rounds 7] [--seconds 3] [--connections 64]

Needs wrk and the extra ``otel``. One replica; four proxies before it: nothing counted at all; counted and read each second,
as a scrape does; besides that a JSON access log (to a file), or 1 % of the requests traced; and all of it. Rounds are
interleaved, and the table shows the medians of each round's ratio to the proxy that does nothing, so that a noisy machine
disturbs all alike. A collector takes the spans and drops them. Everything runs on 127.0.0.1 and is stopped at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
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
from data_plane import cpu_seconds, wait_for, wrk
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
        rates: dict[str, list[float]] = {mode: [] for mode in MODES}
        costs: dict[str, list[float]] = {mode: [] for mode in MODES}
        for mode in MODES:
            wrk(bases[mode], connections, 1)
        for number in range(rounds):
            for mode in MODES if number % 2 else reversed(MODES):
                before = cpu_seconds((pids[mode],))
                rate = wrk(bases[mode], connections, seconds).rate
                rates[mode].append(rate)
                costs[mode].append((cpu_seconds((pids[mode],)) - before) / (rate * seconds) * 1e6)
        print(f"{'the proxy sees':24}{'requests/s':>12}{'of nothing':>12}{'us of CPU':>12}")
        for mode in MODES:
            ratios = [one / other for one, other in zip(rates[mode], rates["nothing"], strict=True)]
            rate, ratio, cost = (statistics.median(values) for values in (rates[mode], ratios, costs[mode]))
            print(f"{mode:24}{rate:12,.0f}{ratio:12.3f}{cost:12.1f}")
    finally:
        os.close(lines)
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(10)


def main() -> None:
    """Measure, or play one of the roles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
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
