"""What the proxy hop costs: one FastAPI app behind proxy and replica, against uvicorn serving it directly.

    python benchmarks/data_plane.py [--rounds 5] [--seconds 3] [--only c16,c64,scale] [--beside-ray] [--with-nginx]

Needs wrk. With ``--beside-ray`` a Ray without work runs on the machine meanwhile; with ``--with-nginx`` the same app is measured
behind nginx, too, as what a proxy in C costs on this machine. Rounds are interleaved, direct and
proxied legs alternate, and the table shows the medians of the ratios of a round, so that a noisy machine disturbs both
alike. ``us of CPU`` is what the processes of a leg spent per request (``ms of CPU``: per 10 MB of body). Memory, routing
and Ray Serve (where it is installed) follow. Everything runs on 127.0.0.1 and is stopped at the end.
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
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import data_plane_app
import data_plane_nginx as nginx
import data_plane_on_ray as on_ray
import data_plane_scale as scale
from data_plane_app import FILE, MIB, PREFIX

from serveconf.local_ray import free_port

UPLOAD = """wrk.method = "POST"; wrk.body = string.rep("x", {bytes})"""
SEARCH = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer x"
wrk.body = [[{"text": "a lamp", "tags": ["a", "b", "c"], "limit": 100}]]
"""


@dataclass(frozen=True)
class Load:
    """What wrk has seen."""

    rate: float  # requests/s
    p50_ms: float
    megabytes: float  # received per second, those of answers that were not whole at the end too


def wrk(url: str, connections: int, seconds: float, script: Path | None = None) -> Load:
    """Load on ``url``."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "30s"]
    if script is not None:
        command += ["-s", str(script)]
    out = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"errors from {url}:\n{out}")
    moved, unit = re.search(r"Transfer/sec:\s+([\d.]+)([KMG]?B)", out).groups()  # type: ignore[union-attr]
    megabytes = float(moved) * {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}[unit] / 1e6
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])  # type: ignore[index]
    value, unit = re.search(r"50%\s+([\d.]+)(us|ms|s)", out).groups()  # type: ignore[union-attr]
    return Load(rate, float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit], megabytes)


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


def uploads_in_two_packets(url: str, seconds: float) -> float:
    """Per second, of 4 KiB on one connection: the head first and the body a moment later, as many clients send them."""
    host, _, path = url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    head = f"POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4096\r\n\r\n".encode()
    count = 0
    with socket.create_connection((name, int(port))) as sock, sock.makefile("rb") as answers:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            sock.sendall(head)
            time.sleep(0.0002)
            sock.sendall(b"x" * 4096)
            size = 0
            while (line := answers.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length:"):
                    size = int(line.partition(b":")[2])
            answers.read(size)
            count += 1
    return count / seconds


@dataclass(frozen=True)
class Leg:
    """One measurement of a base URL: what it is, and what the ratio of proxied to direct must reach."""

    title: str
    wanted: str
    run: Callable[[str], float]


def legs(seconds: float, folder: Path) -> dict[str, Leg]:
    """All of them by name."""

    def scripted(name: str, text: str) -> Path:
        path = folder / f"{name}.lua"
        path.write_text(text)
        return path

    def rate(path: str, connections: int, script: Path | None = None) -> Callable[[str], float]:
        return lambda base: wrk(base + path, connections, seconds, script).rate

    def received(path: str) -> Callable[[str], float]:
        return lambda base: wrk(base + path, 2, seconds).megabytes

    def sent(size: int) -> Callable[[str], float]:
        script = scripted(f"upload-{size}", UPLOAD.format(bytes=size))
        return lambda base: size / 1e6 * wrk(base + "/upload", 2, seconds, script).rate

    search = scripted("search", SEARCH)
    return {
        "c1": Leg("p50 at 1 connection, ms", "<= 1.4", lambda base: wrk(base + "/hello", 1, seconds).p50_ms),
        "c16": Leg("requests/s at 16 connections", ">= 1.2", rate("/hello", 16)),
        "c64": Leg("requests/s at 64 connections", ">= 1.3", rate("/hello", 64)),
        "search": Leg("models in and 20 KB of JSON out, requests/s", "", rate("/search", 16, search)),
        "p4": Leg("pieces of 4 KiB, MB/s", ">= 0.8", received("/pieces?kib=4&total_kib=1024")),
        "p16": Leg("pieces of 16 KiB, MB/s", ">= 0.8", received("/pieces?kib=16&total_kib=4096")),
        "p64": Leg("pieces of 64 KiB, MB/s", ">= 0.8", received("/pieces?kib=64&total_kib=10240")),
        "p256": Leg("pieces of 256 KiB, MB/s", ">= 0.8", received("/pieces?kib=256&total_kib=10240")),
        "p1024": Leg("pieces of 1 MiB, MB/s", ">= 0.8", received("/pieces?kib=1024&total_kib=10240")),
        "file": Leg("FileResponse of 100 MiB, MB/s", ">= 1.0", received("/file")),
        "mib": Leg("answers of 1 MiB, MB/s", ">= 0.9", received("/mib")),
        "down": Leg("10 MiB download, MB/s", ">= 0.9", received("/download")),
        "up": Leg("10 MiB upload, MB/s", ">= 1.0", sent(10 * MIB)),
        "up64": Leg("64 KiB upload, MB/s", ">= 1.0", sent(64 << 10)),
        "apart": Leg(
            "4 KiB uploads in two packets, requests/s",
            "",
            lambda base: uploads_in_two_packets(base + "/upload", seconds),
        ),
        "echo": Leg("WebSocket echo, ms", "<= 1.1", lambda base: echo_round_trip(base + "/echo", seconds)),
    }


@dataclass(frozen=True)
class Running:
    """The base URLs of the direct, of the proxied app and, where asked for, of that behind nginx; the processes behind each."""

    bases: tuple[str, ...]
    pids: tuple[tuple[int, ...], ...]  # direct; proxy and replica; nginx and uvicorn
    port: int  # of the proxy


def cpu_seconds(pids: tuple[int, ...]) -> float:
    """What processes have spent since they began, in user and system."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def processes(folder: Path, *, with_nginx: bool = False) -> Iterator[Running]:
    """All of them, while they run."""
    path, secret = str(folder / "replica.sock"), secrets.token_hex(32)
    os.environ[FILE] = str(on_ray.make_file(folder))
    one, two = free_port(), free_port()
    started = [start("replica", path, secret)]
    try:
        wait_for(lambda: os.path.exists(path))
        started += [start("direct", str(one)), start("proxy", str(two), path, secret)]
        bases: tuple[str, ...] = f"http://127.0.0.1:{one}", f"http://127.0.0.1:{two}{PREFIX}"
        behind, plain, front = (process.pid for process in started)
        pids: tuple[tuple[int, ...], ...] = (plain,), (front, behind)
        with contextlib.ExitStack() as stack:
            if with_nginx:
                started.append(start("direct", str(folder / "uvicorn.sock")))
                base, pid = stack.enter_context(nginx.in_front_of(str(folder / "uvicorn.sock"), folder))
                bases, pids = (*bases, base), (*pids, (pid, started[-1].pid))
            for base in bases:
                wait_for(lambda base=base: urllib.request.urlopen(base + "/hello").status == 200)  # type: ignore[misc]
            yield Running(bases, pids, two)
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(10)


def start(role: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A process that serves the app, or a part of it."""
    return subprocess.Popen([sys.executable, data_plane_app.__file__, role, *arguments])


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


def measure(rounds: int, seconds: float, only: set[str], *, beside_ray: bool, with_nginx: bool) -> None:
    """Run and print the tables."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if beside_ray:
            stack.enter_context(on_ray.idle_ray())
        running = stack.enter_context(processes(folder, with_nginx=with_nginx))
        measure_ratios(running, rounds, seconds, folder, only)
        if not only or "scale" in only:
            measure_scale(running)
    if not only or "memory" in only:
        measure_memory()
    for mode in on_ray.MODES if not only or "ray" in only else ():
        measure_ray_serve(mode, rounds, seconds)


def measure_ratios(running: Running, rounds: int, seconds: float, folder: Path, only: set[str]) -> None:
    """Proxied against direct, and nginx against direct."""
    chosen = {key: leg for key, leg in legs(seconds, folder).items() if not only or key in only}
    if not chosen:
        return
    found: dict[str, list[list[float]]] = {key: [] for key in chosen}
    spent: dict[str, list[list[float]]] = {key: [] for key in chosen}
    order = range(len(running.bases))
    for number in range(rounds):
        for key, leg in chosen.items():
            result, cpu = [0.0] * len(order), [0.0] * len(order)
            for which in order if number % 2 == 0 else reversed(order):
                before = cpu_seconds(running.pids[which])
                result[which] = leg.run(running.bases[which])
                cpu[which] = cpu_seconds(running.pids[which]) - before
            found[key].append(result)
            spent[key].append(cpu)
    with_nginx = len(order) > 2
    nginx_head = f"{'nginx':>10}{'ratio':>8}" if with_nginx else ""
    print(f"{'':46}{'direct':>10}{'proxied':>10}{'ratio':>8}{'wanted':>10}{nginx_head}    us (or ms) of CPU")
    for key, leg in chosen.items():
        plain, *others = medians(found[key])
        ratios = [statistics.median(row[which] / row[0] for row in found[key]) for which in order]
        unit, digits = (1e4, 1) if "MB/s" in leg.title else (1e6, 0)
        cpu_note = ""
        if "/s" in leg.title:
            per = [
                [cpu / (rate * seconds) * unit for cpu, rate in zip(costs, rates, strict=True)]
                for costs, rates in zip(spent[key], found[key], strict=True)
            ]
            cpu_note = " / ".join(f"{spent:.{digits}f}" for spent in medians(per))
        nginx_row = f"{others[1]:10.2f}{ratios[2]:8.2f}" if with_nginx else ""
        print(
            f"{leg.title:46}{plain:10.2f}{others[0]:10.2f}{ratios[1]:8.2f}{leg.wanted:>10}{nginx_row}    {cpu_note}",
            flush=True,
        )


def medians(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Of each column."""
    return tuple(statistics.median(values) for values in zip(*rows, strict=True))


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


def measure_memory() -> None:
    """What the processes of an applied app weigh, after requests of every kind."""
    with on_ray.serveconf() as base:
        for path in ("/hello", "/mib", "/pieces?kib=64&total_kib=1024"):
            wrk(base + path, 16, 1)
        weights = on_ray.weights()
    for role, mib in weights.items():
        print(f"resident memory of the {role}: {mib:.0f} MiB ({mib * MIB / 1e6:.0f} MB)")


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
    wanted = {"Ray Serve": 30, "Ray Serve, HAProxy": 4}[mode]
    print(f"{mode}: {one:.0f} requests/s at 16 connections, serveconf {two:.0f}: {ratio:.1f}x (wanted >= {wanted})")


def warm_rate(base: str, seconds: float) -> float:
    """Requests per second at 16 connections, after a while."""
    wrk(base + "/hello", 16, 2)
    return wrk(base + "/hello", 16, seconds).rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--only", default="", help="comma-separated: c1,c16,…,scale,memory,ray")
    parser.add_argument("--beside-ray", action="store_true", help="with a Ray without work on the machine")
    parser.add_argument("--with-nginx", action="store_true", help="the app behind nginx, too")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed")
    if arguments.with_nginx and not nginx.is_installed():
        raise SystemExit("nginx is not installed")
    only = set(filter(None, arguments.only.split(",")))
    measure(
        arguments.rounds,
        arguments.seconds,
        only,
        beside_ray=arguments.beside_ray,
        with_nginx=arguments.with_nginx,
    )


if __name__ == "__main__":
    main()
