"""What the proxy hop costs: one FastAPI app behind proxy and replica, against uvicorn serving it directly.

    python benchmarks/data_plane.py [--rounds 5] [--seconds 3] [--only c16,c64,scale]

Needs wrk. Rounds are interleaved, direct and proxied legs alternate, and the table shows the medians of the ratios of a
round, so that a noisy machine disturbs both alike. ``us of CPU`` is what the processes of a leg spent per request.
Memory, routing and Ray Serve (where it is installed) follow. Everything runs on 127.0.0.1 and is stopped at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import data_plane_on_ray as on_ray
import data_plane_scale as scale
from fastapi import FastAPI, Request, Response, WebSocket
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from serveconf.local_ray import free_port

MIB = 1 << 20
PREFIX = "/app"
UPLOAD = """wrk.method = "POST"; wrk.body = string.rep("x", 10 * 1024 * 1024)"""


def make_app() -> FastAPI:
    """The app that both legs serve."""
    app = FastAPI()
    payload = b"x" * (10 * MIB)

    @app.get("/hello")
    async def hello() -> dict[str, str]:
        return {"message": "hello"}

    @app.get("/download")
    async def download() -> Response:
        return Response(payload, media_type="application/octet-stream")

    @app.post("/upload")
    async def upload(request: Request) -> dict[str, int]:
        size = 0
        with contextlib.suppress(ClientDisconnect):  # wrk stops in the middle of its last request
            async for piece in request.stream():
                size += len(piece)
        return {"size": size}

    @app.get("/stream")
    async def stream(mib: int) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(mib):
                yield payload[:MIB]

        return StreamingResponse(pieces())

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    return app


def direct(port: int) -> None:
    """uvicorn with the app, mounted below the same prefix by root_path."""
    import uvicorn

    uvicorn.run(make_app(), port=port, log_level="warning", access_log=False)


def replica(path: str, secret: str) -> None:
    """The app behind a WireServer."""
    import uvloop

    from serveconf.wire import WireServer

    async def serve() -> None:
        server = WireServer(make_app(), secret=bytes.fromhex(secret), max_ongoing=5_000)
        await server.listen_unix(path)
        await asyncio.get_running_loop().create_future()

    uvloop.run(serve())


def proxy(port: int, path: str, secret: str) -> None:
    """A proxy as it runs in a cluster: edge, table, dispatch; one route, no middlewares."""
    import uvloop

    from serveconf.proxy.app import ProxyApp
    from serveconf.proxy.dispatch import Backend
    from serveconf.proxy.pool import ReplicaPool
    from serveconf.proxy.server import ProxyServer
    from serveconf.routing import Generation, ReplicaAddress, Route

    async def serve() -> None:
        pool = ReplicaPool(node_id="n", secret=bytes.fromhex(secret))
        replicas = (ReplicaAddress(id="r", node_id="n", uds=path),)
        route = Route(PREFIX, "s", "d", replicas, max_ongoing_requests=5_000)
        app = ProxyApp(pool=pool, backend_factory=lambda route: Backend(route, pool), import_middleware=no_middleware)
        await app.stage(Generation(number=1, routes=(route,)))
        app.commit(1)
        await ProxyServer(app, "127.0.0.1", port, edge=app.edge).start()
        await asyncio.get_running_loop().create_future()

    uvloop.run(serve())


def no_middleware(middleware: object) -> NoReturn:
    """There are none here."""
    raise LookupError(middleware)


def wrk(url: str, connections: int, seconds: float, script: Path | None = None) -> tuple[float, float]:
    """Requests per second and the median latency in milliseconds."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "30s"]
    if script is not None:
        command += ["-s", str(script)]
    out = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"errors from {url}:\n{out}")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])  # type: ignore[index]
    value, unit = re.search(r"50%\s+([\d.]+)(us|ms|s)", out).groups()  # type: ignore[union-attr]
    return rate, float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def echo_round_trip(url: str, seconds: float) -> float:
    """The median round trip of a WebSocket echo, in milliseconds."""
    from websockets.sync.client import connect

    times = []
    with connect(url.replace("http", "ws", 1), compression=None) as websocket:
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            websocket.send("hello")
            websocket.recv()
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def legs(seconds: float, folder: Path) -> dict[str, tuple[str, str, Callable[[str], float], bool]]:
    """Name -> what it is, what it must reach, its measurement of a base URL, whether more is better."""
    upload = folder / "upload.lua"
    upload.write_text(UPLOAD)
    return {
        "c1": ("p50 at 1 connection, ms", "<= 1.5", lambda base: wrk(base + "/hello", 1, seconds)[1], False),
        "c16": ("requests/s at 16 connections", ">= 1.0", lambda base: wrk(base + "/hello", 16, seconds)[0], True),
        "c64": ("requests/s at 64 connections", ">= 1.1", lambda base: wrk(base + "/hello", 64, seconds)[0], True),
        "down": ("10 MiB download, MB/s", ">= 0.6", lambda base: 10.49 * wrk(base + "/download", 2, seconds)[0], True),
        "up": (
            "10 MiB upload, MB/s",
            ">= 0.6",
            lambda base: 10.49 * wrk(base + "/upload", 2, seconds, upload)[0],
            True,
        ),
        "echo": ("WebSocket echo, ms", "<= 1.6", lambda base: echo_round_trip(base + "/echo", seconds), False),
    }


@dataclass(frozen=True)
class Running:
    """The base URLs of the direct and of the proxied app, and the processes behind each."""

    bases: tuple[str, str]
    pids: tuple[tuple[int, ...], tuple[int, ...]]  # direct; proxy and replica
    port: int  # of the proxy


def cpu_seconds(pids: tuple[int, ...]) -> float:
    """What processes have spent since they began, in user and system."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def processes(folder: Path) -> Iterator[Running]:
    """Both, while they run."""
    path, secret = str(folder / "replica.sock"), secrets.token_hex(32)
    one, two = free_port(), free_port()
    started = [start("replica", path, secret)]
    try:
        wait_for(lambda: os.path.exists(path))
        started += [start("direct", str(one)), start("proxy", str(two), path, secret)]
        bases = f"http://127.0.0.1:{one}", f"http://127.0.0.1:{two}{PREFIX}"
        for base in bases:
            wait_for(lambda base=base: urllib.request.urlopen(base + "/hello").status == 200)  # type: ignore[misc]
        behind, plain, front = (process.pid for process in started)
        yield Running(bases, ((plain,), (front, behind)), two)
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(10)


def start(role: str, *arguments: str) -> subprocess.Popen[bytes]:
    """This file in another role."""
    return subprocess.Popen([sys.executable, __file__, "--role", role, *arguments])


def wait_for(done: Callable[[], bool]) -> None:
    """Poll until it holds."""
    until = time.monotonic() + 20
    while True:
        try:
            if done():
                return
        except OSError:
            pass
        if time.monotonic() > until:
            raise SystemExit("a process did not start")
        time.sleep(0.05)


def measure(rounds: int, seconds: float, only: set[str]) -> None:
    """Run and print the tables."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = stack.enter_context(processes(folder))
        measure_ratios(running, rounds, seconds, folder, only)
        if not only or "scale" in only:
            measure_scale(running)
    for mode in on_ray.MODES if not only or "ray" in only else ():
        measure_ray_serve(mode, rounds, seconds)


def measure_ratios(running: Running, rounds: int, seconds: float, folder: Path, only: set[str]) -> None:
    """Proxied against direct."""
    chosen = {key: leg for key, leg in legs(seconds, folder).items() if not only or key in only}
    if not chosen:
        return
    found: dict[str, list[tuple[float, float]]] = {key: [] for key in chosen}
    spent: dict[str, list[tuple[float, float]]] = {key: [] for key in chosen}
    for number in range(rounds):
        for key, (_, _, run, _) in chosen.items():
            result, cpu = [0.0, 0.0], [0.0, 0.0]
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                before = cpu_seconds(running.pids[which])
                result[which] = run(running.bases[which])
                cpu[which] = cpu_seconds(running.pids[which]) - before
            found[key].append((result[0], result[1]))
            spent[key].append((cpu[0], cpu[1]))
    print(f"{'':32}{'direct':>10}{'proxied':>10}{'ratio':>8}{'wanted':>10}    us of CPU")
    for key, (title, wanted, _, _) in chosen.items():
        one, two = medians(found[key])
        ratio = statistics.median(proxied / plain for plain, proxied in found[key])
        cpu_note = ""
        if key in ("c16", "c64"):
            per = [
                (a / (x * seconds) * 1e6, b / (y * seconds) * 1e6)
                for (a, b), (x, y) in zip(spent[key], found[key], strict=True)
            ]
            cpu_note = "{:.0f} / {:.0f}".format(*medians(per))
        print(f"{title:32}{one:10.2f}{two:10.2f}{ratio:8.2f}{wanted:>10}    {cpu_note}")


def medians(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Of the first ones, and of the second ones."""
    one, two = (statistics.median(values) for values in zip(*pairs, strict=True))
    return one, two


def measure_scale(running: Running) -> None:
    """Memory and routing."""
    proxy, replica = running.pids[1]
    grown = scale.growth_under_slow_reader(running.port, f"{PREFIX}/stream", (proxy, replica))
    print(
        f"1 GiB through a slow reader: the proxy grew by {grown[0]:.1f} MiB, the replica by {grown[1]:.1f} (wanted < 50)"
    )
    url = f"ws://127.0.0.1:{running.port}{PREFIX}/echo"
    idle = asyncio.run(scale.growth_with_idle_websockets(url, proxy, 1_000))
    print(f"1,000 idle WebSockets: the proxy grew by {idle:.1f} MiB (wanted < 40)")
    few, many = scale.routing_ratio()
    print(f"routing: {few:.2f} us among 10 prefixes, {many:.2f} among 10,000: {many / few:.2f}x (wanted <= 2)")


def measure_ray_serve(mode: str, rounds: int, seconds: float) -> None:
    """serveconf as it is used against Ray Serve, at 16 connections; each with a Ray of its own, one after the other."""
    reason = on_ray.why_not(mode)
    if reason is not None:
        print(f"{mode}: left out, {reason}")
        return
    found = []
    for _ in range(rounds):
        with on_ray.ray_serve(mode) as base:
            theirs = warm_rate(base, seconds)
        with on_ray.serveconf() as base:
            found.append((theirs, warm_rate(base, seconds)))
    ratio = statistics.median(ours / theirs for theirs, ours in found)
    one, two = medians(found)
    wanted = {"Ray Serve": 12, "Ray Serve, HAProxy": 3.5}[mode]
    print(f"{mode}: {one:.0f} requests/s at 16 connections, serveconf {two:.0f}: {ratio:.1f}x (wanted >= {wanted})")


def warm_rate(base: str, seconds: float) -> float:
    """Requests per second at 16 connections, after a while."""
    wrk(base + "/hello", 16, 2)
    return wrk(base + "/hello", 16, seconds)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--only", default="", help="comma-separated: c1,c16,c64,down,up,echo,scale,ray")
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role is None:
        if shutil.which("wrk") is None:
            raise SystemExit("wrk is not installed")
        measure(arguments.rounds, arguments.seconds, set(filter(None, arguments.only.split(","))))
        return
    role, *rest = arguments.role
    match role:
        case "direct":
            direct(int(rest[0]))
        case "replica":
            replica(*rest)
        case "proxy":
            proxy(int(rest[0]), *rest[1:])


if __name__ == "__main__":
    main()
