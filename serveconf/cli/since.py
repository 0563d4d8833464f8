"""A moment in the past as people write it: ``10m``, ``1h30m``, ``2d``, or a time by ISO 8601."""

from __future__ import annotations

import datetime
import re

from serveconf.errors import AuthorError

_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_SPAN = re.compile(r"(?:\d+(?:\.\d+)?[dhms])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([dhms])")


def read_since(text: str, now: datetime.datetime) -> datetime.datetime:
    """The moment that is meant. A time without a zone is one of this machine's. Raises AuthorError."""
    if _SPAN.fullmatch(text):
        spans = (datetime.timedelta(**{_UNITS[unit]: float(number)}) for number, unit in _PART.findall(text))
        return now - sum(spans, datetime.timedelta())
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise AuthorError(
            f"'{text}' is no time",
            hint="write how long ago, as 10m or 1h30m, or when, as 2026-01-31T08:00",
            code="since",
        ) from None
    return moment.astimezone()
