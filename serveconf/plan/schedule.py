"""Which bounds hold at a moment: those of autoscaling_config, or of the first part of its schedule that holds then. Pure.

Times of the schedule are what a clock on the wall shows in its time zone. Where the clock is put back a part begins with the
first and ends with the second of two equal times; a time that it is put forward over is as long after midnight as it says.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY = datetime.timedelta(days=1)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the week and its bounds; None: as ever. Days count from Monday, 0."""

    days: frozenset[int]
    start: datetime.time
    end: datetime.time | None  # None: midnight at the end of the day
    timezone: str
    min_replicas: int | None = None
    max_replicas: int | None = None


class Bounds(msgspec.Struct, frozen=True):
    """The fewest and the most replicas there may be."""

    least: int
    most: int

    def clamp(self, number: int) -> int:
        """The number, within them."""
        return min(max(number, self.least), self.most)


def parts_of(schedule: Sequence[Mapping[str, Any]]) -> tuple[Part, ...]:
    """The parts of a spec's ``schedule``."""
    return tuple(
        Part(
            days=_days(one["from"]),
            start=datetime.time.fromisoformat(one["from"].split()[-1]),
            end=None if one["until"] == "24:00" else datetime.time.fromisoformat(one["until"]),
            timezone=one.get("timezone", "UTC"),
            min_replicas=one.get("min_replicas"),
            max_replicas=one.get("max_replicas"),
        )
        for one in schedule
    )


def bounds_at(ever: Bounds, parts: Sequence[Part], wall: float) -> Bounds:
    """The bounds at ``wall`` (seconds since the epoch)."""
    for part in parts:
        if _holds(part, wall):
            return _bounds_of(ever, part)
    return ever


def widest(ever: Bounds, parts: Sequence[Part]) -> Bounds:
    """All that the bounds can be at some time."""
    of_parts = [ever, *(_bounds_of(ever, part) for part in parts)]
    return Bounds(min(bounds.least for bounds in of_parts), max(bounds.most for bounds in of_parts))


def _bounds_of(ever: Bounds, part: Part) -> Bounds:
    return Bounds(
        ever.least if part.min_replicas is None else part.min_replicas,
        ever.most if part.max_replicas is None else part.max_replicas,
    )


def _holds(part: Part, wall: float) -> bool:
    return any(begin <= wall < end for begin, end in _spans(part, wall))


def _spans(part: Part, wall: float) -> list[tuple[float, float]]:
    """When it holds around ``wall``: today, and from yesterday on, for that may reach into today."""
    zone = _zone(part.timezone)
    today = datetime.datetime.fromtimestamp(wall, zone).date()
    dates = [today + _DAY * offset for offset in (-1, 0)]
    return [_span(part, date, zone) for date in dates if date.weekday() in part.days]


def _span(part: Part, date: datetime.date, zone: ZoneInfo) -> tuple[float, float]:
    crosses = part.end is None or part.end <= part.start
    begin = datetime.datetime.combine(date, part.start, zone)
    end = datetime.datetime.combine(date + _DAY if crosses else date, part.end or datetime.time(), zone)
    return begin.timestamp(), max(end.timestamp(), end.replace(fold=1).timestamp())


def _days(text: str) -> frozenset[int]:
    days, _, _time = text.rpartition(" ")
    if not days:
        return frozenset(range(7))
    found: set[int] = set()
    for one in days.split(","):
        first, _, last = one.partition("-")
        begin = _DAYS.index(first)
        found.update((begin + offset) % 7 for offset in range((_DAYS.index(last or first) - begin) % 7 + 1))
    return frozenset(found)


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
