"""An application of deployments that call each other, as ``composition.py`` measures it; the front measures its own calls.

It is the same for both: ``SERVE`` names the module that has ``serve``, ``serveconf`` or ``ray``.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from fastapi import FastAPI

serve: Any = importlib.import_module(f"{os.environ['SERVE']}.serve")
CPU = {"num_cpus": 0.1}
KERNEL_S = 0.010  # what one batch takes
BATCH = 64
http = FastAPI()


async def _result(response: Any) -> Any:
    return await response


async def median_ms(call: Callable[[], Awaitable[Any]], times: int) -> float:
    """Of one call after another."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        await call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1e3


@serve.deployment(max_ongoing_requests=1000, ray_actor_options=CPU)
class Model:
    """What is called."""

    def __init__(self) -> None:
        self._running = 0

    async def __call__(self, value: Any) -> Any:
        return value

    async def first(self, array: Any) -> float:
        """Little comes back."""
        return float(array[0])

    async def sleep(self) -> None:
        """Until it is cancelled."""
        self._running += 1
        try:
            await asyncio.sleep(3600)
        finally:
            self._running -= 1

    async def running(self) -> int:
        """How many sleep."""
        return self._running


@serve.deployment(max_ongoing_requests=1000, ray_actor_options=CPU)
class Batched:
    """A kernel that takes the same time for one and for many."""

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0.005)
    async def __call__(self, values: list[Any]) -> list[Any]:
        await asyncio.sleep(KERNEL_S)
        return values


@serve.deployment(max_ongoing_requests=1000, ray_actor_options=CPU)
class Middle:
    """Between front and model."""

    def __init__(self, model: Any) -> None:
        self._model = model

    async def __call__(self, value: Any) -> Any:
        return await self._model.remote(value)


@serve.deployment(max_ongoing_requests=1000, ray_actor_options=CPU)
@serve.ingress(http)
class Front:
    """Answers HTTP."""

    def __init__(self, model: Any, middle: Any, batched: Any) -> None:
        self._model, self._middle, self._batched = model, middle, batched

    @http.get("/hello")
    async def hello(self) -> str:
        return "hello"

    @http.get("/chain")
    async def chain(self, value: int) -> int:
        return await self._middle.remote(value)  # type: ignore[no-any-return]

    @http.get("/calls")
    async def calls(self, times: int) -> dict[str, float]:
        """Medians in milliseconds: of a call, of one with an array of 1 MiB, of one to an idle batching deployment."""
        array = np.zeros(1 << 17)
        found = {}
        for name, call, some in (
            ("call", lambda: self._model.remote(1), times),
            ("array", lambda: self._model.first.remote(array), times // 10),
            ("batch of one", lambda: self._batched.remote(1), times // 20),
        ):
            await median_ms(call, some // 5 + 1)
            found[name] = await median_ms(call, some)
        return found

    @http.get("/callers")
    async def callers(self, callers: int, each: int, batched: bool) -> dict[str, float]:
        """Calls per second of many callers at a time, and how many were answered wrong or not at all."""
        handle = self._batched if batched else self._model
        lost = 0

        async def caller(offset: int) -> None:
            nonlocal lost
            for number in range(each):
                try:
                    lost += await handle.remote(offset + number) != offset + number
                except Exception:
                    lost += 1

        began = time.perf_counter()
        await asyncio.gather(*(caller(number * each) for number in range(callers)))
        return {"calls/s": callers * each / (time.perf_counter() - began), "lost": lost}

    @http.get("/cancel")
    async def cancel(self, calls: int) -> dict[str, int]:
        """Begin calls that never end, cancel them all; how many had begun, and how many go on after five seconds."""
        began = left = 0
        for _ in range(calls // 500):
            responses = [self._model.sleep.remote() for _ in range(500)]
            tasks = [asyncio.ensure_future(_result(response)) for response in responses]
            await asyncio.sleep(0.2)
            began += await self._model.running.remote()
            for response, task in zip(responses, tasks, strict=True):
                response.cancel()
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for _ in range(50):
                left = await self._model.running.remote()
                if not left:
                    break
                await asyncio.sleep(0.1)
        return {"began": began, "run on": left}


_model = Model.bind()
app = Front.bind(_model, Middle.bind(_model), Batched.bind())
