"""Schedules beside the clock on the wall, minute by minute, in zones that put it forward and back."""

from __future__ import annotations

import datetime
import itertools
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from serveconf.plan.schedule import Bounds, bounds_at, parts_of, widest
from serveconf.reconcile.curves import NOTHING, quantile_ms
from serveconf.spec.load import load_mapping

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"]
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
TIMES = st.integers(0, 24 * 60 - 1).map(lambda minutes: f"{minutes // 60:02}:{minutes % 60:02}")
YEAR_2026 = 1_767_225_600
WALL = st.integers(YEAR_2026, YEAR_2026 + 366 * 86_400)
PARTS = st.fixed_dictionaries(
    {
        "days": st.sets(st.sampled_from(DAYS)),
        "from": TIMES,
        "until": TIMES | st.just("24:00"),
        "min_replicas": st.integers(2, 5),
    },
    optional={"max_replicas": st.integers(6, 9), "timezone": st.sampled_from(ZONES)},
)
EVER = Bounds(1, 10)
DAY = datetime.timedelta(days=1)


def said(part: dict[str, Any]) -> dict[str, Any]:
    """As a file says it."""
    days = ",".join(day for day in DAYS if day in part["days"])
    rest = {key: value for key, value in part.items() if key != "days"}
    return {**rest, "from": f"{days} {part['from']}".strip()}


def shows(part: dict[str, Any], wall: float) -> bool:
    """Whether the clock on the wall shows a time of the part, as a person reads it."""
    now = datetime.datetime.fromtimestamp(wall, ZoneInfo(part.get("timezone", "UTC")))
    time, days = now.strftime("%H:%M"), part["days"] or set(DAYS)
    today, yesterday = now.strftime("%a") in days, (now - DAY).strftime("%a") in days
    begin, end = part["from"], part["until"]
    if end == "24:00":
        return today and time >= begin
    if begin < end:
        return today and begin <= time < end
    return (today and time >= begin) or (yesterday and time < end)


def is_quiet(part: dict[str, Any], wall: float) -> bool:
    """Whether the clock is neither put forward nor back within two days."""
    zone = ZoneInfo(part.get("timezone", "UTC"))
    around = range(-2 * 24, 2 * 24 + 1)
    return len({datetime.datetime.fromtimestamp(wall + hour * 3600, zone).utcoffset() for hour in around}) == 1


@settings(max_examples=300)
@given(PARTS, WALL)
def test_a_part_holds_when_the_clock_on_the_wall_says_so(part: dict[str, Any], wall: int) -> None:
    assume(is_quiet(part, wall))
    holds = bounds_at(EVER, parts_of([said(part)]), wall) != EVER
    assert holds == shows(part, wall)


CHANGES = [
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-10-04"),  # by half an hour
    ("Australia/Lord_Howe", "2026-04-05"),
]


@settings(max_examples=40)
@given(PARTS, st.sampled_from(CHANGES))
def test_where_the_clock_is_changed_a_part_begins_once_and_ends_once_that_day(
    part: dict[str, Any], change: tuple[str, str]
) -> None:
    zone, day = change
    part = {**part, "timezone": zone, "days": set()}
    noon = datetime.datetime.fromisoformat(day).replace(hour=12, tzinfo=ZoneInfo(zone)).timestamp()
    parts = parts_of([said(part)])
    states = [bounds_at(EVER, parts, noon + minute * 60) != EVER for minute in range(-24 * 60, 24 * 60, 5)]
    assert sum(one != two for one, two in itertools.pairwise(states)) <= 4  # two days


@settings(max_examples=100)
@given(st.lists(PARTS, max_size=4), WALL)
def test_bounds_are_the_first_part_s_that_holds_and_never_outside_of_the_widest(
    parts: list[dict[str, Any]], wall: int
) -> None:
    made = parts_of([said(part) for part in parts])
    found, most = bounds_at(EVER, made, wall), widest(EVER, made)
    assert most.least <= found.least <= found.most <= most.most
    for number, part in enumerate(made):
        alone = bounds_at(EVER, [part], wall)
        if alone != EVER:
            assert found == bounds_at(EVER, made[: number + 1], wall) == alone
            break
    else:
        assert found == EVER


@settings(max_examples=60)
@given(st.lists(PARTS, min_size=1, max_size=3))
def test_every_schedule_of_that_form_is_one_that_a_file_may_have(parts: list[dict[str, Any]]) -> None:
    config = {"min_replicas": 1, "max_replicas": 10, "schedule": [said(part) for part in parts]}
    spec = {"deployments": [{"name": "web", "import_path": "m:app", "autoscaling_config": config}]}
    loaded = load_mapping(spec, base_dir=Path("/tmp"), unsupported=frozenset())
    assert len(loaded.as_said()["deployments"][0]["autoscaling_config"]["schedule"]) == len(parts)


BUCKETS = st.lists(st.integers(0, 50), min_size=len(NOTHING), max_size=len(NOTHING)).map(tuple)


@given(BUCKETS, st.floats(0, 1, exclude_min=True), st.floats(0, 1, exclude_min=True))
def test_of_how_long_requests_took_a_larger_share_is_never_sooner(
    buckets: tuple[int, ...], one: float, other: float
) -> None:
    low, high = quantile_ms(buckets, min(one, other)), quantile_ms(buckets, max(one, other))
    if not sum(buckets):
        assert low is None and high is None
        return
    assert low is not None and high is not None
    assert 0 <= low <= high
    assert quantile_ms(tuple(2 * count for count in buckets), one) == quantile_ms(buckets, one)
