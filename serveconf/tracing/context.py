"""``traceparent`` and ``tracestate``: how a request says which span it comes from (W3C Trace Context, level 1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from serveconf.tracing.span import Span

Headers = list[tuple[bytes, bytes]]

# Later versions may add to what version 00 has, and are read as that one (§4.3).
_TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


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
