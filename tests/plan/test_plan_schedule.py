"""Which bounds hold when, also where the clock is put forward or back."""

from __future__ import annotations

import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from serveconf.plan.schedule import Bounds, bounds_at, parts_of, widest

EVER = Bounds(1, 10)
BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: datetime.tzinfo = BERLIN, *, fold: int = 0) -> float:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def part(begin: str, until: str, **bounds: Any) -> dict[str, Any]:
    return {"from": begin, "until": until, "timezone": "Europe/Berlin", **(bounds or {"min_replicas": 4})}


@pytest.mark.parametrize(
    ("begin", "until", "when", "holds"),
    [
        ("08:00", "18:00", "2026-11-30 07:59:59", False),
        ("08:00", "18:00", "2026-11-30 08:00", True),
        ("08:00", "18:00", "2026-11-30 17:59:59", True),
        ("08:00", "18:00", "2026-11-30 18:00", False),
        ("Mon-Fri 08:00", "18:00", "2026-11-28 12:00", False),  # a Saturday
        ("Sat,Sun 08:00", "18:00", "2026-11-28 12:00", True),
        ("Fri-Mon 08:00", "18:00", "2026-11-29 12:00", True),
        ("Fri-Mon 08:00", "18:00", "2026-12-01 12:00", False),
        ("Mon,Wed-Thu 08:00", "18:00", "2026-12-03 12:00", True),
        ("Mon 20:00", "24:00", "2026-11-30 23:59", True),
        ("Mon 20:00", "24:00", "2026-12-01 00:00", False),
        ("Mon 22:00", "06:00", "2026-12-01 05:59", True),  # of the Monday before
        ("Mon 22:00", "06:00", "2026-11-30 05:59", False),
        ("Mon 08:00", "08:00", "2026-12-01 07:59", True),
    ],
)
def test_a_part_holds_on_its_days_from_its_begin_until_its_end(begin: str, until: str, when: str, holds: bool) -> None:
    bounds = bounds_at(EVER, parts_of([part(begin, until)]), at(when))
    assert bounds == (Bounds(4, 10) if holds else EVER)


def test_the_first_part_that_holds_counts() -> None:
    parts = parts_of([part("08:00", "12:00", max_replicas=20), part("08:00", "18:00", min_replicas=2, max_replicas=3)])
    assert bounds_at(EVER, parts, at("2026-11-30 09:00")) == Bounds(1, 20)
    assert bounds_at(EVER, parts, at("2026-11-30 13:00")) == Bounds(2, 3)
    assert widest(EVER, parts) == Bounds(1, 20)


def test_a_part_means_the_clock_on_the_wall_in_summer_and_winter() -> None:
    parts = parts_of([part("08:00", "18:00")])
    for day, utc in (("2026-10-24", "06:00"), ("2026-10-25", "07:00")):
        begin = at(f"{day} {utc}", datetime.UTC)
        assert (bounds_at(EVER, parts, begin - 1), bounds_at(EVER, parts, begin)) == (EVER, Bounds(4, 10))


def test_where_the_clock_is_put_back_a_part_has_both_of_the_hours() -> None:
    """On 2026-10-25 there is an hour from 02:00 to 03:00 in summer time, and then another one."""
    late, early = parts_of([part("22:00", "02:30")]), parts_of([part("02:30", "06:00")])
    assert bounds_at(EVER, late, at("2026-10-25 02:29", fold=1)).least == 4
    assert bounds_at(EVER, late, at("2026-10-25 02:30", fold=1)).least == 1
    assert bounds_at(EVER, early, at("2026-10-25 02:29", fold=0)).least == 1
    assert bounds_at(EVER, early, at("2026-10-25 02:30", fold=0)).least == 4
    assert bounds_at(EVER, early, at("2026-10-25 02:00", fold=1)).least == 4


def test_a_time_that_the_clock_is_put_forward_over_still_begins_and_ends_a_part() -> None:
    """On 2026-03-29 03:00 follows 01:59."""
    begins, ends = parts_of([part("02:30", "06:00")]), parts_of([part("01:00", "02:30")])
    assert bounds_at(EVER, begins, at("2026-03-29 01:59")).least == 1
    assert bounds_at(EVER, begins, at("2026-03-29 03:30")).least == 4
    assert bounds_at(EVER, ends, at("2026-03-29 01:59")).least == 4
    assert bounds_at(EVER, ends, at("2026-03-29 03:30")).least == 1
