"""One request on its way through a ``Backend``, and the answers that the proxy itself gives."""

from __future__ import annotations

import asyncio
from typing import Any

from serveconf.proxy.affinity import Wish
from serveconf.proxy.incoming import Incoming
from serveconf.proxy.tally import NO_TRAIL, TRAIL, Trail
from serveconf.wire import ClientStream, StreamCut, StreamLost, body_mode

RETRY_AFTER_S = 1
REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})
MOST_LOSSES = 3  # a request that took this many replicas with it is not tried on another one

Headers = list[tuple[bytes, bytes]]


class ResponseCut(Exception):
    """The response began and cannot be finished: the client's connection is to be cut, never ended cleanly."""


class GiveUp(Exception):
    """The request gets this answer from the proxy itself."""

    def __init__(self, status: int, text: str, reason: str, *, retry: bool = False) -> None:
        super().__init__(text)
        self.reason = reason
        self.status = status
        self.text = text
        self.headers: Headers = [(b"retry-after", b"%d" % RETRY_AFTER_S)] if retry else []


class Gone(Exception):
    """The client left before a replica had its request."""


class Call:
    """One request on its way through a backend."""

    __slots__ = ("incoming", "losses", "mode", "scope", "send", "started", "stream", "trail", "waited_s", "wish")

    def __init__(self, scope: Any, receive: Any, send: Any, wish: Wish | None = None) -> None:
        self.scope = scope
        self.wish = wish
        self.incoming = Incoming(receive)
        self.stream: ClientStream | None = None  # where it was begun already
        self.send = send
        self.mode = body_mode(scope) if scope["type"] == "http" else None
        self.losses = 0
        self.waited_s = 0.0  # for a replica with room
        self.trail: Trail = scope.get(TRAIL, NO_TRAIL)
        self.started = False  # known only where there is a deadline

    def watch_start(self, deadline: asyncio.Timeout) -> None:
        """Note when the answer begins. A WebSocket that was accepted has no deadline any more."""
        send = self.send

        async def noting_start(message: dict[str, Any]) -> None:
            if not self.started:
                self.started = True
                if message["type"] == "websocket.accept":
                    deadline.reschedule(None)
            await send(message)

        self.send = noting_start

    def may_repeat(self, error: StreamLost) -> bool:
        """Whether a request that was lost may be run on another replica, and its body is still there."""
        return (
            self.scope["type"] == "http"
            and self.scope["method"] in REPEATABLE
            and not error.response_started
            and not isinstance(error, StreamCut)
            and self.losses < MOST_LOSSES
            and self.incoming.rewind()
        )


async def error_response(scope: Any, send: Any, status: int, text: str, headers: Headers | None = None) -> None:
    """Answer a request, or deny a WebSocket, with a line of text."""
    kind = "http.response"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", ()):
            await send({"type": "websocket.close", "code": 1013 if status == 503 else 1011})
            return
        kind = "websocket.http.response"
    body = text.encode() + b"\n"
    head = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body)), *(headers or ())]
    await send({"type": f"{kind}.start", "status": status, "headers": head})
    await send({"type": f"{kind}.body", "body": body, "more_body": False})
