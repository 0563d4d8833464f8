"""Strands: coroutines that run in place, and become tasks when they must."""

from __future__ import annotations

import asyncio

import pytest
from wire_harness import in_loop

from serveconf.wire.strand import Strand, need_task, park, running


def strand(coroutine, tasks=None):
    return Strand(asyncio.get_running_loop(), coroutine, set() if tasks is None else tasks)


@in_loop
async def test_it_begins_at_once_and_goes_on_in_the_call_that_wakes_it():
    seen = []

    async def work():
        seen.append("begun")
        await park()
        seen.append("ended")

    one = strand(work())
    one.start()
    assert seen == ["begun"]
    one.resume()
    assert seen == ["begun", "ended"]
    one.resume()
    one.cancel()


@in_loop
async def test_it_waits_for_futures_and_events_as_a_task_does():
    event, seen = asyncio.Event(), []

    async def work():
        await asyncio.sleep(0)
        await event.wait()
        with pytest.raises(ValueError, match="x"):
            await future
        seen.append("ended")

    future = asyncio.get_running_loop().create_future()
    strand(work()).start()
    await asyncio.sleep(0)
    event.set()
    future.set_exception(ValueError("x"))
    for _ in range(4):
        await asyncio.sleep(0)
    assert seen == ["ended"]


@pytest.mark.parametrize("wait", [park, lambda: asyncio.Event().wait(), lambda: asyncio.sleep(0)])
def test_cancelling_is_heard_before_it_returns(wait):
    @in_loop
    async def run():
        seen = []

        async def work():
            try:
                await wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        one = strand(work())
        one.start()
        one.cancel()
        assert seen == ["cancelled"]
        one.cancel()
        await asyncio.sleep(0)

    run()


@in_loop
async def test_what_cancels_itself_ends_where_it_waits_next():
    seen = []

    async def work():
        one.cancel()
        seen.append("goes on")
        try:
            await park()
        finally:
            seen.append("ended")

    one = strand(work())
    one.start()
    assert seen == ["goes on"]
    await asyncio.sleep(0)
    assert seen == ["goes on", "ended"]


@in_loop
async def test_it_becomes_a_task_for_those_who_need_one():
    tasks, seen = set(), []

    async def work():
        assert running() is not None
        await need_task()
        assert running() is None
        async with asyncio.timeout(120):
            await asyncio.sleep(0)
        await need_task()
        seen.append(asyncio.current_task())

    strand(work(), tasks).start()
    (task,) = tasks
    await task
    assert seen == [task]
    assert tasks == set()


@in_loop
async def test_task_that_is_cancelled_before_it_begins_ends_what_it_was_made_for():
    tasks, seen = set(), []

    async def work():
        try:
            await need_task()
        finally:
            seen.append("ended")

    one = strand(work(), tasks)
    one.start()
    (task,) = tasks
    one.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert seen == ["ended"]


@in_loop
async def test_one_may_wake_another_from_within():
    seen = []

    async def first():
        await park()
        seen.append("first")
        assert running() is one

    async def second():
        one.resume()
        assert running() is two
        seen.append("second")

    one, two = strand(first()), strand(second())
    one.start()
    two.start()
    assert seen == ["first", "second"]


@in_loop
async def test_two_that_end_each_other_both_end():
    seen = []

    async def first():
        try:
            await park()
        finally:
            two.cancel()
            seen.append("first")

    async def second():
        one.resume()
        seen.append("second goes on")
        await park()

    one, two = strand(first()), strand(second())
    one.start()
    two.start()
    await asyncio.sleep(0)
    assert seen == ["first", "second goes on"]
    two.resume()
