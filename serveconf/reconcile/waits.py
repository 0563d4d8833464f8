"""How long to wait: before trying again what has failed, and until a stretch of time that a record holds has ended.

``Backoff``: not at all the first time, then longer and longer.

``Until`` counts on a clock that nobody sets. A record says seconds since the epoch, for people and for the controller that comes
next, perhaps on another machine. That clock may be set, or differ between machines: so whoever reads the record takes from it once
what is left, and from then on counts for himself. What cannot be (past already while nobody looked, or further away than the
whole) is taken for the whole.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from serveconf.reconcile.ports import Clock

WINDOW_S = 300.0  # failures older than this are forgotten
LONGEST_S = 30.0

K = TypeVar("K", bound=Hashable)


class Backoff(Generic[K]):
    """Failures by key, and the wait that they come to."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[K, list[float]] = {}

    def failed(self, key: K) -> None:
        """It has failed once more."""
        now = self._clock.now()
        recent = [t for t in self._failures.get(key, ()) if now - t < WINDOW_S]
        self._failures[key] = [*recent, now]

    def wait_s(self, key: K) -> float:
        """Seconds to wait yet; 0 or less: try now."""
        failures = self._failures.get(key)
        if not failures:
            return 0.0
        now = self._clock.now()
        if now - failures[-1] >= WINDOW_S:
            del self._failures[key]
            return 0.0
        pause = 0.0 if len(failures) == 1 else min(2.0 ** (len(failures) - 2), LONGEST_S)
        return failures[-1] + pause - now


class Until:
    """One stretch at a time: an instant that differs from the last one begins another."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._instant: float | None = None
        self._ends = 0.0

    def is_over(self, instant: float, whole_s: float) -> bool:
        """Whether the stretch that lasts ``whole_s`` and ends at ``instant`` has ended."""
        if instant != self._instant:
            left = instant - self._clock.wall()
            self._instant, self._ends = instant, self._clock.now() + (left if 0 < left <= whole_s else whole_s)
        return self._clock.now() >= self._ends
