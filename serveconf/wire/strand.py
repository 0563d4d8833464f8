"""``Strand``: runs a coroutine in place. It begins at once, and goes on in the call that wakes it: no turn of the loop.

A task costs its own creation and a turn of the event loop each time that it goes on, which is more than most requests
need otherwise. The proxy runs a request as a strand; code that needs a real task (the user's middlewares, anything with
``asyncio.timeout``) awaits ``need_task`` first, and is run in one from there on. In a task ``need_task`` does nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any

_PARKED = object()
_NEED_TASK = object()
_running: Strand | None = None


def running() -> Strand | None:
    """The strand that runs now; None in a task."""
    return _running


@coroutine
def park() -> Generator[object, None, None]:
    """Within a strand: wait until someone calls its ``resume``."""
    yield _PARKED


async def need_task() -> None:
    """Go on in a task, where this is not one already."""
    if _running is not None:
        await _as_task()


@coroutine
def _as_task() -> Generator[object, None, None]:
    yield _NEED_TASK


class Strand:
    """A coroutine that runs in place. ``tasks`` holds its task, if it comes to need one, for as long as that runs."""

    __slots__ = (
        "_coroutine",
        "_ended",
        "_is_cancelled",
        "_is_parked",
        "_is_within",
        "_loop",
        "_task",
        "_tasks",
        "_waits_for",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, None],
        tasks: set[asyncio.Task[None]],
    ) -> None:
        self._loop = loop
        self._coroutine = coroutine
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None
        self._waits_for: Any = None
        self._is_parked = False
        self._is_cancelled = False
        self._is_within = False
        self._ended = False

    def start(self) -> None:
        """Run it until it waits for something."""
        self._step()

    def resume(self) -> None:
        """Go on after ``park``; harmless when it does not wait there."""
        if self._is_parked:
            self._is_parked = False
            self._step()

    def cancel(self) -> None:
        """As ``Task.cancel``, but the coroutine hears of it before this returns, unless this call comes from within it."""
        if self._task is not None:
            self._task.cancel()
        elif self._is_within:
            self._is_cancelled = True
        elif not self._ended:
            self._is_parked = False
            self._waits_for = None
            self._step(asyncio.CancelledError())

    def _on_done(self, future: Any) -> None:
        if future is self._waits_for:  # else it was cancelled meanwhile
            self._waits_for = None
            self._step()

    def _step(self, error: BaseException | None = None) -> None:
        global _running
        before, _running = _running, self
        self._is_within = True
        try:
            waits_for = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except StopIteration:
            self._ended = True
            return
        except asyncio.CancelledError:
            self._ended = True
            return
        finally:
            _running = before
            self._is_within = False
        if self._is_cancelled:
            self._is_cancelled = False
            self._loop.call_soon(self.cancel)
        if waits_for is _PARKED:
            self._is_parked = True
        elif waits_for is _NEED_TASK:
            self._become_task()
        elif waits_for is None:  # asyncio.sleep(0)
            self._waits_for = self
            self._loop.call_soon(self._on_done, self)
        else:
            waits_for._asyncio_future_blocking = False  # what a task does too: PEP 3156's word between future and task
            waits_for.add_done_callback(self._on_done)
            self._waits_for = waits_for

    def _become_task(self) -> None:
        task = self._task = self._loop.create_task(_finish(self._coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._coroutine.close()  # for a task that was cancelled before it began
        self._ended = True


class _Rest:
    """What is left of a coroutine that has begun."""

    def __init__(self, begun: Coroutine[Any, Any, None]) -> None:
        self._begun = begun

    def __await__(self) -> Generator[Any, None, None]:
        return self._begun.__await__()


async def _finish(begun: Coroutine[Any, Any, None]) -> None:
    await _Rest(begun)
