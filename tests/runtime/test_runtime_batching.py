"""What ``@serve.batch`` promises, on an event loop of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serveconf.runtime import context
from serveconf.runtime.batching import batch


class Doubler:
    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    @batch(max_batch_size=4, batch_wait_timeout_s=0.05)
    async def double(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        await asyncio.sleep(0.01)
        return [2 * number for number in numbers]


def test_calls_of_one_turn_are_one_batch_and_each_gets_its_own_result() -> None:
    async def main() -> None:
        doubler = Doubler()
        assert await asyncio.gather(*(doubler.double(n) for n in (1, 2, 3))) == [2, 4, 6]
        assert doubler.batches == [[1, 2, 3]]

    asyncio.run(main())


def test_a_batch_is_never_larger_than_it_may_be() -> None:
    async def main() -> None:
        doubler = Doubler()
        assert await asyncio.gather(*(doubler.double(n) for n in range(10))) == [2 * n for n in range(10)]
        assert [len(batch) for batch in doubler.batches] == [4, 4, 2]

    asyncio.run(main())


def test_a_caller_that_is_alone_never_waits() -> None:
    class Slow:
        @batch(max_batch_size=100, batch_wait_timeout_s=1000)
        async def echo(self, items: list[int]) -> list[int]:
            return items

    async def main() -> None:
        slow = Slow()
        async with asyncio.timeout(120):
            assert [await slow.echo(n) for n in range(5)] == [0, 1, 2, 3, 4]

    asyncio.run(main())


def test_callers_that_come_back_are_waited_for_and_no_longer_than_until_all_are_there() -> None:
    class Model:
        sizes: list[int] = []  # noqa: RUF012 - the test's own

        @batch(max_batch_size=100, batch_wait_timeout_s=1000)
        async def predict(self, items: list[int]) -> list[int]:
            self.sizes.append(len(items))
            await asyncio.sleep(0.005)
            return items

    async def main() -> None:
        model = Model()

        async def client() -> None:
            for n in range(4):
                assert await model.predict(n) == n
                await asyncio.sleep(0.001)

        async with asyncio.timeout(120):
            first = asyncio.create_task(client())
            await asyncio.sleep(0)  # so that it is alone at first
            await asyncio.sleep(0)
            others = [asyncio.create_task(client()) for _ in range(7)]
            while sum(model.sizes) < 24:
                await asyncio.sleep(0.001)
            for task in (first, *others):
                task.cancel()
        assert model.sizes[0] == 1
        assert 8 in model.sizes

    asyncio.run(main())


def test_what_the_function_raises_goes_to_every_caller_of_the_batch() -> None:
    @batch
    async def fail(items: list[int]) -> list[int]:
        raise KeyError(len(items))

    async def main() -> None:
        results = await asyncio.gather(fail(1), fail(2), return_exceptions=True)
        assert [repr(result) for result in results] == ["KeyError(2)", "KeyError(2)"]

    asyncio.run(main())


def test_an_exception_among_the_results_is_raised_for_its_caller_alone() -> None:
    @batch
    async def halve(items: list[int]) -> list[Any]:
        return [item // 2 if item % 2 == 0 else ValueError(item) for item in items]

    async def main() -> None:
        results = await asyncio.gather(halve(4), halve(5), halve(6), return_exceptions=True)
        assert [repr(result) for result in results] == ["2", "ValueError(5)", "3"]

    asyncio.run(main())


@pytest.mark.parametrize("given", [[1, 2, 3], None, {"a": 1}, "ab"])
def test_results_that_are_no_list_of_the_batch_s_length_are_an_error(given: Any) -> None:
    @batch
    async def wrong(items: list[int]) -> Any:
        return given

    async def main() -> None:
        results = await asyncio.gather(wrong(1), wrong(2), return_exceptions=True)
        assert all(isinstance(result, TypeError | ValueError) for result in results)

    asyncio.run(main())


def test_each_parameter_is_a_list_and_defaults_and_keywords_count() -> None:
    @batch
    async def add(a: list[int], b: list[int], c: list[int] = 100) -> list[int]:  # type: ignore[assignment]
        return [sum(row) for row in zip(a, b, c, strict=True)]

    async def main() -> None:
        assert await asyncio.gather(add(1, 2), add(1, b=3), add(b=1, a=2, c=0)) == [103, 104, 3]

    asyncio.run(main())


def test_sizes_can_be_changed_live_through_the_method() -> None:
    async def main() -> None:
        doubler = Doubler()
        doubler.double.set_max_batch_size(2)  # type: ignore[attr-defined]
        doubler.double.set_batch_wait_timeout_s(0.0)  # type: ignore[attr-defined]
        try:
            await asyncio.gather(*(doubler.double(n) for n in range(4)))
        finally:
            doubler.double.set_max_batch_size(4)  # type: ignore[attr-defined]
            doubler.double.set_batch_wait_timeout_s(0.05)  # type: ignore[attr-defined]
        assert doubler.batches == [[0, 1], [2, 3]]

    asyncio.run(main())


def test_batch_size_fn_measures_what_goes_in() -> None:
    sizes: list[list[str]] = []

    @batch(max_batch_size=5, batch_size_fn=lambda texts: sum(map(len, texts)))
    async def upper(texts: list[str]) -> list[str]:
        sizes.append(texts)
        return [text.upper() for text in texts]

    async def main() -> None:
        assert await asyncio.gather(*map(upper, ("ab", "cd", "ef", "ghijklm", "n"))) == [
            "AB",
            "CD",
            "EF",
            "GHIJKLM",
            "N",
        ]
        assert sizes == [["ab", "cd"], ["ef"], ["ghijklm"], ["n"]]

    asyncio.run(main())


def test_batches_run_at_the_same_time_where_that_is_allowed() -> None:
    running: list[int] = []
    most: list[int] = []

    @batch(max_batch_size=1, max_concurrent_batches=3)
    async def work(items: list[int]) -> list[int]:
        running.extend(items)
        most.append(len(running))
        await asyncio.sleep(0.01)
        running.remove(items[0])
        return items

    async def main() -> None:
        await asyncio.gather(*map(work, range(9)))
        assert max(most) == 3

    asyncio.run(main())


def test_a_call_that_is_cancelled_while_it_waits_is_in_no_batch() -> None:
    async def main() -> None:
        begun, go = asyncio.Event(), asyncio.Event()
        batches: list[list[int]] = []

        @batch(max_batch_size=4, batch_wait_timeout_s=0.05)
        async def double(numbers: list[int]) -> list[int]:
            batches.append(numbers)
            begun.set()
            await go.wait()
            return [2 * number for number in numbers]

        running = asyncio.create_task(double(0))
        await begun.wait()
        waiting = [asyncio.create_task(double(n)) for n in (1, 2)]
        await asyncio.sleep(0.001)
        waiting[0].cancel()
        await asyncio.wait([waiting[0]])
        go.set()
        assert (await running, await waiting[1]) == (0, 4)
        assert batches == [[0], [2]]

    asyncio.run(main())


def test_a_batch_that_nobody_waits_for_is_cancelled() -> None:
    async def main() -> None:
        begun, cancelled = asyncio.Event(), asyncio.Event()

        @batch
        async def work(items: list[int]) -> list[int]:
            assert items == [1, 2]
            begun.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise
            return items

        tasks = [asyncio.create_task(work(n)) for n in (1, 2)]
        await begun.wait()
        tasks[0].cancel()
        await asyncio.wait([tasks[0]])
        await asyncio.sleep(0.005)
        assert not cancelled.is_set()
        tasks[1].cancel()
        await cancelled.wait()

    asyncio.run(main())


def test_a_generator_gives_each_caller_its_own_stream() -> None:
    @batch
    async def count(limits: list[int]) -> AsyncIterator[list[Any]]:
        for n in range(max(limits)):
            yield [n if n < limit else StopIteration for limit in limits]

    async def collect(limit: int) -> list[int]:
        return [n async for n in count(limit)]

    async def main() -> None:
        assert await asyncio.gather(collect(3), collect(1), collect(2)) == [[0, 1, 2], [0], [0, 1]]

    asyncio.run(main())


def test_a_generator_that_raises_ends_every_stream_with_it() -> None:
    @batch
    async def count(limits: list[int]) -> AsyncIterator[list[int]]:
        yield limits
        raise ValueError("over")

    async def main() -> None:
        stream = count(7)
        assert await anext(stream) == 7
        with pytest.raises(ValueError, match="over"):
            await anext(stream)

    asyncio.run(main())


def test_a_batch_holds_the_requests_of_one_model_and_knows_which() -> None:
    seen: list[tuple[str, list[int]]] = []

    @batch
    async def predict(items: list[int]) -> list[int]:
        seen.append((context.get_multiplexed_model_id(), items))
        return items

    async def ask(model: str, item: int) -> None:
        context.request.set(context.Request([(context.MODEL_ID_HEADER, model.encode())]))
        assert await predict(item) == item

    async def main() -> None:
        await asyncio.gather(ask("a", 1), ask("b", 2), ask("a", 3))
        assert seen == [("a", [1, 3]), ("b", [2])]

    asyncio.run(main())


def test_a_replica_that_is_at_other_requests_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    who = context.ReplicaContext(app_name="a", deployment="d", replica_tag="d#1")
    sizes: list[int] = []

    @batch(max_batch_size=8, batch_wait_timeout_s=1000)
    async def predict(items: list[int]) -> list[int]:
        sizes.append(len(items))
        return items

    async def late() -> int:
        await asyncio.sleep(0.01)  # as one that still reads its body
        return await predict(2)

    async def main() -> None:
        context.enter_replica(context.Replica(context=who, max_ongoing=5, ongoing=lambda: 2))
        try:
            async with asyncio.timeout(120):
                assert await asyncio.gather(predict(1), late()) == [1, 2]
        finally:
            context.enter_replica(None)
        assert sizes == [2]

    asyncio.run(main())
    assert "set it to 8 or more" in caplog.text


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_batch_size": 0}, ValueError),
        ({"max_batch_size": 1.5}, TypeError),
        ({"batch_wait_timeout_s": -1}, ValueError),
        ({"batch_wait_timeout_s": "1"}, TypeError),
        ({"max_concurrent_batches": 0}, ValueError),
        ({"batch_size_fn": 3}, TypeError),
    ],
)
def test_wrong_options_are_refused_when_the_module_is_imported(options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        batch(**options)


def test_a_function_that_is_not_async_is_refused() -> None:
    with pytest.raises(TypeError, match="async def"):

        @batch
        def wrong(items: list[int]) -> list[int]:
            return items
