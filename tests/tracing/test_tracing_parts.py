"""Where the time of a request went: its trace, its line in the access log and the metrics tell the same, and it adds up."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import StreamingResponse
from otlp_collector import Collector
from traced_stack import in_loop, traced_stack

from serveconf.figures import add_histograms
from serveconf.proxy.access_log import AccessLog
from serveconf.routing import Tracing

QUEUE = "serveconf.queue.duration"
CLIENTS = 12
ASKED = [
    ("GET", "/app/after/0"),
    ("GET", "/app/after/7"),
    ("GET", "/app/after/30"),
    ("GET", "/app/thread/5"),
    ("GET", "/app/bit-by-bit"),
    ("GET", "/app/goes-on"),
    ("GET", "/app/no-such-thing"),
    ("POST", "/app/takes"),
]
ROUNDS = 3


def app() -> FastAPI:
    app = FastAPI()

    @app.get("/after/{ms}")
    async def after(ms: int) -> int:
        await asyncio.sleep(ms / 1000)
        return ms

    @app.get("/thread/{ms}")
    def thread(ms: int) -> int:
        import time

        time.sleep(ms / 1000)
        return ms

    @app.get("/bit-by-bit")
    async def bit_by_bit() -> StreamingResponse:
        async def bits() -> Any:
            for _ in range(4):
                await asyncio.sleep(0.004)
                yield b"x" * 10_000

        return StreamingResponse(bits())

    @app.get("/goes-on")
    async def goes_on(tasks: BackgroundTasks) -> int:
        tasks.add_task(asyncio.sleep, 0.05)  # after the answer, so no part of it
        return 0

    @app.post("/takes")
    async def takes(request: Request) -> int:
        return len(await request.body())

    return app


async def run(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Any]:
    """Many requests of different length, more at once than may run: lines of the log, spans, and the figures."""
    log, collector = folder / "log", Collector()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        async with traced_stack() as (stack, client):
            stack.app.edge.access_log, stack.access_log = AccessLog(descriptor), "json"
            await stack.replica("app", app())
            await stack.serve(Tracing(endpoint=collector.endpoint), max_ongoing_requests=4)

            async def ask() -> None:
                for method, path in ASKED * ROUNDS:
                    answer = await client.request(method, path, content=b"x" * 50_000 if method == "POST" else None)
                    assert answer.status_code == (404 if "no-such" in path else 200)

            await asyncio.gather(*(ask() for _ in range(CLIENTS)))
            figures = stack.app.figures().deployments["s/app"]
            await asyncio.to_thread(stack.app.edge.access_log.flush, 10)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        return lines, collector.spans, figures
    finally:
        os.close(descriptor)
        collector.close()


@in_loop
async def test_queue_wire_and_app_add_up_to_the_duration_and_trace_log_and_metrics_say_the_same(tmp_path: Path) -> None:
    lines, spans, figures = await run(tmp_path)
    count = CLIENTS * ROUNDS * len(ASKED)
    proxies = {s["attributes"]["serveconf.request_id"]: s for s in spans if not s["parent"]}
    replicas = {s["parent"]: s for s in spans if s["parent"]}
    assert len(lines) == len(proxies) == len(replicas) == count
    off, duration_sum, parts_sum = [], 0.0, 0.0
    for line in lines:
        proxy = proxies[line["request_id"]]
        queued = proxy["events"].get("queued", {"at": proxy["began"], QUEUE: 0.0})
        assert abs(proxy["ns"] / 1e6 - line["duration_ms"]) < 0.002
        assert abs(queued[QUEUE] * 1e3 - line["queue_ms"]) < 0.002
        parts = parts_ms(proxy, queued, replicas[proxy["id"]])
        duration_sum += line["duration_ms"]
        parts_sum += sum(parts.values())
        if abs(sum(parts.values()) - line["duration_ms"]) > 0.02 * line["duration_ms"]:
            off.append((line["path"], line["duration_ms"], parts))
    assert abs(parts_sum - duration_sum) <= 0.02 * duration_sum
    assert len(off) <= 0.1 * count, off  # between two looks at the clock the system may give the core to others
    waited = [line for line in lines if line["queue_ms"]]
    assert len(waited) > count / 3
    durations = add_histograms(h for statuses in figures.durations.values() for h in statuses.values())
    assert (durations.count, figures.waits.count) == (count, len(waited))
    assert abs(durations.sum * 1e3 - duration_sum) < 0.001 * count
    assert abs(figures.waits.sum * 1e3 - sum(line["queue_ms"] for line in lines)) < 0.001 * count


def parts_ms(proxy: dict[str, Any], queued: dict[str, Any], replica: dict[str, Any]) -> dict[str, float]:
    """One after the other; two that overlap leave less than nothing between them, which is no time, and the sum is too much."""
    left_ns = queued["at"] + queued[QUEUE] * 1e9
    return {
        "before": max(0.0, queued["at"] - proxy["began"]) / 1e6,
        "queue": queued[QUEUE] * 1e3,
        "there": max(0.0, replica["began"] - left_ns) / 1e6,
        "app": replica["ns"] / 1e6,
        "back": max(0.0, proxy["ended"] - replica["ended"]) / 1e6,
    }
