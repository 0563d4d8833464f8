"""What one proxy process counts: every request where it ends, by deployment; and what an apply's receipt needs.

A request carries a ``Trail`` in its scope, on which whoever takes part writes what the count and the access log need. The
protocols report to one ``Tally``; an apply opens a window on it (``start_receipt``) and reads it (``receipt``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, Protocol

import msgspec

from serveconf.figures import BOUNDS, DeploymentFigures
from serveconf.plan.canary import BOUNDS as SIDE_BOUNDS
from serveconf.routing import Route
from serveconf.tracing import Span

TRAIL = "serveconf.trail"  # the scope key of a request's Trail
CLIENT_LEFT = 499  # what is counted for a client that did not wait for the head of its answer


class Reason:
    """Why the proxy answered by itself, or did not finish an answer."""

    NO_ROUTE = "no_route"
    NOT_READY = "not_ready"
    QUEUE_FULL = "queue_full"
    NO_REPLICA = "no_replica"
    REPLICA_FULL = "replica_full"
    REPLICA_LOST = "replica_lost"
    TIMEOUT = "timeout"
    CLIENT_LEFT = "client_left"
    CUT = "cut"
    FAILED = "failed"  # a middleware, or an app that left its answer unfinished
    DRAINED = "drained"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    TOO_MANY = "too_many_connections"
    COPY_DROPPED = (
        "copy_dropped"  # for a mirror that has too many of them, or no replica: the request itself is none the worse
    )


_REFUSALS = {
    408: Reason.TOO_SLOW,
    413: Reason.TOO_LARGE,
    414: Reason.TOO_LARGE,
    431: Reason.TOO_LARGE,
    503: Reason.TOO_MANY,
}


class Trail(msgspec.Struct, gc=False):
    """What is found out about one request on its way; a struct, for making one costs a tenth of a microsecond."""

    began: float
    request_id: bytes = b""
    figures: DeploymentFigures | None = None  # of the deployment that takes it
    route: Route | None = None
    reason: str = ""
    queue_s: float = 0.0
    replica: str = ""  # that had it last
    span: Span | None = None  # where it is traced


NO_TRAIL = Trail(0.0)  # of a request that came by no protocol of ours, as in tests


def trail_of(scope: Mapping[str, Any]) -> Trail:
    """The trail of a request."""
    found: Trail = scope.get(TRAIL, NO_TRAIL)
    return found


class RequestLog(Protocol):
    """Whoever writes a line for each request."""

    def write(
        self, scope: Mapping[str, Any], trail: Trail, status: int, bytes_in: int, bytes_out: int, seconds: float
    ) -> None:
        """The request is over."""


EndSpan = Callable[[Span, Mapping[str, Any], Trail, int, float], None]


def _keep_open(span: Span, scope: Mapping[str, Any], trail: Trail, status: int, seconds: float) -> None:
    """Where nobody traces there are no spans."""


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


class SideAnswers:
    """The answers of one version of a deployment while a canary runs, and how soon they began (``plan.canary.BOUNDS``)."""

    __slots__ = ("failed", "given", "slowness")

    def __init__(self) -> None:
        self.given = 0
        self.failed = 0
        self.slowness = [0] * (len(SIDE_BOUNDS) + 1)

    def note(self, seconds: float, *, failed: bool) -> None:
        """One answer."""
        self.given += 1
        self.failed += failed
        self.slowness[bisect_left(SIDE_BOUNDS, seconds)] += 1


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
        self.unrouted = DeploymentFigures()
        self.refused: dict[str, int] = {}
        self.log: RequestLog | None = None
        self.end_span: EndSpan = _keep_open

    def ended(self, scope: Mapping[str, Any], trail: Trail, status: int, bytes_in: int, bytes_out: int) -> None:
        """A request is over: answered, cut, or left by its client. What it costs: ``benchmarks/counting.py``."""
        seconds = monotonic() - trail.began
        figures = trail.figures or self.unrouted
        try:  # as in ``_observe``: a call of it would be a fifth of all this
            histogram = figures.durations[scope["method"]][status]
        except KeyError:
            histogram = figures.duration(scope.get("method", "GET"), status)
        histogram.buckets[bisect_left(BOUNDS, seconds)] += 1
        histogram.sum += seconds
        if trail.queue_s or trail.reason:
            self._note_trouble(figures, trail)
        if bytes_in:
            figures.bytes_in += bytes_in
        figures.bytes_out += bytes_out
        if self.log is not None:
            self.log.write(scope, trail, status, bytes_in, bytes_out, seconds)
        if trail.span is not None:
            self.end_span(trail.span, scope, trail, status, seconds)

    def shook_hands(self, scope: Mapping[str, Any], trail: Trail, status: int) -> None:
        """A WebSocket was accepted, denied or left: that took as long as a request takes, whatever comes after."""
        self._observe(scope, trail, status, monotonic() - trail.began)

    def hung_up(self, scope: Mapping[str, Any], trail: Trail, status: int) -> None:
        """A WebSocket is over."""
        seconds = monotonic() - trail.began
        if self.log is not None:
            self.log.write(scope, trail, status, 0, 0, seconds)
        if trail.span is not None:
            self.end_span(trail.span, scope, trail, status, seconds)

    def _observe(self, scope: Mapping[str, Any], trail: Trail, status: int, seconds: float) -> None:
        figures = trail.figures or self.unrouted
        figures.duration(scope.get("method", "GET"), status).observe(seconds)
        self._note_trouble(figures, trail)

    def _note_trouble(self, figures: DeploymentFigures, trail: Trail) -> None:
        """What most requests do not have: a wait in line, a reason."""
        if trail.queue_s:
            figures.waits.observe(trail.queue_s)
        if trail.reason:
            self.refused[trail.reason] = self.refused.get(trail.reason, 0) + 1

    def note(self, reason: str) -> None:
        """Count what came of something that is no request's answer."""
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def refuse(self, client: Any, status: int, bytes_out: int) -> None:
        """What a client sent was no request that could be taken. Of its method nothing is believed."""
        trail = Trail(monotonic(), reason=_REFUSALS.get(status, Reason.MALFORMED))
        scope = {"type": "http", "method": "-", "path": "-", "client": client, "http_version": "1.1", "headers": []}
        self.ended(scope, trail, status, 0, bytes_out)

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
