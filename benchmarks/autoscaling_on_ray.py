"""How soon real replicas follow real requests: a step from 1 to 32 busy clients, and 1,000 requests at none.

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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

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
http_options: {port: %d}
deployments:
  - name: app
    import_path: app:app
    route_prefix: /
    ray_actor_options: {num_cpus: 0.01}
    autoscaling_config: {min_replicas: 0, max_replicas: %d, downscale_delay_s: 5, downscale_to_zero_delay_s: 4}
"""
CLIENTS, MOST = 32, 16
Answer = tuple[float, int, int]  # when, status, pid


class Served:
    """The app, applied."""

    def __init__(self, url: str, environment: dict[str, str]) -> None:
        self.url, self._environment = url, environment

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
def served() -> Iterator[Served]:
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
        spec.write_text(SPEC % (port, MOST))
        one = Served(f"http://127.0.0.1:{port}/", environment)
        try:
            one.command("apply", str(spec))
            yield one
        finally:
            subprocess.run([SERVECONF, "shutdown"], env=environment, check=True, capture_output=True)


async def ask(client: httpx.AsyncClient, url: str) -> Answer:
    answer = await client.get(url)
    return time.time(), answer.status_code, answer.json()["pid"] if answer.status_code == 200 else 0


async def busy(url: str, clients: int, seconds: float) -> list[Answer]:
    """So many clients, for so long."""
    answers: list[Answer] = []
    until = time.time() + seconds

    async def one(client: httpx.AsyncClient) -> None:
        while time.time() < until:
            answers.append(await ask(client, url))

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        await asyncio.gather(*(one(client) for _ in range(clients)))
    return answers


async def step(one: Served) -> None:
    """From one client to 32."""
    (_, _, alone), *_ = await busy(one.url, 1, 5.0)
    began = time.time()
    answers = await busy(one.url, CLIENTS, 25.0)
    events = [e for e in one.command("events") if e["kind"] == "scale"]

    print(f"step to {CLIENTS} clients: {len(answers)} answers, {sum(status != 200 for _, status, _ in answers)} failed")
    first: dict[int, float] = {}
    for when, status, pid in answers:
        if status == 200 and pid != alone:
            first.setdefault(pid, when - began)
    print("  first answers of the others after", ", ".join(f"{when:.2f}" for when in sorted(first.values())), "s")
    for event in events:
        since = datetime.datetime.fromisoformat(event["time"]).timestamp() - began
        if since > -1:
            print(f"  {since:6.2f} s: {event['message']}")


async def from_none(one: Served) -> None:
    """A thousand requests, in two seconds, where there is no replica."""
    while one.deployment()["replicas"]:
        await asyncio.sleep(0.5)
    began = time.time()
    limits = httpx.Limits(max_connections=1000)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:

        async def later(delay_s: float) -> Answer:
            await asyncio.sleep(delay_s)
            return await ask(client, one.url)

        answers = await asyncio.gather(*(later(2.0 * n / 1000) for n in range(1000)))
    failed = sum(status != 200 for _, status, _ in answers)
    first, last = min(when for when, _, _ in answers) - began, max(when for when, _, _ in answers) - began
    print(f"1,000 requests at none: first answer after {first:.2f} s, all after {last:.2f} s, {failed} failed")


async def down(one: Served) -> None:
    """A few clients go on while the others' replicas go."""
    answers = await busy(one.url, 4, 20.0)
    left = one.deployment()["autoscaling"]["desired"]
    print(f"down to {left}: {len(answers)} answers, {sum(status != 200 for _, status, _ in answers)} failed")


async def main() -> None:
    with served() as one:
        await step(one)
        await down(one)
        await from_none(one)


if __name__ == "__main__":
    asyncio.run(main())
