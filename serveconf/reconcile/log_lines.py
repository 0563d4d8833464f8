"""When a line of a log was written, as far as it says so itself, and several logs as one, in that order. Pure.

What processes write reaches files without a time of ours. A line that begins with one (logging's and ISO 8601's), or is
JSON with one, is taken at its word; a line without, as those of a traceback, belongs to the one before it.
"""

from __future__ import annotations

import datetime
import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

_WHEN = r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?\s?(Z|[+-]\d\d:?\d\d)?"
_AT_ITS_BEGIN = re.compile(r"\[?" + _WHEN)
_IN_JSON = re.compile(r'"(?:time|timestamp|ts|asctime)"\s*:\s*"' + _WHEN)
_BEFORE_ALL = float("-inf")


@dataclass(frozen=True)
class Line:
    """One line. ``time`` in seconds since the epoch; None where neither it nor one before it says any."""

    source: str
    text: str
    time: float | None


def time_of(text: str) -> float | None:
    """When the line says that it was written. A time without a zone is one of this machine's."""
    found = _IN_JSON.search(text[:2000]) if text.startswith("{") else _AT_ITS_BEGIN.match(text)
    if found is None:
        return None
    day, clock, part, zone = found.groups()
    try:
        moment = datetime.datetime.fromisoformat(f"{day}T{clock}.{(part or '0')[:6]:0<6}{zone or ''}")
    except ValueError:
        return None
    return moment.timestamp()


def timed(source: str, texts: Iterable[str], before: float | None = None) -> Iterator[Line]:
    """The lines of one log; ``before``: the time of the line before the first."""
    for text in texts:
        before = time_of(text) or before
        yield Line(source, text, before)


def merged(logs: Sequence[Iterable[Line]]) -> list[Line]:
    """All of them in the order of their times; what has none comes first. The order in each log stays."""
    return list(heapq.merge(*(_rising(log) for log in logs), key=lambda line: line.time or _BEFORE_ALL))


def _rising(log: Iterable[Line]) -> Iterator[Line]:
    """No line is earlier than the one before it: threads write a moment later than they say."""
    latest: float | None = None
    for line in log:
        latest = max(line.time, latest) if line.time and latest else line.time or latest
        yield Line(line.source, line.text, latest)
