"""What ``remote`` gives: a result, or a stream of results, that is on its way. The call has begun already.

Awaited in async code, asked with ``.result()`` in sync code; whoever waits and is cancelled cancels the call. A call waits for
responses among its arguments, so that whoever made it need not.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from typing import Any, TypeVar

from serveconf.handles.calls import Call, Caller
from serveconf.handles.errors import RequestCancelledError
from serveconf.runtime import context

T = TypeVar("T")

AHEAD = 16  # items of a stream that wait for whoever iterates; then the other end is held up
_END = object()


class _Response:
    """What both kinds have in common. ``request_id``: that of the request for which the call is made, or one of its own."""

    def __init__(self, caller: Caller, call: Call) -> None:
        self.request_id = call.request_id
        self._caller = caller
        self._is_cancelled = False

    def cancel(self) -> None:
        """Nobody waits for it any more: it ends here and at the other end. Harmless when it is over."""
        self._is_cancelled = True

    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._is_cancelled

    def __reduce__(self) -> Any:
        raise TypeError(f"a {type(self).__name__} cannot be pickled: pass it to a call directly, or await it first")

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T] | concurrent.futures.Future[T]:
        loop = self._caller.loop
        task = loop.create_task(work) if _is_here(loop) else asyncio.run_coroutine_threadsafe(work, loop)
        request = context.request.get()
        if request is not None:
            request.calls.add(task)
            task.add_done_callback(request.calls.discard)
        task.add_done_callback(_seen)
        return task

    def _end(self, task: asyncio.Task[Any] | concurrent.futures.Future[Any]) -> None:
        loop = self._caller.loop
        if isinstance(task, asyncio.Task) and not _is_here(loop):
            loop.call_soon_threadsafe(task.cancel)
        else:
            task.cancel()

    async def _wait(self, task: asyncio.Task[T] | concurrent.futures.Future[T]) -> T:
        try:
            if isinstance(task, asyncio.Task):
                return await (task if _is_here(self._caller.loop) else asyncio.wrap_future(_across(task)))
            return await asyncio.wrap_future(task)
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if self._is_cancelled and not (waiter is not None and waiter.cancelling()):
                raise RequestCancelledError(f"request {self.request_id} was cancelled") from None
            raise

    def _wait_here(self, task: asyncio.Task[T] | concurrent.futures.Future[T], timeout_s: float | None) -> T:
        future = _across(task) if isinstance(task, asyncio.Task) else task
        try:
            return future.result(timeout_s)
        except concurrent.futures.CancelledError:
            raise RequestCancelledError(f"request {self.request_id} was cancelled") from None
        except TimeoutError:
            if future.done():
                raise
            raise TimeoutError(f"no result within {timeout_s:g} s") from None


class DeploymentResponse(_Response):
    """One result. It may be awaited, or asked for, any number of times."""

    def __init__(self, caller: Caller, call: Call) -> None:
        super().__init__(caller, call)
        self._task: asyncio.Task[Any] | concurrent.futures.Future[Any] = self._begin(caller.call(call))

    def __await__(self) -> Generator[Any, None, Any]:
        return self._wait(self._task).__await__()

    def result(self, *, timeout_s: float | None = None) -> Any:
        """Wait for it in sync code. TimeoutError past ``timeout_s``, and the call goes on; RuntimeError on an event loop."""
        _refuse_loop("await the response")
        return self._wait_here(self._task, timeout_s)

    def cancel(self) -> None:
        super().cancel()
        self._end(self._task)


class DeploymentResponseGenerator(_Response):
    """The results of a generator, for ``async for`` or ``for``. Let go of before its end, it is cancelled."""

    def __init__(self, caller: Caller, call: Call) -> None:
        super().__init__(caller, call)
        self._items: asyncio.Queue[Any] = asyncio.Queue(AHEAD)
        self._task: asyncio.Task[None] | concurrent.futures.Future[None]
        self._task = self._begin(_fill(self._items, caller, call))

    def __await__(self) -> Any:
        raise TypeError("a stream of results is not awaited: iterate over it with 'async for'")

    def result(self, *, timeout_s: float | None = None) -> Any:
        """There is no single result."""
        raise TypeError("a stream of results has no result(): iterate over it")

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if _is_here(self._caller.loop):
            item = await self._items.get()
        else:
            item = await asyncio.wrap_future(self._begin_here(self._items.get()))
        if item is not _END:
            return item
        self._items = _ended()
        await self._wait(self._task)
        raise StopAsyncIteration

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        _refuse_loop("iterate with 'async for'")
        item = self._begin_here(self._items.get()).result()
        if item is not _END:
            return item
        self._items = _ended()
        self._wait_here(self._task, None)
        raise StopIteration

    def cancel(self) -> None:
        super().cancel()
        self._end(self._task)

    def _begin_here(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._caller.loop)

    def __del__(self) -> None:
        task = getattr(self, "_task", None)
        if task is not None and not task.done() and not self._caller.loop.is_closed():
            self._end(task)


async def _fill(items: asyncio.Queue[Any], caller: Caller, call: Call) -> None:
    try:
        await caller.stream(call, items.put)
    except asyncio.CancelledError:
        while not items.empty():  # nobody is to wait for room
            items.get_nowait()
        items.put_nowait(_END)
        raise
    except BaseException:  # whatever ended it: who reads must hear of the end
        await items.put(_END)
        raise
    await items.put(_END)


def _ended() -> asyncio.Queue[Any]:
    items: asyncio.Queue[Any] = asyncio.Queue()
    items.put_nowait(_END)
    return items


def _is_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this code runs on that loop."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _refuse_loop(instead: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(f"this would block the event loop that it is called on: {instead}")


def _across(task: asyncio.Task[T]) -> concurrent.futures.Future[T]:
    """The same outcome, for whoever waits on another thread."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def settle(done: asyncio.Task[T]) -> None:
        if done.cancelled():
            future.cancel()
            future.set_running_or_notify_cancel()
        elif (error := done.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(done.result())

    task.get_loop().call_soon_threadsafe(task.add_done_callback, settle)
    return future


def _seen(task: Any) -> None:
    """An outcome that nobody asks for is no fault of the loop's: the other end has logged it."""
    if not task.cancelled():
        task.exception()


async def resolved(call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, with results in the place of responses. Raises what those raise."""
    args, kwargs = call.args, call.kwargs
    for value in (*args, *kwargs.values()):
        if isinstance(value, DeploymentResponse):
            args = tuple([await _result(value) for value in args])
            return args, {key: await _result(value) for key, value in kwargs.items()}
    return args, dict(kwargs)


async def _result(value: Any) -> Any:
    return await value if isinstance(value, DeploymentResponse) else value
