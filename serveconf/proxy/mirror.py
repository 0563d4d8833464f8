"""Copies of a route's requests for another deployment. Their answers are dropped; they never touch the original.

A copy begins when the whole body of its request has come, runs in a task of its own, and there are only so many of them
at a time: past that requests are simply not copied. A request that is a copy itself is not copied again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from time import monotonic

from starlette.types import Message, Receive, Scope, Send

from serveconf.proxy.mount import Mount
from serveconf.proxy.shares import Draw
from serveconf.proxy.tally import TRAIL
from serveconf.routing import Mirror

MARK = b"x-serveconf-mirrored"
MOST_BODY_BYTES = 1 << 20  # a request with more of it is not copied
MOST_COPIES = 64  # of one route, at a time
COPY_TIMEOUT_S = 60.0

Serve = Callable[[Scope, Receive, Send], Awaitable[None]]


class Mirrored:
    """Stands before a route, and hands copies to the mount that ``target`` finds."""

    def __init__(
        self, mirror: Mirror, serve: Serve, target: Callable[[], Mount | None], on_drop: Callable[[], None]
    ) -> None:
        self._below = mirror.percent / 100
        self._serve = serve
        self._target = target
        self._on_drop = on_drop
        self._draw = Draw()
        self._copies: set[asyncio.Task[None]] = set()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or WebSocket; the copy, if there is one, begins beside it."""
        if scope["type"] == "http" and self._draw.next() < self._below:
            copied, has_body = _copied(scope)
            if copied is not None:
                if has_body:
                    receive = self._tapped(copied, receive)
                else:
                    self._begin(copied, b"")
        await self._serve(scope, receive, send)

    def _tapped(self, copied: Scope, receive: Receive) -> Receive:
        """``receive``, noting the body that the app is given."""
        parts: list[bytes] = []
        size = 0

        async def noting() -> Message:
            nonlocal size
            message = await receive()
            if message["type"] == "http.request" and size <= MOST_BODY_BYTES:
                body = message.get("body", b"")
                size += len(body)
                if size > MOST_BODY_BYTES:
                    parts.clear()
                else:
                    parts.append(bytes(body))
                    if not message.get("more_body", False):
                        size = MOST_BODY_BYTES + 1  # once
                        self._begin(copied, b"".join(parts))
            return message

        return noting

    def _begin(self, scope: Scope, body: bytes) -> None:
        target = self._target()
        if target is None or len(self._copies) >= MOST_COPIES:
            self._on_drop()
            return
        copy = asyncio.create_task(_run(target, scope, body))
        self._copies.add(copy)
        copy.add_done_callback(self._copies.discard)


def _copied(scope: Scope) -> tuple[Scope | None, bool]:
    """The copy's scope, None where the request is a copy itself or too large; and whether a body follows."""
    has_body = False
    for name, value in scope["headers"]:
        if name == MARK:
            return None, False
        if name == b"transfer-encoding":
            has_body = True
        elif name == b"content-length" and value != b"0":
            has_body = True
            if value.isdigit() and int(value) > MOST_BODY_BYTES:
                return None, False
    copied = {key: value for key, value in scope.items() if key not in (TRAIL, "extensions")}
    copied["headers"] = [*(field for field in scope["headers"] if field[0] != b"expect"), (MARK, b"1")]
    return copied, has_body


async def _run(target: Mount, scope: Scope, body: bytes) -> None:
    """One copy, from its first to its last event. Whatever goes wrong in it is only counted."""
    given = False
    status = 500
    began = monotonic()

    async def receive() -> Message:
        nonlocal given
        if given:
            await asyncio.Event().wait()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def drop(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    with contextlib.suppress(Exception):  # an app may fail as it likes
        async with asyncio.timeout(COPY_TIMEOUT_S):
            await target.serve(scope, receive, drop)
    histogram = target.figures.duration(scope["method"], status)
    histogram.observe(monotonic() - began)
