"""How long to wait before trying again what has failed: not at all the first time, then longer and longer."""

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
