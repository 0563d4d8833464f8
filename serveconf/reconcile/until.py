"""The end of a stretch of time that a record holds, counted on a clock that nobody sets.

The record says seconds since the epoch, for people and for the controller that comes next, perhaps on another machine. That
clock may be set, or differ between machines: so whoever reads the record takes from it once what is left, and from then on counts
for himself. What cannot be (past already while nobody looked, or further away than the whole) is taken for the whole.
"""

from __future__ import annotations

from serveconf.reconcile.ports import Clock


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
