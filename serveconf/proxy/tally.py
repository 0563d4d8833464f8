"""What one proxy process counts: answers, failures, retries, streams, and the longest wait between two answers.

The protocols report to one ``Tally``; an apply opens a window on it (``start_receipt``) and reads it (``receipt``).
"""

from __future__ import annotations

from time import monotonic

import msgspec


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted since ``start_receipt``. ``max_gap_ms``: the longest time without an answer while requests waited."""

    requests: int = 0
    failed: int = 0
    retried: int = 0
    max_gap_ms: float = 0.0
    streams_kept: int = 0
    streams_closed: int = 0


class Answers:
    """The answers of one deployment since the process began; ``failed``: those of 500 and above, and those that were cut."""

    __slots__ = ("failed", "given")

    def __init__(self) -> None:
        self.given = 0
        self.failed = 0


class _Window:
    """The totals when a receipt began, and the longest gap since."""

    __slots__ = ("failed", "max_gap_s", "open_streams", "requests", "retried", "streams_closed")

    def __init__(self, tally: Tally) -> None:
        self.requests = tally.requests
        self.failed = tally.failed
        self.retried = tally.retried
        self.open_streams = tally.open_streams
        self.streams_closed = tally.streams_closed
        self.max_gap_s = 0.0


class Tally:
    """Totals since the process began. ``failed``: answers of 500 and above, and answers that were cut."""

    def __init__(self) -> None:
        self.requests = 0
        self.failed = 0
        self.retried = 0
        self.open_streams = 0  # WebSockets and unfinished streamed answers
        self.streams_closed = 0  # streams that serveconf, not the app or the client, ended
        self._waiting = 0
        self._quiet_since = 0.0
        self._windows: dict[str, _Window] = {}

    def begin(self) -> None:
        """A request came in and waits for its answer."""
        if not self._waiting:
            self._quiet_since = monotonic()
        self._waiting += 1

    def answer(self, status: int) -> None:
        """A request that waited got the head of its answer."""
        self.requests += 1
        if status >= 500:
            self.failed += 1
        self._waiting -= 1
        now = monotonic()
        if self._windows:
            gap_s = now - self._quiet_since
            for window in self._windows.values():
                if gap_s > window.max_gap_s:
                    window.max_gap_s = gap_s
        self._quiet_since = now

    def leave(self) -> None:
        """A client that waited went away before it got an answer."""
        self._waiting -= 1

    def cut(self) -> None:
        """An answer that had begun could not be finished."""
        self.failed += 1

    def start_receipt(self, operation: str) -> None:
        """Begin to count for an operation; a second call begins anew."""
        self._windows[operation] = _Window(self)

    def receipt(self, operation: str, *, close: bool = True) -> Receipt:
        """What was counted since ``start_receipt``; zeros for an operation that this process never heard of."""
        window = self._windows.pop(operation, None) if close else self._windows.get(operation)
        if window is None:
            return Receipt()
        closed = self.streams_closed - window.streams_closed
        return Receipt(
            requests=self.requests - window.requests,
            failed=self.failed - window.failed,
            retried=self.retried - window.retried,
            max_gap_ms=round(window.max_gap_s * 1000, 3),
            streams_kept=max(0, window.open_streams - closed),
            streams_closed=closed,
        )
