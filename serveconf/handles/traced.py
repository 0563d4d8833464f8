"""The replica's own spans: of a request that the proxy has sampled, and of a call that another replica's span has made.

What is sampled comes with where its spans go (``CARRIED``), so that a replica that is never asked to trace does nothing for
it, and one that is follows the proxies' settings at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import Message, Scope, Send

from serveconf.handles.wire_form import HTTP_VERSION
from serveconf.ingress.operations import Templates
from serveconf.tracing import (
    Kind,
    Outlet,
    Span,
    chained,
    enter,
    method_of,
    new_span,
    parent_of,
    request_attributes,
    within_users,
)


class Tracing:
    """Of one replica. ``find_app``: gives what answers requests, for its route table."""

    def __init__(self, find_app: Callable[[], Any], outlet: Outlet, *, name: str) -> None:
        self._templates = Templates(find_app)
        self._outlet = outlet
        self._name = name

    def begin(self, endpoint: str, scope: Scope) -> Span:
        """A request that is sampled begins; what it calls, and the app's own spans, hang below this one."""
        self._outlet.point(endpoint)
        parent = parent_of(scope["headers"])
        ids = parent[:3] if parent is not None else None
        if scope["http_version"] == HTTP_VERSION:
            name = f"{self._name}/{scope['path']}"
            span = new_span(name, Kind.SERVER, self._outlet, ids)
            span.attributes = call_attributes(name)
        else:
            template = self._templates.find(scope)
            method = method_of(scope)
            span = new_span(f"{method} {template}" if template else method, Kind.SERVER, self._outlet, ids)
            span.attributes = request_attributes(scope)
            if template:
                span.attributes["http.route"] = template
        scope["headers"] = chained(scope["headers"], span)
        enter(span)
        return span


def watching(span: Span, send: Send) -> Send:
    """``send``, noting what the answer is and when it is complete: background tasks are no part of it."""

    def noted(message: Message) -> Awaitable[None]:
        match message["type"]:
            case "http.response.start" | "websocket.http.response.start":
                _note_status(span, message["status"])
            case "websocket.accept":
                span.attributes["http.response.status_code"] = 101
            case "http.response.body" if not message.get("more_body", False):
                span.stop()
        return send(message)

    return noted


async def run_traced(span: Span, run: Callable[[], Awaitable[None]]) -> None:
    """Run what answers; the span ends with it, whatever becomes of it."""
    try:
        await run()
    except asyncio.CancelledError:
        span.attributes["serveconf.reason"] = "client_left"
        raise
    except BaseException as error:  # noted on the span, and raised on; a cancel too
        span.fail(type(error).__qualname__)
        raise
    finally:
        span.end()


def call_attributes(method: str) -> dict[str, Any]:
    """Of a call by handle, by the conventions for remote procedure calls."""
    return {"rpc.system.name": "serveconf", "rpc.method": method}


def calling(parent: Span, method: str) -> Span:
    """The caller's span of a call that is made within ``parent``, or within a span of the user's own there."""
    span = parent.child(method, Kind.CLIENT, parent_id=within_users(parent))
    span.attributes = call_attributes(method)
    return span


def _note_status(span: Span, status: int) -> None:
    if "rpc.method" in span.attributes:
        return  # a call's: it only carries what came of it
    span.attributes["http.response.status_code"] = status
    if status >= 500:
        span.fail(str(status))
