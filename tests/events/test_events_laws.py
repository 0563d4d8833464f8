"""Laws of the log of events, over random histories: nothing that happened is lost or told twice, whoever asks and whenever."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from serveconf.reconcile.events import FOLD_S, KEPT, Event, EventLog
from serveconf.testing import ManualClock, MemoryStore

FEW = settings(max_examples=60)
STACKS = st.sampled_from([None, "shop", "blog"])
MESSAGES = st.sampled_from(["died", "came", "went"])
NOTES = st.lists(
    st.tuples(STACKS, MESSAGES, st.sampled_from([0.0, 1.0, 60.0, FOLD_S, FOLD_S + 1, 90_000.0])), max_size=25
)
History = list[tuple[str | None, str, float]]


def lived(history: History) -> tuple[EventLog, MemoryStore, ManualClock]:
    store, clock = MemoryStore(), ManualClock()
    log = EventLog(store, clock)
    for stack, message, pause in history:
        clock.advance(pause)
        log.note(kind="heal", stack=stack, message=message)
    return log, store, clock


def what(event: Event) -> tuple[str | None, str]:
    return event.stack, event.message


@FEW
@given(NOTES)
def test_each_time_counts_once_and_the_newest_comes_last(history: History) -> None:
    log, _, _ = lived(history)
    told = log.recent()
    counted: Counter[tuple[str | None, str]] = Counter()
    for event in told:
        counted[what(event)] += event.count
    assert counted == Counter((stack, message) for stack, message, _ in history)
    assert [event.time for event in told] == sorted(event.time for event in told)
    assert [event.place for event in told] == sorted({event.place for event in told})
    assert all(event.first <= event.time for event in told)
    assert [what(event) for event in told][-1:] == [(stack, message) for stack, message, _ in history][-1:]


@FEW
@given(NOTES)
def test_two_of_a_kind_stand_apart_only_where_time_has_passed_between_them(history: History) -> None:
    log, _, _ = lived(history)
    last: dict[tuple[str | None, str], Event] = {}
    for event in log.recent():
        before = last.get(what(event))
        assert before is None or event.first - before.time > FOLD_S
        last[what(event)] = event


@FEW
@given(NOTES, STACKS, st.integers(0, 25))
def test_who_asks_by_stack_time_or_place_gets_just_that(history: History, stack: str | None, number: int) -> None:
    log, _, _ = lived(history)
    everything = log.recent()
    since = everything[number].time if number < len(everything) else 0.0
    after = everything[number].place if number < len(everything) else 0
    assert log.recent(stack=stack, since=since) == [
        event for event in everything if stack in (None, event.stack) and event.time >= since
    ]
    assert log.recent(after=after) == [event for event in everything if event.place > after]
    assert log.recent(after=log.last) == []


@FEW
@given(NOTES, NOTES)
def test_the_next_controller_goes_on_as_if_it_were_the_same(first: History, second: History) -> None:
    async def play() -> None:
        log, store, clock = lived(first)
        await log.flush()
        heir = EventLog(store, clock)
        await heir.load()
        assert heir.recent() == log.recent()
        assert heir.last == max((event.place for event in log.recent()), default=0)
        for stack, message, pause in second:
            clock.advance(pause)
            log.note(kind="heal", stack=stack, message=message)
            heir.note(kind="heal", stack=stack, message=message)
        assert [event.as_json() for event in heir.recent()] == [event.as_json() for event in log.recent()]
        await heir.flush()
        third = EventLog(store, clock)
        await third.load()
        assert third.recent() == heir.recent()

    asyncio.run(play())


@FEW
@given(NOTES, st.sets(st.integers(0, 40)))
def test_what_a_store_refuses_is_there_in_the_end(history: History, refusals: set[int]) -> None:
    """Whichever writes fail, and however often, once the store takes them all is there."""

    class Moody(MemoryStore):
        asked = 0

        async def put(self, key: str, value: bytes) -> None:
            self.asked += 1
            if self.asked in refusals:
                raise OSError("no")
            await super().put(key, value)

        async def delete(self, key: str) -> None:
            self.asked += 1
            if self.asked in refusals:
                raise OSError("no")
            await super().delete(key)

    async def play() -> None:
        store, clock = Moody(), ManualClock()
        log = EventLog(store, clock)
        for stack, message, pause in history:
            clock.advance(pause)
            log.note(kind="heal", stack=stack, message=message)
            await log.flush()
        refusals.clear()
        await log.flush()
        heir = EventLog(store, clock)
        await heir.load()
        assert heir.recent() == log.recent()

    asyncio.run(play())


@FEW
@given(NOTES, NOTES)
def test_a_follower_ends_up_with_what_everybody_else_sees(first: History, second: History) -> None:
    async def play() -> None:
        log, _, clock = lived(first)
        heard: list[Event] = []

        async def follow() -> None:
            async for event in log.follow():
                heard.append(event)

        following = asyncio.create_task(follow())
        for number, (stack, message, pause) in enumerate(second):
            clock.advance(pause)
            log.note(kind="heal", stack=stack, message=message)
            if number % 2:
                await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        following.cancel()
        assert [event.place for event in heard] == sorted({event.place for event in heard})
        newest: dict[tuple[Any, ...], Event] = {(*what(event), event.first): event for event in heard}
        assert sorted(newest.values(), key=lambda event: event.place) == log.recent()

    asyncio.run(play())


def test_the_oldest_make_room_and_what_comes_again_counts_from_one() -> None:
    log, _, clock = lived([])
    log.note(kind="heal", message="first")
    for number in range(KEPT):
        log.note(kind="heal", message=f"{number}")
    assert len(log.recent()) == KEPT
    assert log.recent()[0].message == "0"
    clock.advance(1)
    log.note(kind="heal", message="first")
    assert (log.recent()[-1].message, log.recent()[-1].count) == ("first", 1)
