"""The way out of a process for its spans: OTLP over HTTP, in batches, from a thread.

Whoever ends a span gives it and goes on; the thread imports OpenTelemetry, makes its spans of ours and sends them. Spans that
end before it can are kept. What a collector that is away, or too slow, does not take in time is dropped.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from serveconf.tracing.span import Kind, Span

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

log = logging.getLogger("serveconf.tracing")

MISSING = "tracing needs an extra that is not installed in the cluster's environment"
MISSING_HINT = "pip install 'serveconf[otel]'"

MOST_WAITING = 20_000  # spans; the newest are kept
SEND_EVERY_S = 0.25
SPANS_A_BATCH = 512
SEND_TIMEOUT_S = 5.0  # for one batch, with its repetitions
COMPLAIN_EVERY_S = 300.0  # that the collector is away
TRACES_PATH = "/v1/traces"


def is_installed() -> bool:
    """Whether the extra ``serveconf[otel]`` is there. Imports none of it."""
    try:
        return all(
            importlib.util.find_spec(name) is not None
            for name in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
        )
    except ModuleNotFoundError:
        return False


class Outlet:
    """One process's. ``resource``: who it is, by OpenTelemetry's names."""

    def __init__(self, resource: Mapping[str, str] | None = None) -> None:
        self.endpoint: str | None = None
        self._resource = {"service.name": "serveconf", **(resource or {})}
        self._line: _Line | None = None

    def point(self, endpoint: str | None) -> None:
        """Spans that end from now on go there; None: nowhere. What was given before still goes where it should."""
        if endpoint == self.endpoint:
            return
        self.endpoint = endpoint
        line, self._line = self._line, None
        if line is not None:
            line.close()
        if endpoint is not None:
            self._line = _Line(endpoint, self._resource)

    def give(self, span: Span) -> None:
        """Send it some time; never waits."""
        if self._line is not None:
            self._line.give(span)

    def close(self, timeout_s: float) -> None:
        """Send what is there and nothing more. Returns after so many seconds whatever becomes of it."""
        self.endpoint = None
        line, self._line = self._line, None
        if line is not None:
            line.close().join(timeout_s)


class _Line:
    """To one endpoint."""

    def __init__(self, endpoint: str, resource: Mapping[str, str]) -> None:
        self._waiting: deque[Span] = deque(maxlen=MOST_WAITING)
        self.give = self._waiting.append  # for each span that ends: nothing more is done for it here
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(endpoint, resource), name="spans", daemon=True)
        self._thread.start()

    def close(self) -> threading.Thread:
        """What is there is sent once more, by a thread that holds up the end of no process."""
        self._closing.set()
        return self._thread

    def _run(self, endpoint: str, resource: Mapping[str, str]) -> None:
        try:
            send, stop = _exporting(endpoint, resource)
        except Exception as error:  # noqa: BLE001 - a tool that is missing or broken here must not end what it watches
            log.warning("no spans leave this process: %r; %s", error, MISSING_HINT)
            return
        while not self._closing.wait(SEND_EVERY_S):
            self._send_waiting(send)
        self._send_waiting(send)
        stop()

    def _send_waiting(self, send: Callable[[list[Span]], None]) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(SPANS_A_BATCH, len(self._waiting)))]
            try:
                send(batch)
            except Exception:  # what one batch holds must not be the end of all that come after it
                log.exception("spans were lost", extra={"spans": len(batch)})


def _exporting(endpoint: str, resource: Mapping[str, str]) -> tuple[Callable[[list[Span]], None], Callable[[], None]]:
    """What sends spans, and what ends it; for the thread that asks. Takes its time: much is imported here."""
    from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, set_value
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource

    path = "" if endpoint.endswith(TRACES_PATH) else TRACES_PATH
    exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + path, timeout=SEND_TIMEOUT_S)
    _complain_seldom("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    who = Resource.create(dict(resource))
    attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))  # in this thread: a request that sends spans has none itself

    def send(spans: list[Span]) -> None:
        exporter.export([_readable(span, who) for span in spans])

    return send, exporter.shutdown


def _readable(span: Span, resource: Any) -> ReadableSpan:
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

    state = TraceState.from_header([span.trace_state]) if span.trace_state else TraceState()

    def context(span_id: int, *, is_remote: bool) -> SpanContext:
        return SpanContext(span.trace_id, span_id, is_remote, TraceFlags(TraceFlags.SAMPLED), state)

    return ReadableSpan(
        name=span.name,
        context=context(span.span_id, is_remote=False),
        parent=context(span.parent_id, is_remote=span.parent_is_remote) if span.parent_id else None,
        resource=resource,
        attributes=span.attributes,
        events=[Event(name, attributes, at_ns) for name, at_ns, attributes in span.events],
        kind=SpanKind.SERVER if span.kind is Kind.SERVER else SpanKind.CLIENT,
        status=Status(StatusCode.ERROR if span.failed else StatusCode.UNSET),
        start_time=span.began_ns,
        end_time=span.ended_ns,
        instrumentation_scope=InstrumentationScope("serveconf"),
    )


class _Seldom(logging.Filter):
    """One line now and then: a collector may be away for days."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + COMPLAIN_EVERY_S
        return True


def _complain_seldom(logger: str) -> None:
    found = logging.getLogger(logger)
    if not any(isinstance(one, _Seldom) for one in found.filters):
        found.addFilter(_Seldom())
