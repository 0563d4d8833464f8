"""Tasks that run beside: none is forgotten by the garbage collector, none dies unseen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

log = logging.getLogger("serveconf.background")

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0


class Tasks:
    """Holds tasks until they end. What one raises is logged; ``close`` ends those that are left."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run it beside."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a background task failed", exc_info=error, extra={"task": task.get_name()})

    def cancel(self) -> None:
        """End what still runs; nobody waits for it."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Cancel what still runs and wait until it has ended; but not for the task that asks."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def keep(
    name: str, work: Callable[[], Awaitable[object]], *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Run ``work``, which is meant never to end, for ever: it begins anew after a growing pause when it does end."""
    pause = FIRST_PAUSE_S
    while True:
        try:
            await work()
        except Exception:  # that is what it is for: whatever ends it is logged, and it begins anew
            log.exception("a background task failed and begins anew", extra={"task": name, "pause_s": pause})
        else:
            log.error("a background task returned and begins anew", extra={"task": name, "pause_s": pause})
        await sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)
