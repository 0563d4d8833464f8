"""Calls by handle between two processes of one node, over a unix socket and without Ray: ``python benchmarks/handles.py``.

Prints the median of one call after another, of one with a numpy array of 1 MiB, and the calls per second of 64 callers.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import uvloop

from serveconf.handles.answering import Answering
from serveconf.handles.calling import WireCaller
from serveconf.handles.calls import Target
from serveconf.handles.directory import Directory
from serveconf.handles.handle import DeploymentHandle
from serveconf.ingress.app import build
from serveconf.proxy.pool import ReplicaPool
from serveconf.routing import Generation, ReplicaAddress, Route
from serveconf.wire import WireServer

SECRET = b"s" * 32
CALLERS, CALLS_EACH = 64, 200


class Model:
    """What is called."""

    async def __call__(self, value: Any) -> Any:
        return value

    async def first(self, array: Any) -> float:
        """Little comes back."""
        return float(array[0])


def be_replica(path: str, ready: Any) -> None:
    async def serve() -> None:
        served = build(Model)
        server = WireServer(Answering(served.app, lambda: served.servable), secret=SECRET, max_ongoing=1000)
        await server.listen_unix(path)
        ready.set()
        await asyncio.Event().wait()

    uvloop.run(serve())


async def median_ms(call: Callable[[], Awaitable[Any]], times: int) -> float:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        await call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1e3


async def measure(path: str) -> None:
    directory = Directory(ReplicaPool(node_id="node", secret=SECRET))
    replica = ReplicaAddress(id="replica", node_id="node", uds=path)
    route = Route(prefix="", stack="s", deployment="model", replicas=(replica,), max_ongoing_requests=1000)
    await directory.take(Generation(number=1, routes=(route,)))
    handle: DeploymentHandle[Any] = DeploymentHandle(
        Target(stack="s", deployment="model"), caller=WireCaller(directory)
    )

    async def caller() -> None:
        for number in range(CALLS_EACH):
            assert await handle.remote(number) == number

    await median_ms(lambda: handle.remote(1), 500)
    print(f"one call after another: {await median_ms(lambda: handle.remote(1), 3000):.3f} ms")
    array = np.zeros(1 << 17)
    print(f"with a numpy array of 1 MiB: {await median_ms(lambda: handle.first.remote(array), 300):.3f} ms")
    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    print(f"{CALLERS} callers: {CALLERS * CALLS_EACH / (time.perf_counter() - began):.0f} calls/s")
    await directory.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/replica"
        ready = multiprocessing.Event()
        replica = multiprocessing.Process(target=be_replica, args=(path, ready), daemon=True)
        replica.start()
        ready.wait(30)
        uvloop.run(measure(path))
        replica.terminate()
        replica.join()


if __name__ == "__main__":
    main()
