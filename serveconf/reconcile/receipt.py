"""What an apply did to the traffic: counted by the proxies while it ran, added up here."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from serveconf.reconcile.ports import Counters


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The contract's ``receipt``. ``max_gap_ms``: the longest time between two answers while requests were waiting.

    ``uncounted``: so many proxies did not say what they had counted; left out where all did.
    """

    requests: int = 0
    failed: int = 0
    retried: int = 0
    max_gap_ms: float = 0.0
    streams_kept: int = 0
    streams_closed: int = 0
    duration_s: float = 0.0
    uncounted: int | msgspec.UnsetType = msgspec.UNSET


def add_up(counted: Iterable[Counters], *, proxies: int, duration_s: float) -> Receipt:
    """One receipt from what every proxy counted that answered, of so many."""
    counted = list(counted)
    return Receipt(
        requests=sum(c.requests for c in counted),
        failed=sum(c.failed for c in counted),
        retried=sum(c.retried for c in counted),
        max_gap_ms=round(max((c.max_gap_ms for c in counted), default=0.0), 1),
        streams_kept=sum(c.streams_kept for c in counted),
        streams_closed=sum(c.streams_closed for c in counted),
        duration_s=round(duration_s, 3),
        uncounted=proxies - len(counted) or msgspec.UNSET,
    )
