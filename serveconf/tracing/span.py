"""A span while its request runs, and the W3C headers that chain it to others, in another process too."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from random import getrandbits
from time import monotonic_ns, time_ns
from typing import Any, NamedTuple, Protocol

import msgspec

CARRIED = "serveconf.tracing"  # in a scope's ``state``, of a request that is sampled: where its spans go


Headers = list[tuple[bytes, bytes]]
# Later versions may add to what version 00 has, and are read as that one (§4.3).
_TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


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


class Parent(NamedTuple):
    """What a request says of where it comes from."""

    trace_id: int
    span_id: int
    trace_state: str
    is_sampled: bool


def parent_of(headers: Iterable[tuple[bytes, bytes]]) -> Parent | None:
    """None where it says nothing, or nothing that can be read."""
    said = b""
    states: list[bytes] = []
    for name, value in headers:
        if name == b"traceparent":
            if said:
                return None  # two of them: nobody knows which one holds
            said = value
        elif name == b"tracestate":
            states.append(value)
    found = _TRACEPARENT.fullmatch(said) if said else None
    if found is None or (found[1] == b"00" and found[5]):
        return None
    state = b",".join(states).decode("ascii", "replace")
    return Parent(int(found[2], 16), int(found[3], 16), state, bool(int(found[4], 16) & 1))


def chained(headers: Headers, span: Span) -> Headers:
    """The headers with which ``span`` is the parent of whoever gets them. The state of a trace that is left behind goes too."""
    dropped = (b"traceparent",) if span.parent_id else (b"traceparent", b"tracestate")
    return [field for field in headers if field[0] not in dropped] + [(b"traceparent", span.traceparent)]
