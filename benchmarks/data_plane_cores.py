"""How the data plane grows with cores: everything is pinned, wrk to cores of its own, the servers to the others.

    python benchmarks/data_plane_cores.py [--rounds 3] [--seconds 3] [--connections 64]

Needs wrk. With 1, 2, … cores for the servers: ``uvicorn --workers`` with as many workers, and as many proxies that share
the port with as many replicas; requests per second and per core. wrk has as many cores as the servers, as far as there are.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from data_plane import wait_for
from data_plane_app import PREFIX, make_app, no_middleware

from serveconf.local_ray import free_port


def app() -> object:
    """What uvicorn's workers import."""
    return make_app()


def proxy(port: int, secret: str, *paths: str) -> None:
    """One of the processes that share the port."""
    import asyncio

    import uvloop

    from serveconf.proxy.app import ProxyApp
    from serveconf.proxy.dispatch import Backend
    from serveconf.proxy.pool import ReplicaPool
    from serveconf.proxy.server import ProxyServer
    from serveconf.routing import Generation, ReplicaAddress, Route

    async def serve() -> None:
        pool = ReplicaPool(node_id="n", secret=bytes.fromhex(secret))
        replicas = tuple(ReplicaAddress(id=path, node_id="n", uds=path) for path in paths)
        route = Route(PREFIX, "s", "d", replicas, max_ongoing_requests=5_000)
        app = ProxyApp(pool=pool, backend_factory=lambda route: Backend(route, pool), import_middleware=no_middleware)
        await app.stage(Generation(number=1, routes=(route,)))
        app.commit(1)
        await ProxyServer(app, "127.0.0.1", port, edge=app.edge, reuse_port=True).start()
        await asyncio.get_running_loop().create_future()

    uvloop.run(serve())


def pinned(cores: set[int], *command: str) -> subprocess.Popen[bytes]:
    """A process that runs on these cores alone."""
    return subprocess.Popen(command, preexec_fn=lambda: os.sched_setaffinity(0, cores), cwd=Path(__file__).parent)


@contextlib.contextmanager
def running(base: str, started: list[subprocess.Popen[bytes]]) -> Iterator[str]:
    """``base``, when it answers; the processes end afterwards."""
    try:
        wait_for(lambda: urllib.request.urlopen(base + "/hello").status == 200)
        yield base
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(20)


@contextlib.contextmanager
def uvicorn(cores: list[int]) -> Iterator[str]:
    """As many workers as cores."""
    port = free_port()
    options = ["--workers", str(len(cores)), "--log-level", "warning", "--no-access-log", "--port", str(port)]
    command = [sys.executable, "-m", "uvicorn", "data_plane_cores:app", "--factory", *options]
    with running(f"http://127.0.0.1:{port}", [pinned(set(cores), *command)]) as base:
        yield base


@contextlib.contextmanager
def serveconf(cores: list[int]) -> Iterator[str]:
    """A proxy and a replica for each core, free to move among them."""
    port, secret = free_port(), secrets.token_hex(32)
    data_plane = str(Path(__file__).with_name("data_plane_app.py"))
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{core}" for core in cores]
        started = [pinned(set(cores), sys.executable, data_plane, "replica", path, secret) for path in paths]
        wait_for(lambda: all(map(os.path.exists, paths)))
        own = [sys.executable, __file__, "--role", "proxy", str(port), secret, *paths]
        started += [pinned(set(cores), *own) for _ in cores]
        with running(f"http://127.0.0.1:{port}{PREFIX}", started) as base:
            yield base


def rate(base: str, cores: set[int], connections: int, seconds: int) -> float:
    """Requests per second, as wrk on these cores sees them."""
    command = ["wrk", f"-t{len(cores)}", f"-c{connections}", f"-d{seconds}s", base + "/hello"]
    out = subprocess.run(
        command, check=True, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    ).stdout
    return float(out.partition("Requests/sec:")[2].split()[0])


def measure(rounds: int, seconds: int, connections: int) -> None:
    """Print the table."""
    cores = sorted(os.sched_getaffinity(0))
    print(f"{'cores':>6}{'uvicorn':>10}{'serveconf':>11}{'ratio':>7}    requests/s per core")
    for number in range(1, len(cores) // 2 + 1):
        servers, clients = cores[:number], set(cores[-number:])
        found = []
        for _ in range(rounds):
            pair = []
            for make in (uvicorn, serveconf):
                with make(servers) as base:
                    rate(base, clients, connections, 1)
                    pair.append(rate(base, clients, connections, seconds))
            found.append(pair)
        one, two = (statistics.median(values) for values in zip(*found, strict=True))
        ratio = statistics.median(ours / theirs for theirs, ours in found)
        print(f"{number:6}{one:10.0f}{two:11.0f}{ratio:7.2f}    {one / number:.0f} / {two / number:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role is None:
        measure(arguments.rounds, arguments.seconds, arguments.connections)
    else:
        _, port, *rest = arguments.role
        proxy(int(port), *rest)


if __name__ == "__main__":
    main()
