"""A span while its request runs: plain data, cheap to make. What it becomes for OpenTelemetry is ``outlet``'s business."""

from __future__ import annotations

from enum import StrEnum
from random import getrandbits
from time import monotonic_ns, time_ns
from typing import Any, Protocol

import msgspec

CARRIED = "serveconf.tracing"  # in a scope's ``state``, of a request that is sampled: where its spans go


class Kind(StrEnum):
    """Which end of a call a span is."""

    SERVER = "server"
    CLIENT = "client"


class Sink(Protocol):
    """Where spans go that are over."""

    endpoint: str | None

    def give(self, span: Span) -> None:
        """Send it some time; never waits."""


class Span(msgspec.Struct, kw_only=True):
    """``parent_id`` 0: the first of its trace. Times in nanoseconds since the epoch; ``ended_ns`` 0: it goes on."""

    name: str
    kind: Kind
    sink: Sink
    trace_id: int
    span_id: int
    began_ns: int
    clock_ns: int = msgspec.field(default_factory=monotonic_ns)  # its beginning on a clock that nobody sets
    parent_id: int = 0
    parent_is_remote: bool = False
    trace_state: str = ""
    ended_ns: int = 0
    attributes: dict[str, Any] = {}
    events: list[tuple[str, int, dict[str, Any]]] = []
    failed: bool = False

    @property
    def now_ns(self) -> int:
        """This moment, as far from its beginning as it is, whatever the clock on the wall has been set to since."""
        return self.began_ns + monotonic_ns() - self.clock_ns

    @property
    def traceparent(self) -> bytes:
        """What makes a span of another process its child (W3C Trace Context §3.2)."""
        return b"00-%032x-%016x-01" % (self.trace_id, self.span_id)

    def begin_earlier(self, ns: int) -> None:
        """It had begun so much before it was made."""
        self.began_ns -= ns
        self.clock_ns -= ns

    def note(self, event: str, at_ns: int, **attributes: Any) -> None:
        """Something happened within it."""
        self.events.append((event, at_ns, attributes))

    def fail(self, error: str) -> None:
        """It came to nothing; ``error``: a word for it of which there are few."""
        self.failed = True
        self.attributes["error.type"] = error

    def child(self, name: str, kind: Kind, *, parent_id: int | None = None) -> Span:
        """A span within this one, begun now."""
        return Span(
            name=name,
            kind=kind,
            sink=self.sink,
            trace_id=self.trace_id,
            span_id=getrandbits(64) or 1,
            parent_id=self.span_id if parent_id is None else parent_id,
            trace_state=self.trace_state,
            began_ns=time_ns(),
        )

    def stop(self) -> None:
        """The time that it took is known; the first word counts."""
        self.ended_ns = self.ended_ns or self.now_ns

    def end(self) -> None:
        """It is over, and goes out."""
        self.stop()
        self.sink.give(self)


def new_span(name: str, kind: Kind, sink: Sink, parent: tuple[int, int, str] | None) -> Span:
    """A span that begins now. ``parent``: trace, span and trace state of another process's; None: a new trace."""
    trace_id, parent_id, trace_state = parent or (getrandbits(128) or 1, 0, "")
    return Span(
        name=name,
        kind=kind,
        sink=sink,
        trace_id=trace_id,
        span_id=getrandbits(64) or 1,
        parent_id=parent_id,
        parent_is_remote=parent is not None,
        trace_state=trace_state,
        began_ns=time_ns(),
    )
