"""Tasks that run beside: what fails is seen, what is meant to go on goes on, and the end waits for the end."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from serveconf.background import Tasks, keep

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, object]]:
    return [(record.getMessage(), getattr(record, "task", None)) for record in caplog.records]


async def test_one_that_fails_is_seen_with_its_name_and_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise RuntimeError("why")

    tasks = Tasks()
    await asyncio.wait([tasks.start(fails(), name="counting")])
    await asyncio.sleep(0)
    assert said(caplog) == [("a background task failed", "counting")]
    assert "RuntimeError: why" in caplog.text
    assert caplog.records[0].levelno == logging.ERROR


async def test_one_that_is_cancelled_or_returns_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()
    waiting = tasks.start(asyncio.sleep(60), name="waiting")
    ended = tasks.start(asyncio.sleep(0), name="ended")
    await ended
    tasks.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert said(caplog) == []


async def test_nobody_has_to_hold_one() -> None:
    done = asyncio.Event()

    async def waits() -> None:
        await asyncio.get_running_loop().create_future()

    async def works() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        done.set()

    tasks = Tasks()
    tasks.start(waits(), name="held")
    tasks.start(works(), name="works")
    gc.collect()
    await asyncio.wait_for(done.wait(), 20)
    await tasks.close()


async def test_close_waits_until_what_it_ends_has_cleared_up_and_passes_over_who_asks() -> None:
    tasks, cleared, began = Tasks(), [], asyncio.Event()

    async def clears_up() -> None:
        try:
            began.set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            cleared.append("cleared")

    async def closes() -> str:
        await began.wait()
        await tasks.close()
        return "closed"

    tasks.start(clears_up(), name="clears up")
    assert await tasks.start(closes(), name="closes") == "closed"
    assert cleared == ["cleared"]


async def test_one_that_fails_as_it_is_ended_does_not_keep_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async def fails_at_its_end() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise RuntimeError("at the end")

    tasks = Tasks()
    first = tasks.start(fails_at_its_end(), name="first")
    second = tasks.start(asyncio.sleep(60), name="second")
    await asyncio.sleep(0)
    await tasks.close()
    assert first.done() and second.cancelled()
    assert said(caplog) == [("a background task failed", "first")]
    await tasks.close()


async def test_what_is_to_go_on_begins_anew_after_pauses_that_grow_up_to_a_limit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pauses: list[float] = []
    runs = 0

    async def works() -> None:
        nonlocal runs
        runs += 1
        if runs % 2:
            raise OSError("away")

    async def sleeps(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 9:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await keep("looking", works, sleep=sleeps)
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]
    assert runs == 9
    assert said(caplog)[:2] == [
        ("a background task failed and begins anew", "looking"),
        ("a background task returned and begins anew", "looking"),
    ]


async def test_what_is_to_go_on_ends_when_it_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    task = asyncio.create_task(keep("looking", lambda: asyncio.sleep(60)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert said(caplog) == []
