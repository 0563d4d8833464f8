"""The log of events: folded, bounded, stored, followed."""

from __future__ import annotations

import asyncio

import pytest

from serveconf.reconcile.events import FOLD_S, KEPT, Event, EventLog
from serveconf.testing import ManualClock, MemoryStore

pytestmark = pytest.mark.anyio


def make_log() -> tuple[EventLog, MemoryStore, ManualClock]:
    store, clock = MemoryStore(), ManualClock()
    return EventLog(store, clock), store, clock


def told(events: list[Event]) -> list[tuple[str, int]]:
    return [(event.message, event.count) for event in events]


async def test_an_event_reads_as_the_contract_says() -> None:
    log, _, _ = make_log()
    log.note(kind="scale", stack="shop", deployment="web", message="1 → 3 replicas", data={"from": 1, "to": 3})
    assert [event.as_json() for event in log.recent()] == [
        {
            "time": "2023-11-14T22:13:20.000+00:00",
            "kind": "scale",
            "stack": "shop",
            "deployment": "web",
            "message": "1 → 3 replicas",
            "data": {"from": 1, "to": 3},
            "count": 1,
        }
    ]


async def test_an_unknown_kind_is_refused() -> None:
    log, _, _ = make_log()
    with pytest.raises(ValueError, match="party"):
        log.note(kind="party", message="hooray")


async def test_repeats_are_counted_and_come_last() -> None:
    log, _, clock = make_log()
    log.note(kind="heal", stack="shop", deployment="web", message="replica web-1 died", like="died")
    log.note(kind="apply", stack="shop", message="revision 2 applied")
    clock.advance(61)
    log.note(kind="heal", stack="shop", deployment="web", message="replica web-2 died", like="died")
    assert told(log.recent()) == [("revision 2 applied", 1), ("replica web-2 died", 2)]
    assert log.recent()[-1].as_json()["data"] == {"first": "2023-11-14T22:13:20.000+00:00"}


async def test_what_comes_again_much_later_or_elsewhere_is_an_event_of_its_own() -> None:
    log, _, clock = make_log()
    log.note(kind="heal", stack="shop", deployment="web", message="died")
    log.note(kind="heal", stack="shop", deployment="api", message="died")
    clock.advance(FOLD_S + 1)
    log.note(kind="heal", stack="shop", deployment="web", message="died")
    assert told(log.recent()) == [("died", 1)] * 3


async def test_a_clock_that_is_put_back_folds_nothing_for_an_hour() -> None:
    log, _, clock = make_log()
    log.note(kind="heal", message="again")
    clock.set_wall(-3600)
    clock.advance(FOLD_S * 2)
    log.note(kind="heal", message="again")
    log.note(kind="heal", message="again")
    assert told(log.recent()) == [("again", 1), ("again", 2)]


async def test_an_hour_of_churn_stays_bounded_in_memory_and_in_the_store() -> None:
    log, store, clock = make_log()
    for number in range(20 * KEPT):
        clock.advance(0.1)
        log.note(kind="proxy", message=f"proxy {number} lost")
        log.note(kind="heal", stack="shop", deployment=f"d{number % 7}", message="died")
        if number % 500 == 0:
            await log.flush()
    await log.flush()
    assert len(log.recent()) == KEPT
    assert len(store.values) <= KEPT
    assert sum(map(len, store.values.values())) < 1_000_000
    assert {event.deployment for event in log.recent()[-14:]} >= {f"d{number}" for number in range(7)}


async def test_the_next_controller_finds_everything_again_and_goes_on_counting() -> None:
    log, store, clock = make_log()
    for number in range(300):
        log.note(kind="node", message=f"node {number} came")
        log.note(kind="heal", message="died")
    await log.flush()
    again = EventLog(store, clock)
    await again.load()
    assert again.recent() == log.recent()
    again.note(kind="heal", message="died")
    assert told(again.recent())[-1] == ("died", 301)
    assert again.last == log.last + 1


async def test_a_write_that_was_broken_off_leaves_no_event_twice() -> None:
    log, store, clock = make_log()
    for number in range(100):
        log.note(kind="node", message=f"node {number} came")
    log.note(kind="heal", message="died")
    await log.flush()
    before = dict(store.values)
    for number in range(100):
        log.note(kind="node", message=f"node {number} went")
    log.note(kind="heal", message="died")
    await log.flush()
    store.values |= before  # the last write of the newest segments came through, that of the older ones did not
    again = EventLog(store, clock)
    await again.load()
    assert [event for event in told(again.recent()) if event[0] == "died"] == [("died", 2)]


async def test_a_value_that_cannot_be_read_costs_only_itself() -> None:
    log, store, clock = make_log()
    log.note(kind="controller", message="controller started")
    await log.flush()
    store.values["events/000000000099"] = b"{nonsense"
    again = EventLog(store, clock)
    await again.load()
    assert told(again.recent()) == [("controller started", 1)]


async def test_what_the_store_did_not_take_is_written_with_the_next() -> None:
    class Moody(MemoryStore):
        down = True

        async def put(self, key: str, value: bytes) -> None:
            if self.down:
                raise OSError("no store")
            await super().put(key, value)

    store = Moody()
    log = EventLog(store, ManualClock())
    log.note(kind="apply", stack="shop", message="revision 1 applied")
    await log.flush()
    assert not store.values
    store.down = False
    await log.flush()
    again = EventLog(store, ManualClock())
    await again.load()
    assert told(again.recent()) == [("revision 1 applied", 1)]


async def test_only_what_was_asked_for_is_given() -> None:
    log, _, clock = make_log()
    log.note(kind="apply", stack="shop", message="old")
    clock.advance(100)
    log.note(kind="apply", stack="blog", message="of another stack")
    log.note(kind="apply", stack="shop", message="new")
    assert told(log.recent(stack="shop", since=clock.wall() - 50)) == [("new", 1)]


async def test_a_follower_hears_everything_once_and_each_count() -> None:
    log, _, _ = make_log()
    log.note(kind="apply", stack="shop", message="before")
    heard: list[tuple[str, int]] = []

    async def listen() -> None:
        async for event in log.follow(stack="shop"):
            heard.append((event.message, event.count))

    listener = asyncio.create_task(listen())
    for _ in range(3):
        await asyncio.sleep(0)
        log.note(kind="heal", stack="shop", message="died")
        log.note(kind="heal", stack="blog", message="died")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    listener.cancel()
    assert heard == [("before", 1), ("died", 1), ("died", 2), ("died", 3)]


async def test_data_is_bounded_and_json() -> None:
    log, _, _ = make_log()
    log.note(kind="drift", message="a" * 10_000, data={"diff": "x" * 10_000})
    log.note(kind="drift", message="odd", data={"object": object()})
    first, second = (event.as_json() for event in log.recent())
    assert len(first["message"]) == 2_000
    assert list(first["data"]) == list(second["data"]) == ["left_out"]
