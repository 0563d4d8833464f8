"""What all client connections of one proxy process share: limits, the front's live settings, who is connected.

``ProxyServer`` owns the timer that calls ``sweep``; protocols register themselves here; ``ProxyApp`` calls ``use`` when a
generation is committed, so that a changed front holds from the next request on without touching a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from time import monotonic, time
from typing import Any, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from serveconf.proxy.access_log import AccessLog
from serveconf.proxy.clocks import Wait, seconds_for
from serveconf.proxy.rules import HOP_BY_HOP
from serveconf.proxy.tally import Tally
from serveconf.proxy.traced import Tracer, end_span
from serveconf.routing import Front
from serveconf.tracing import Outlet


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one client may ask of the edge. Sizes in bytes, times in seconds."""

    max_connections: int = 10_000  # past it a connection gets 503 and is closed
    head_timeout_s: float = 10.0  # from the first byte of a request (or the connection) to the end of its head: 408
    linger_s: float = 5.0  # how long the rest of an unwanted upload is read and dropped before the connection is closed
    max_unread_bytes: int = 65_536  # of request bodies on one connection, past which it is not read from
    max_pipelined: int = 16  # requests ahead of their turn, past which the same holds
    max_unsent_bytes: int = 256 << 10  # of answers, past which the app waits
    max_message_bytes: int = 16 << 20  # of a WebSocket's client: 1009
    max_fragments: int = 65_536  # of one message: 1009
    max_kept_bytes: int = 64 << 20  # of all request bodies that wait in this process, past which each waits with little


class Connection(Protocol):
    """What the edge asks of a client connection, whichever protocol it speaks."""

    transport: asyncio.Transport

    def sweep(self, now: float) -> None:
        """Close, if a deadline has passed."""

    def drain(self, code: int = ..., /) -> None:
        """Finish what is in flight, then close; a WebSocket with this code."""

    def abort(self) -> None:
        """Close at once."""


class Shortcut(Protocol):
    """What has a request answered without a coroutine."""

    def go_on(self) -> None:
        """With one: nothing that was done so far is done again."""


async def _no_app(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("the edge serves no app yet")


def _with_real_port(app: ASGIApp) -> ASGIApp:
    """``app`` behind uvicorn's reading of X-Forwarded-For, which takes any number for a port."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if client is not None and not 0 <= client[1] <= 65_535:
            scope["client"] = (client[0], 0)
        await app(scope, receive, send)

    return run


class Edge:
    """State that is shared by every connection; touched only from the event loop."""

    def __init__(
        self,
        limits: Limits | None = None,
        tally: Tally | None = None,
        access_log: AccessLog | None = None,
        spans: Outlet | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.tally = tally or Tally()
        self.access_log = access_log or AccessLog()
        self.spans = spans or Outlet()
        self.tracer: Tracer | None = None
        self.tally.end_span = end_span
        self.connections: set[Connection] = set()
        self.websockets: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.draining = False
        self.leaving = False  # it will drain soon: balancers are told before that, by its health
        self.app: ASGIApp = _no_app
        self.forwarded_app: ASGIApp = _no_app  # for requests that say for whom they were forwarded
        self.shortcut: Callable[[Any], bool] | None = None  # given an ``Exchange`` that is whole: whether it was taken
        self.front = Front()
        self.lends_bodies = False  # its app knows bodies that are views of memory (``LENT``), not ASGI's bytes alone
        self.kept_bytes = 0  # of request bodies that came and were not taken yet
        self.date_line = b""
        self.use(self.front)
        self.refresh_date()

    def serve(self, app: ASGIApp) -> None:
        """Every request from now on goes to ``app``."""
        self.app = app
        self.shortcut = getattr(app, "shortcut", None)
        believing: Any = ProxyHeadersMiddleware(_with_real_port(app), self.front.forwarded_allow_ips)  # type: ignore[arg-type]
        self.forwarded_app = believing

    def use(self, front: Front) -> None:
        """The settings of a committed generation hold from the next request on."""
        self.front = front
        if front.access_log is not None:
            self.access_log.format = front.access_log
        self.tally.log = self.access_log if front.access_log is not None else None
        tracing = front.tracing
        self.spans.point(None if tracing is None else tracing.endpoint)
        self.tracer = None if tracing is None else Tracer(tracing, self.spans)
        name = front.request_id_header
        self.request_id_name = b"" if name is None else name.lower().encode()
        self.answer_fields = HOP_BY_HOP | {b"content-length", b"date", self.request_id_name}  # need a look in an answer
        self.unsuspicious_bytes = min(front.max_request_field_bytes, front.max_request_head_bytes)
        self.serve(self.app)

    def refresh_date(self) -> None:
        """Once a second: the Date header of all answers (RFC 9110 §6.6.1)."""
        self.date_line = b"date: " + formatdate(time(), usegmt=True).encode() + b"\r\n"

    def sweep(self) -> None:
        """Close the connections whose deadline has passed. One timer for all of them costs a request nothing."""
        now = monotonic()
        for connection in [*self.connections, *self.websockets]:
            connection.sweep(now)

    @property
    def shortest_wait_s(self) -> float:
        """The shortest of all times that a client has for something."""
        return min(seconds_for(wait, self) for wait in Wait)

    @property
    def unread_bytes(self) -> int:
        """How much of a request's body may wait for its app on one connection: little, where much waits on the others."""
        limits = self.limits
        return limits.max_unread_bytes if self.kept_bytes < limits.max_kept_bytes else limits.max_unread_bytes >> 4

    @property
    def idle_timeout_s(self) -> float:
        """How long a client may take to begin its next request. While draining just long enough for one on its way."""
        return 1.0 if self.draining else self.front.keep_alive_timeout_s

    @property
    def is_full(self) -> bool:
        """Whether one more connection is one too many."""
        return len(self.connections) + len(self.websockets) > self.limits.max_connections
