"""Spans of the user's own: where the app uses OpenTelemetry itself, its spans and ours hang in one chain."""

from __future__ import annotations

import sys
from typing import Any

from serveconf.tracing.span import Span


def enter(span: Span) -> None:
    """Code of this task that begins a span begins it below this one. Nothing, where nobody has imported OpenTelemetry."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    context: Any = sys.modules.get("opentelemetry.context")
    if trace is None or context is None:
        return
    ours = trace.SpanContext(
        trace_id=span.trace_id, span_id=span.span_id, is_remote=False, trace_flags=trace.TraceFlags(1)
    )
    context.attach(trace.set_span_in_context(trace.NonRecordingSpan(ours)))  # ends with the task


def within_users(span: Span) -> int:
    """The id of the user's own span that is open within ``span``; that of ``span`` where there is none."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return span.span_id
    current = trace.get_current_span()
    found = current.get_span_context()
    is_theirs = found.is_valid and found.trace_id == span.trace_id and current.is_recording()
    return int(found.span_id) if is_theirs else span.span_id
