"""Calls at their edges: what cannot be sent, who waits on another thread or loop, and tables that come late."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from handles_harness import Stack, generation, in_loop, stack
from hypothesis import given
from hypothesis import strategies as st

from serveconf.handles.errors import CallFailed, RemoteTraceback, RequestCancelledError
from serveconf.handles.following import Following
from serveconf.handles.wire_form import ITEM, WHOLE_BYTES, error_item, open_item, value_item
from serveconf.routing import encode


class NoReduce(Exception):
    """Its own code fails while it is pickled."""

    def __reduce__(self) -> Any:
        raise ValueError("not me")


class NoReturn(Exception):
    """Its own code fails while it is made again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one}-{two}")


class Holds(Exception):
    """Pickles only without what it holds."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class Stubborn:
    def __getstate__(self) -> Any:
        raise KeyError("state")


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def opened(pieces: list[Any]) -> Any:
    data = b"".join(pieces)
    kind, size = ITEM.unpack_from(data)
    assert size == len(data) - ITEM.size
    return open_item(kind, data[ITEM.size :])


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.binary(max_size=50)
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(value=VALUES, sizes=st.lists(st.sampled_from([0, 1, 8191, 8192, 8193, WHOLE_BYTES, 40_000]), max_size=3))
def test_whatever_is_sent_is_what_arrives_with_buffers_beside_it_or_in_it(value: Any, sizes: list[int]) -> None:
    arrays = [bytearray(range(256)) * (size // 256) + bytearray(size % 256) for size in sizes]
    got, *back = opened(value_item((value, *arrays)))
    assert (got, type(got)) == (value, type(value))
    assert back == arrays


@pytest.mark.parametrize("value", [Stubborn(), threading.Lock(), nested(100_000)], ids=["state", "lock", "deep"])
def test_a_result_that_cannot_be_sent_is_a_call_that_failed_and_says_why(value: Any) -> None:
    with pytest.raises(CallFailed, match="cannot be sent"):
        value_item(value)


@pytest.mark.parametrize(
    ("error", "words"),
    [(NoReduce("secret"), "NoReduce: secret"), (NoReturn(1, 2), "NoReturn: 1-2"), (Holds("held"), "Holds: held")],
)
def test_an_exception_that_cannot_be_sent_arrives_by_its_words(error: Exception, words: str) -> None:
    with pytest.raises(CallFailed) as caught:
        opened(error_item(error))
    assert words in caught.value.message
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert words in str(caught.value.__cause__)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
def test_what_would_end_the_calling_process_arrives_as_a_failed_call(error: BaseException) -> None:
    with pytest.raises(CallFailed, match=type(error).__name__):
        opened(error_item(error))


class Model:
    def __init__(self) -> None:
        self.ended: list[str] = []
        self.begun = threading.Event()

    def __call__(self, value: Any) -> Any:
        return value

    def fail(self, how: str) -> None:
        raise {"reduce": NoReduce("words"), "holds": Holds("words"), "plain": LookupError("words")}[how]

    def stubborn(self) -> Any:
        return Stubborn()

    async def numbers(self, limit: int) -> AsyncIterator[int]:
        try:
            for number in range(limit):
                yield number
        finally:
            self.ended.append("numbers")

    async def some_then(self, how: str) -> AsyncIterator[Any]:
        yield 1
        if how == "stubborn":
            yield Stubborn()
        self.fail(how)

    async def wait(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.append("wait")


async def started(s: Stack, **built: Any) -> Model:
    await s.directory.take(generation(1, {"m": [await s.replica("a", Model, **built)]}))
    await s.handle("m").remote(0)
    model: Any = s.served["a"].servable
    return model


@in_loop
async def test_what_cannot_be_sent_fails_its_own_call_and_no_other() -> None:
    async with stack() as s:
        await started(s)
        handle = s.handle("m")
        for how in ("reduce", "holds"):
            with pytest.raises(CallFailed, match="words"):
                await handle.fail.remote(how)
            assert await handle.remote(how) == how
        with pytest.raises(CallFailed, match="cannot be sent"):
            await handle.stubborn.remote()
        with pytest.raises(CallFailed, match="cannot be sent"):
            await handle.remote(Stubborn())
        with pytest.raises(LookupError, match="words"):
            await handle.fail.remote("plain")
        assert s.servers["a"].ongoing == 0


@pytest.mark.parametrize("how", ["stubborn", "reduce", "holds"])
def test_a_stream_gives_what_came_before_the_item_that_cannot_be_sent(how: str) -> None:
    @in_loop
    async def run() -> None:
        async with stack() as s:
            await started(s)
            got: list[Any] = []

            async def read() -> None:
                async for item in s.handle("m").some_then.options(stream=True).remote(how):
                    got.append(item)

            with pytest.raises(CallFailed):
                await read()
            assert got == [1]

    run()


async def in_thread(work: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(work)


@in_loop
async def test_a_response_of_this_loop_may_be_asked_for_on_another_thread() -> None:
    async with stack() as s:
        model = await started(s)
        handle = s.handle("m")
        fine, wrong = handle.remote(5), handle.fail.remote("plain")
        assert await in_thread(fine.result) == 5
        assert await in_thread(fine.result) == 5  # any number of times
        with pytest.raises(LookupError, match="words"):
            await in_thread(wrong.result)
        waiting = handle.wait.remote()
        with pytest.raises(TimeoutError, match="no result within"):
            await in_thread(lambda: waiting.result(timeout_s=0.01))
        assert not waiting.cancelled()
        await in_thread(waiting.cancel)
        assert waiting.cancelled()
        with pytest.raises(RequestCancelledError):
            await in_thread(waiting.result)
        with pytest.raises(RequestCancelledError):
            await waiting
        while not model.ended:
            await asyncio.sleep(0)
        await in_thread(waiting.cancel)  # harmless when it is over
        assert await fine == 5


@in_loop
async def test_a_response_is_awaited_on_another_loop() -> None:
    async with stack() as s:
        await started(s)
        response, stream = s.handle("m").remote("x"), s.handle("m").numbers.options(stream=True).remote(40)

        async def elsewhere() -> Any:
            return await response, [item async for item in stream]

        assert await in_thread(lambda: asyncio.run(elsewhere())) == ("x", list(range(40)))


@in_loop
async def test_a_stream_is_read_on_another_thread_and_ends_once() -> None:
    async with stack() as s:
        await started(s)
        stream = s.handle("m").numbers.options(stream=True).remote(40)
        assert await in_thread(lambda: list(stream)) == list(range(40))
        assert await in_thread(lambda: list(stream)) == []  # as any iterator that has ended
        assert [item async for item in stream] == []
        again = s.handle("m").some_then.options(stream=True).remote("plain")
        with pytest.raises(LookupError, match="words"):
            await in_thread(lambda: list(again))


@in_loop
async def test_a_stream_that_a_thread_lets_go_of_ends_at_the_other_end() -> None:
    async with stack() as s:
        model = await started(s)

        def some() -> int:
            for item in s.handle("m").numbers.options(stream=True).remote(10**9):
                if item == 20:
                    return int(item)
            return -1

        assert await in_thread(some) == 20
        while not model.ended:
            await asyncio.sleep(0)
        assert model.ended == ["numbers"]


@in_loop
async def test_who_waits_and_is_cancelled_is_told_so_and_not_that_the_call_was() -> None:
    async with stack() as s:
        model = await started(s)
        waiter = asyncio.create_task(_awaiting(s.handle("m").wait.remote()))
        while not model.begun.is_set():
            await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        while not model.ended:
            await asyncio.sleep(0)


async def _awaiting(response: Any) -> Any:
    return await response


@in_loop
async def test_a_stream_has_no_single_result_and_a_response_of_this_loop_does_not_block_it() -> None:
    async with stack() as s:
        await started(s)
        response, stream = s.handle("m").remote(1), s.handle("m").numbers.options(stream=True).remote(3)
        with pytest.raises(RuntimeError, match="block the event loop"):
            response.result()
        with pytest.raises(RuntimeError, match="async for"):
            next(stream)
        with pytest.raises(TypeError, match="iterate"):
            await stream
        with pytest.raises(TypeError, match="iterate"):
            stream.result()
        assert (await response, [item async for item in stream]) == (1, [0, 1, 2])


# Tables that come late


class Store:
    """Holds a table; ``fails`` is how many times it is out of reach before it is there again."""

    def __init__(self, data: bytes | None = None, fails: int = 0) -> None:
        self.data = data
        self.fails = fails
        self.reads = 0

    async def read(self) -> bytes | None:
        self.reads += 1
        if self.fails:
            self.fails -= 1
            raise ConnectionError("away")
        return self.data


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await asyncio.sleep(0.001)


@in_loop
async def test_a_process_without_handles_reads_nothing_and_holds_nobody_up() -> None:
    async with stack() as s:
        store = Store()
        following = Following(s.pool, store.read, every_s=0.001)
        await following.joined()
        assert (store.reads, following.durations) == (0, {})
        await following.close()


@in_loop
async def test_a_store_that_is_away_for_a_while_is_asked_again_and_each_table_is_taken_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack() as s:
        one = await s.replica("a", Model)
        store, joins = Store(encode(generation(1, {"m": [one]})), fails=2), Store(fails=2)

        async def join() -> None:
            await joins.read()

        following = Following(s.pool, store.read, join=join, every_s=0.001)
        taken = []
        take = following.directory.take

        async def noting(table: Any) -> None:
            taken.append(table.number)
            await take(table)

        monkeypatch.setattr(following.directory, "take", noting)
        caller = following.caller()
        assert following.caller() is caller
        with caplog.at_level(logging.WARNING):
            await following.joined()
            await until(lambda: store.reads > 6)
        assert (joins.reads, taken) == (3, [1])  # it has joined once, and the same table is no news
        assert await s.handle("m", caller).remote("there") == "there"
        store.data = encode(generation(2, {"m": [await s.replica("b", Model)]}))
        await until(lambda: taken == [1, 2])
        assert await s.handle("m", caller).remote("still") == "still"
        assert set(following.durations) == {"s/m"}
        await following.close()


@in_loop
async def test_a_handle_that_a_thread_makes_begins_it_too() -> None:
    async with stack() as s:
        store = Store(encode(generation(1, {"m": [await s.replica("a", Model)]})))
        following = Following(s.pool, store.read, every_s=0.001)

        def in_sync_code() -> Any:
            return s.handle("m", following.caller()).remote("x").result(timeout_s=30)

        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            futures = [threads.submit(in_sync_code) for _ in range(4)]
            assert await asyncio.gather(*map(asyncio.wrap_future, futures)) == ["x"] * 4
        await following.close()
