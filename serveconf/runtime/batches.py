"""Batches of one function: calls wait here until they are enough, or until waiting longer is of no use.

A call waits for others only while others are to be expected: those that the replica is at already, and those that came
back right after the last batch. A caller that is alone never waits. ``batching`` is the only caller.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from serveconf.runtime.context import get_multiplexed_model_id, the_replica

log = logging.getLogger("serveconf.replica")


@dataclass(kw_only=True)
class Options:
    """How batches are formed. Changes hold from the next batch on."""

    max_batch_size: int
    batch_wait_timeout_s: float
    max_concurrent_batches: int
    batch_size_fn: Callable[[list[Any]], int] | None

    def __post_init__(self) -> None:
        self.set_max_batch_size(self.max_batch_size)
        self.set_batch_wait_timeout_s(self.batch_wait_timeout_s)
        self.max_concurrent_batches = _count("max_concurrent_batches", self.max_concurrent_batches)
        if self.batch_size_fn is not None and not callable(self.batch_size_fn):
            raise TypeError("batch_size_fn must be a function of a list that returns an integer")

    def set_max_batch_size(self, size: int) -> None:
        """The most items of a batch. TypeError, ValueError for what is no number from 1."""
        self.max_batch_size = _count("max_batch_size", size)

    def set_batch_wait_timeout_s(self, seconds: float) -> None:
        """How long a batch may wait for more. TypeError, ValueError for what is no number from 0."""
        if not isinstance(seconds, int | float) or isinstance(seconds, bool):
            raise TypeError(f"batch_wait_timeout_s must be a number of seconds, not {seconds!r}")
        if seconds < 0:
            raise ValueError(f"batch_wait_timeout_s must be at least 0, not {seconds}")
        self.batch_wait_timeout_s = float(seconds)


def _count(name: str, value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    return value


@dataclass(eq=False)
class Item:
    """One call. ``context`` is its caller's, so that the batch knows what its calls are for."""

    arguments: dict[str, Any]
    future: asyncio.Future[Any]
    came: float
    model_id: str
    context: contextvars.Context = field(default_factory=contextvars.copy_context)

    @property
    def value(self) -> Any:
        """What ``batch_size_fn`` sees of it: its argument, or all of them."""
        values = tuple(self.arguments.values())
        return values[0] if len(values) == 1 else values


class Batches:
    """The calls of one function, or of one instance's method."""

    def __init__(self, func: Callable[..., Any], options: Options, owner: Any = None) -> None:
        self._func = func
        self._options = options
        self._owner = None if owner is None else weakref.ref(owner)
        self._waiting: deque[Item] = deque()
        self._running: dict[asyncio.Task[None], int] = {}
        self._expected = 0  # so many callers there were when the last batch ended,
        self._expected_until = 0.0  # and so long they may be on their way back
        self._timer: asyncio.Handle | None = None
        self._free_since = 0.0  # when the last batch ended: from then on a call waits for others, not for the function
        self._some_left = False
        self._warned = False

    def put(self, arguments: dict[str, Any]) -> asyncio.Future[Any]:
        """Wait for a batch. The future gets the result; cancelled, the call is left out, or its batch ends if nobody else waits."""
        loop = asyncio.get_running_loop()
        if not self._warned:
            self._warned = True
            _warn_if_never_full(self._options)
        item = Item(arguments, loop.create_future(), loop.time(), get_multiplexed_model_id())
        self._waiting.append(item)
        item.future.add_done_callback(self._left)
        self._look_soon(loop)
        return item.future

    def _left(self, future: asyncio.Future[Any]) -> None:
        self._some_left |= future.cancelled()

    def _look_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """At the end of this turn, in which more may come."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_soon(self._look, loop, context=_EMPTY)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._some_left:
            self._some_left = False
            self._waiting = deque(item for item in self._waiting if not item.future.cancelled())
        while self._waiting and len(self._running) < self._options.max_concurrent_batches:
            batch, full = self._next()
            since = max(self._waiting[0].came, self._free_since)
            left_s = since + self._options.batch_wait_timeout_s - loop.time()
            if not full and left_s > 0 and self._more_to_come(loop):
                self._timer = loop.call_later(left_s, self._look, loop, context=_EMPTY)
                return
            chosen = set(map(id, batch))
            self._waiting = deque(item for item in self._waiting if id(item) not in chosen)
            self._start(loop, batch)

    def _next(self) -> tuple[list[Item], bool]:
        """The batch that could be run now: calls for one model; and whether no more goes in."""
        limit, size_of = self._options.max_batch_size, self._options.batch_size_fn
        model_id = self._waiting[0].model_id
        batch: list[Item] = []
        for item in self._waiting:
            if item.model_id != model_id:
                continue
            if size_of is not None and batch and size_of([one.value for one in (*batch, item)]) > limit:
                return batch, True
            batch.append(item)
            size = len(batch) if size_of is None else size_of([one.value for one in batch])
            if size >= limit:
                return batch, True
        return batch, False

    def _more_to_come(self, loop: asyncio.AbstractEventLoop) -> bool:
        here = len(self._waiting) + sum(self._running.values())
        replica = the_replica()
        if replica is not None and replica.ongoing() > here:
            return True
        return loop.time() < self._expected_until and here < self._expected

    # running

    def _start(self, loop: asyncio.AbstractEventLoop, batch: list[Item]) -> None:
        task = loop.create_task(self._run(batch), context=batch[0].context)
        self._running[task] = len(batch)
        for item in batch:
            item.future.add_done_callback(lambda _: _cancel_if_nobody_waits(task, batch))
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None] | None) -> None:
        """Called before its callers get their results: who calls again right then is one of those that were expected."""
        if task is None or task not in self._running:
            return
        size = self._running.pop(task)
        loop = task.get_loop()
        self._free_since = loop.time()
        self._expected = size + len(self._waiting) + sum(self._running.values())
        self._expected_until = self._free_since + self._options.batch_wait_timeout_s
        if self._waiting:
            self._look_soon(loop)

    async def _run(self, batch: list[Item]) -> None:
        lists = {name: [item.arguments[name] for item in batch] for name in batch[0].arguments}
        owner = () if self._owner is None else (self._owner(),)
        try:
            if inspect.isasyncgenfunction(self._func):
                await _stream(self._func(*owner, **lists), batch)
                return
            results = _checked(await self._func(*owner, **lists), batch, self._func)
        except asyncio.CancelledError:
            for item in batch:
                item.future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - user code: whatever it raises is what each caller gets
            self._ended(asyncio.current_task())
            _fail(batch, error)
            return
        self._ended(asyncio.current_task())
        for item, result in zip(batch, results, strict=True):
            _give(item, result)


_EMPTY = contextvars.Context()  # for what is done on nobody's behalf


def _checked(results: Any, batch: list[Item], func: Callable[..., Any]) -> Sequence[Any]:
    name = getattr(func, "__qualname__", "the function")
    if isinstance(results, str | bytes | dict) or not hasattr(results, "__len__"):
        raise TypeError(f"{name} has @serve.batch and must give a list of results, not {type(results).__name__}")
    if len(results) != len(batch):
        raise ValueError(f"{name} was given a batch of {len(batch)} and gave {len(results)} results")
    return list(results)


def _give(item: Item, result: Any) -> None:
    if item.future.done():
        return
    if isinstance(result, Exception):
        item.future.set_exception(result)
    else:
        item.future.set_result(result)


def _fail(batch: list[Item], error: Exception) -> None:
    if isinstance(error, StopIteration):  # no future takes it
        error = RuntimeError(f"the batch raised {error!r}")
    for item in batch:
        if not item.future.done():
            item.future.set_exception(error)


async def _stream(source: AsyncGenerator[Any, None], batch: list[Item]) -> None:
    """Hand each list on as it comes; the callers that want no more, or are to get none, drop out."""
    try:
        async for results in source:
            results = _checked(results, batch, source.__anext__)
            for item, result in zip(batch, results, strict=True):
                _give_next(item, result)
            if all(item.future.done() for item in batch):
                break
        for item in batch:
            if not item.future.done():
                item.future.set_result((None, None))
    except Exception as error:  # noqa: BLE001 - as in ``_run``
        _fail(batch, error)
    finally:
        await source.aclose()


def _give_next(item: Item, result: Any) -> None:
    if item.future.done():
        return
    if _is_end(result):
        item.future.set_result((None, None))
    elif isinstance(result, Exception):
        item.future.set_exception(result)
    else:
        given, item.future = item.future, asyncio.get_running_loop().create_future()
        given.set_result((result, item.future))


def _is_end(result: object) -> bool:
    return (
        isinstance(result, StopIteration | StopAsyncIteration)
        or result is StopIteration
        or result is StopAsyncIteration
    )


def _cancel_if_nobody_waits(task: asyncio.Task[None], batch: list[Item]) -> None:
    if all(item.future.cancelled() for item in batch):
        task.cancel()


def _warn_if_never_full(options: Options) -> None:
    replica = the_replica()
    needed = options.max_batch_size * options.max_concurrent_batches
    if replica is not None and replica.max_ongoing < needed:
        log.warning(
            "max_ongoing_requests is %d, so that batches of %d (%d at a time) never get full: set it to %d or more",
            replica.max_ongoing, options.max_batch_size, options.max_concurrent_batches, needed,
        )  # fmt: skip
