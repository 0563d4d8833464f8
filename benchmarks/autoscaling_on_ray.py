"""How soon real replicas follow real requests: a step from 1 to 32 busy clients, and 1,000 requests at none, with the
standby that there is by default and without one.

    python benchmarks/autoscaling_on_ray.py

Clients ask again as soon as they have an answer, which takes 0.1 s and says whose it is. The Ray, the replicas and the
clients share one machine.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from serveconf.local_ray import free_port

SERVECONF = str(Path(sys.executable).parent / "serveconf")
APP = """
import asyncio, os
from fastapi import FastAPI
app = FastAPI()

@app.get("/")
async def answer() -> dict:
    await asyncio.sleep(0.1)
    return {"pid": os.getpid()}
"""
SPEC = """
standbys: %d
http_options: {port: %d}
deployments:
  - name: app
    import_path: app:app
    route_prefix: /
    ray_actor_options: {num_cpus: 0.01}
    autoscaling_config: {min_replicas: 0, max_replicas: %d, downscale_delay_s: 5, downscale_to_zero_delay_s: 4}
"""
CLIENTS, MOST = 32, 16
PAUSE_S = 10.0  # in which standbys come back
Answer = tuple[float, int, int]  # when, status, pid


class Served:
    """The app, applied."""

    def __init__(self, port: int, environment: dict[str, str]) -> None:
        self.port, self._environment = port, environment

    def command(self, *args: str) -> Any:
        done = subprocess.run(
            [SERVECONF, *args, "-o", "json"], env=self._environment, check=True, capture_output=True, text=True
        )
        return json.loads(done.stdout)

    def deployment(self) -> dict[str, Any]:
        """Of the status, asked for without a command: that takes its time."""
        record = json.loads((Path(self._environment["SERVECONF_HOME"]) / "cluster.json").read_text())
        asked = urllib.request.Request(
            f"{record['address']}/api/v1/status", headers={"authorization": f"Bearer {record['token']}"}
        )
        with urllib.request.urlopen(asked) as answer:
            found: dict[str, Any] = json.load(answer)["stacks"][0]["deployments"][0]
            return found


@contextmanager
def served(standbys: int) -> Iterator[Served]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        environment = {
            **os.environ,
            "SERVECONF_HOME": f"{folder}/home",
            "SERVECONF_ADDRESS": f"http://127.0.0.1:{free_port()}",
            "RAY_TMPDIR": folder,
        }
        (Path(folder) / "app.py").write_text(APP)
        spec = Path(folder) / "serve.yaml"
        spec.write_text(SPEC % (standbys, port, MOST))
        one = Served(port, environment)
        try:
            one.command("apply", str(spec))
            yield one
        finally:
            subprocess.run([SERVECONF, "shutdown"], env=environment, check=True, capture_output=True)


class Client:
    """One connection. It does as little as it can, for it shares its CPU with those who answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self) -> Answer:
        self._writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        body = await self._reader.readexactly(int(length))
        status = int(head.split(b" ", 2)[1])
        return time.time(), status, json.loads(body)["pid"] if status == 200 else 0

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def connected(port: int, clients: int) -> AsyncIterator[list[Client]]:
    """So many of them, which ask when they are told to."""
    found = [Client(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(clients)]
    try:
        yield found
    finally:
        for one in found:
            one.close()


async def busy(port: int, clients: int, seconds: float) -> tuple[float, list[Answer]]:
    """So many clients ask for so long: when they began, and what they were answered."""
    answers: list[Answer] = []

    async def one(client: Client, until: float) -> None:
        while time.time() < until:
            answers.append(await client.ask())

    async with connected(port, clients) as found:
        began = time.time()
        await asyncio.gather(*(one(client, began + seconds) for client in found))
    return began, answers


def told(one: Served, began: float) -> list[str]:
    """How the number has changed since."""
    lines = []
    for event in one.command("events"):
        since = datetime.datetime.fromisoformat(event["time"]).timestamp() - began
        if event["kind"] == "scale" and since > 0:
            lines.append(f"  {since:6.2f} s: {event['message']}")
    return lines


def failed(answers: list[Answer]) -> int:
    return sum(status != 200 for _, status, _ in answers)


async def step(one: Served) -> None:
    """From one client to 32."""
    _, ((_, _, alone), *_) = await busy(one.port, 1, 5.0)
    began, answers = await busy(one.port, CLIENTS, 25.0)
    print(f"step to {CLIENTS} clients: {len(answers)} answers, {failed(answers)} failed")
    first: dict[int, float] = {}
    for when, status, pid in answers:
        if status == 200 and pid != alone:
            first.setdefault(pid, when - began)
    print("  first answers of the others after", ", ".join(f"{when:.2f}" for when in sorted(first.values())), "s")
    print(*told(one, began), sep="\n")


async def from_none(one: Served, label: str) -> None:
    """A thousand requests, in two seconds, where there is no replica."""
    while one.deployment()["replicas"]:
        await asyncio.sleep(0.5)
    await asyncio.sleep(PAUSE_S)  # for standbys
    async with connected(one.port, 1000) as clients:
        began = time.time()

        async def later(client: Client, delay_s: float) -> Answer:
            await asyncio.sleep(delay_s)
            return await client.ask()

        answers = await asyncio.gather(*(later(client, 2.0 * n / 1000) for n, client in enumerate(clients)))
    after = sorted(when - began for when, _, _ in answers)
    half, most = after[len(after) // 2], after[len(after) * 99 // 100]
    print(f"1,000 requests at none, {label}: {failed(answers)} failed")
    print(f"  answered after: first {after[0]:.2f} s, half {half:.2f} s, 99 % {most:.2f} s, all {after[-1]:.2f} s")
    print(*told(one, began), sep="\n")


async def down(one: Served) -> None:
    """A few clients go on while the others' replicas go."""
    began, answers = await busy(one.port, 4, 20.0)
    left = one.deployment()["autoscaling"]["desired"]
    print(f"down to {left}: {len(answers)} answers, {failed(answers)} failed")
    print(*told(one, began), sep="\n")


async def main() -> None:
    with served(1) as one:
        await step(one)
        await down(one)
        await from_none(one, "a standby")
    with served(0) as one:
        await from_none(one, "no standby")


if __name__ == "__main__":
    asyncio.run(main())
