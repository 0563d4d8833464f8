"""The way out of a process for its spans: OTLP over HTTP, in batches, from a thread of OpenTelemetry's.

Whoever ends a span gives it and goes on. OpenTelemetry is imported by a thread when there is an endpoint for the first time;
spans that end before are kept. What a collector that is away, or too slow, does not take in time is dropped.
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

MOST_WAITING = 2_048  # spans; the newest are kept
SEND_EVERY_MS = 1_000
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
        self._emit: Callable[[Span], None] | None = None
        self._shutdown: Callable[[], None] = lambda: None
        self._opening = threading.Thread(target=self._open, args=(endpoint, resource), name="spans", daemon=True)
        self._opening.start()

    def give(self, span: Span) -> None:
        self._waiting.append(span)
        if self._emit is not None:
            self._pass_on(self._emit)

    def close(self) -> threading.Thread:
        """In a thread of its own, which holds up the end of no process."""
        closing = threading.Thread(target=self._close, name="last spans", daemon=True)
        closing.start()
        return closing

    def _open(self, endpoint: str, resource: Mapping[str, str]) -> None:
        try:
            emit, self._shutdown = _exporting(endpoint, resource)
        except Exception as error:  # noqa: BLE001 - a tool that is missing or broken here must not end what it watches
            log.warning("no spans leave this process: %r; %s", error, MISSING_HINT)
            return
        self._emit = emit
        self._pass_on(emit)

    def _pass_on(self, emit: Callable[[Span], None]) -> None:
        while True:
            try:
                span = self._waiting.popleft()
            except IndexError:
                return
            emit(span)

    def _close(self) -> None:
        self._opening.join()
        self._shutdown()


def _exporting(endpoint: str, resource: Mapping[str, str]) -> tuple[Callable[[Span], None], Callable[[], None]]:
    """What takes a span, and what ends it; a thread sends them. Takes its time: much is imported here."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    path = "" if endpoint.endswith(TRACES_PATH) else TRACES_PATH
    exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + path, timeout=SEND_TIMEOUT_S)
    processor = BatchSpanProcessor(exporter, max_queue_size=MOST_WAITING, schedule_delay_millis=SEND_EVERY_MS)
    _complain_seldom("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    _complain_seldom("opentelemetry.sdk._shared_internal")
    who = Resource.create(dict(resource))

    def emit(span: Span) -> None:
        processor.on_end(_readable(span, who))

    return emit, processor.shutdown


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
