"""The proxy's own span of a request: begun before its front's middlewares, ended where the request is counted.

``ProxyApp`` asks ``Tracer`` for each request, where there is tracing; one that is not sampled costs a look at its headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import random
from time import monotonic
from typing import Any

from serveconf.proxy.tally import CLIENT_LEFT, TRAIL, Reason, Trail
from serveconf.routing import Tracing
from serveconf.tracing import (
    CARRIED,
    Kind,
    Outlet,
    Parent,
    Span,
    chained,
    method_of,
    new_span,
    parent_of,
    request_attributes,
)

_OWN = "/-/"  # health checks and the like would be most of all spans, and say nothing


class Tracer:
    """Decides which requests have spans, by what the front says of it."""

    def __init__(self, said: Tracing, outlet: Outlet) -> None:
        self._endpoint = said.endpoint
        self._sample = said.sample
        self._outlet = outlet

    def begin(self, scope: Any) -> None:
        """Called for each request. A parent's decision counts, whatever the share (OpenTelemetry's ParentBased)."""
        for name, _ in scope["headers"]:
            if name == b"traceparent":
                parent = parent_of(scope["headers"])
                if parent.is_sampled if parent is not None else random() < self._sample:
                    self._trace(scope, parent)
                return
        if random() < self._sample:
            self._trace(scope, None)

    def _trace(self, scope: Any, parent: Parent | None) -> None:
        trail = scope.get(TRAIL)
        if trail is None or scope["path"].startswith(_OWN):
            return
        span = new_span(method_of(scope), Kind.SERVER, self._outlet, parent[:3] if parent is not None else None)
        span.begin_earlier(_ns(monotonic() - trail.began))
        span.attributes = request_attributes(scope)
        trail.span = span
        scope["headers"] = chained(scope["headers"], span)
        scope["state"] = {**scope.get("state", {}), CARRIED: self._endpoint}


def end_span(span: Span, scope: Mapping[str, Any], trail: Trail, status: int, seconds: float) -> None:
    """The request is over, and it is known who had it and what came of it. It took as long as the metrics and the log say."""
    attributes = span.attributes
    if status != CLIENT_LEFT:
        attributes["http.response.status_code"] = status
    if trail.request_id:
        attributes["serveconf.request_id"] = trail.request_id.decode("latin-1")
    if trail.reason:
        attributes["serveconf.reason"] = trail.reason
    if trail.replica:
        attributes["serveconf.replica"] = trail.replica
    route = trail.route
    if route is not None:
        attributes["serveconf.stack"], attributes["serveconf.deployment"] = route.stack, route.deployment
        attributes["http.route"] = route.prefix
        span.name = f"{method_of(scope)} {route.prefix}"
    if status >= 500 or trail.reason == Reason.CUT:
        span.fail(trail.reason or str(status))
    span.ended_ns = span.began_ns + _ns(seconds)
    span.end()


def note_wait(span: Span, seconds: float) -> None:
    """It waited in line for a replica for so long, until now."""
    span.note("queued", span.now_ns - _ns(seconds), **{"serveconf.queue.duration": round(seconds, 6)})


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
