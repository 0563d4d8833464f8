"""What a change costs the traffic: time until it is live, longest gap, failures, and what 200 changes leave behind.

    python benchmarks/apply.py [--applies 200] [--no-ray-serve]

Starts a Ray of its own, applies an app of two replicas, changes it in every way under eight connections, then many times
in a row under 64. Ray Serve's redeploy of the same app is measured beside it where ``ray[serve]`` is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from serveconf.launch import find
from serveconf.local_ray import free_port
from serveconf.spec.load import load_file
from serveconf.submit import follow, submit

SERVECONF = str(Path(sys.executable).parent / "serveconf")

APP = """
class App:
    def reconfigure(self, config):
        self.config = config

    async def __call__(self, request):
        return {{"version": {version}}}
"""
RAY_SERVE = """
import sys, time
from fastapi import FastAPI
from ray import serve
app = FastAPI()
version = int(sys.argv[2])
@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.1})
@serve.ingress(app)
class Root:
    @app.get("/")
    def root(self):
        return {"version": version}
serve.start(http_options={"port": int(sys.argv[1])})
serve.run(Root.bind(), route_prefix="/app")
"""


COLUMNS = ("change, 8 connections", "command s", "controller s", "live s", "gap ms", "failed", "new replicas")


class Load:
    """Connections that ask without end. Remembers failures, the longest time without any answer, and when it saw a text."""

    def __init__(self, port: int, path: str, connections: int, awaited: bytes = b"\0") -> None:
        self.answers = self.failed = 0
        self.gap_s = 0.0
        self.seen_at: float | None = None
        self._last = time.monotonic()
        self._where = (port, path, connections, awaited)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Load:
        self._last = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        await asyncio.gather(*(self._ask_for_ever() for _ in range(self._where[2])))

    async def _ask_for_ever(self) -> None:
        port, path, _, awaited = self._where
        connection = None
        while not self._stop.is_set():
            try:
                connection = connection or await asyncio.open_connection("127.0.0.1", port)
                status, body = await ask(*connection, path)
            except (OSError, asyncio.IncompleteReadError, ValueError):
                connection, status, body = None, 0, b""
            now = time.monotonic()
            self.answers += 1
            self.failed += status != 200
            if status == 200:
                self.gap_s, self._last = max(self.gap_s, now - self._last), now
            if awaited in body and self.seen_at is None:
                self.seen_at = now
            await asyncio.sleep(0.005)
        if connection:
            connection[1].close()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> tuple[int, bytes]:
    """One request on a connection that stays open."""
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return int(head[9:12]), await reader.readexactly(length)


class Place:
    """A folder with an app and a spec, and the ports of a cluster of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder / "app", free_port()
        self.folder.mkdir()
        address = f"http://127.0.0.1:{free_port()}"
        os.environ |= {"SERVECONF_HOME": f"{folder}/h", "RAY_TMPDIR": str(folder), "SERVECONF_ADDRESS": address}
        self.address = address
        self.spec: dict[str, Any] = {"name": "app", "import_path": "main:App", "num_replicas": 2}
        self.write()
        self.write_code(1)

    def write(self, **fields: Any) -> None:
        self.spec |= fields
        (self.folder / "serve.yaml").write_text(
            json.dumps({"http_options": {"port": self.port}, "deployments": [self.spec]})
        )

    def write_code(self, version: int) -> None:
        (self.folder / "main.py").write_text(APP.format(version=version))

    def apply(self) -> tuple[float, dict[str, Any]]:
        """The command, as a user gives it: seconds and its result."""
        began = time.monotonic()
        command = [SERVECONF, "apply", str(self.folder / "serve.yaml"), "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        return time.monotonic() - began, json.loads(done.stdout)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--applies", type=int, default=200)
    parser.add_argument("--no-ray-serve", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sc") as name:
        place = Place(Path(name))
        try:
            place.apply()
            print_row(COLUMNS)
            measure_changes(place)
            measure_many(place, arguments.applies)
            if not arguments.no_ray_serve:
                measure_ray_serve(place)
        finally:
            subprocess.run([SERVECONF, "shutdown"], timeout=120)


def measure_changes(place: Place) -> None:
    """One line for each kind of change."""

    def middleware() -> None:
        place.write(middlewares=[{"import_path": "starlette.middleware.gzip:GZipMiddleware"}])

    for what, change, awaited in (
        ("code", lambda: place.write_code(2), b'"version":2'),
        ("route option", lambda: place.write(request_timeout_s=15), b"\0"),
        ("middleware", middleware, b"\0"),
        ("user_config", lambda: place.write(user_config={"x": 1}), b"\0"),
        ("nothing", lambda: None, b"\0"),
    ):
        before = replicas(place)
        with Load(place.port, "/app/", 8, awaited) as load:
            time.sleep(0.5)
            change()
            began = time.monotonic()
            took, result = place.apply()
            time.sleep(0.5)
        live = f"{load.seen_at - began:.2f}" if load.seen_at else ""
        controller = f"{result['receipt']['duration_s']:.3f}"
        started = len(replicas(place) - before)
        print_row((what, f"{took:.2f}", controller, live, f"{load.gap_s * 1000:.0f}", load.failed, started))


def print_row(cells: Sequence[object]) -> None:
    """One line of the table."""
    first, *others = cells
    print(f"{first:24}" + "".join(f"{cell!s:>14}" for cell in others), flush=True)


def replicas(place: Place) -> set[str]:
    """Ids of the replicas that are there."""
    status = find(place.address, None).status()
    return {r["id"] for s in status["stacks"] for d in s["deployments"] for r in d["replicas"]}


def measure_many(place: Place, applies: int) -> None:
    """Apply after apply under 64 connections; every twentieth changes the code."""
    client = find(place.address, None)
    for _ in range(5):
        one_more(place, client, 0)
    before = processes(client)
    with Load(place.port, "/app/", 64) as load:
        for number in range(1, applies + 1):
            one_more(place, client, number)
    gap = f"longest gap {load.gap_s * 1000:.0f} ms"
    print(f"\n{applies} applies in a row, 64 connections: {load.answers} answers, {load.failed} failed, {gap}")
    time.sleep(3)
    for name, (fds, rss) in processes(client).items():
        was_fds, was_rss = before[name]
        print(f"  {name:12} file descriptors {was_fds} -> {fds}, resident memory {was_rss:.0f} -> {rss:.0f} MB")


def one_more(place: Place, client: Any, number: int) -> None:
    """Change something and apply it, through the client that the commands use."""
    place.write(request_timeout_s=15 + number % 2, user_config={"x": number})
    if number % 20 == 10:
        place.write_code(number)
    loaded = load_file(place.folder / "serve.yaml", env=os.environ)
    sent = submit(loaded, client)
    result = follow(client, client.begin(sent.stack, "apply", sent.body), lambda event: None, loaded)
    if result["outcome"] not in ("applied", "unchanged"):
        raise RuntimeError(str(result["problems"]))


def processes(client: Any) -> dict[str, tuple[int, float]]:
    """File descriptors and megabytes of the processes that must not grow."""
    status = client.status()
    pids = {"controller": status["controller"]["pid"], "proxy": status["proxies"][0]["pid"]}
    return {name: (psutil.Process(p).num_fds(), psutil.Process(p).memory_info().rss / 1e6) for name, p in pids.items()}


def measure_ray_serve(place: Place) -> None:
    """The same app, redeployed by Ray Serve on the same Ray."""
    if importlib.util.find_spec("aiohttp_cors") is None or importlib.util.find_spec("ray.serve") is None:
        print("\nRay Serve: ray[serve] is not installed, nothing to compare with")
        return
    port, script = free_port(), place.folder / "with_ray_serve.py"
    script.write_text(RAY_SERVE)

    def deploy(version: int) -> None:
        command = [sys.executable, str(script), str(port), str(version)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=place.folder)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])

    deploy(1)
    with Load(port, "/app/", 8, b'"version":2') as load:
        time.sleep(0.5)
        began = time.monotonic()
        deploy(2)
        took = time.monotonic() - began
        time.sleep(0.5)
    live = load.seen_at - began if load.seen_at else float("nan")
    print(
        f"\nRay Serve, code: command {took:.2f} s, live {live:.2f} s, gap {load.gap_s * 1000:.0f} ms, failed {load.failed}"
    )


if __name__ == "__main__":
    main()
