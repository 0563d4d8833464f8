"""Which version of a deployment takes a request while a canary runs, and which requests are copied: by share, exactly.

``Builder`` puts a ``Split`` before the two mounts of a deployment. The choice is made for each request, not for each
connection; with ``sticky`` a cookie holds what was drawn for a client, so that it is chosen alike from then on.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable
from typing import Protocol

from starlette.types import Message, Receive, Scope, Send

from serveconf.routing import Route

_GOLDEN = 0.6180339887498949  # its multiples lie in [0, 1) as evenly as can be, and follow no rhythm of the requests


class Served(Protocol):
    """A mount, as far as a choice between two is concerned."""

    @property
    def route(self) -> Route:
        """What it serves."""

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or WebSocket."""


class Draw:
    """Numbers in [0, 1), evenly: of any ``n`` in a row ``share * n`` are below ``share``, give or take a few."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = random.random()

    def next(self) -> float:
        """The next one."""
        self._last = (self._last + _GOLDEN) % 1.0
        return self._last


class Split:
    """One deployment in two versions, of which the new one gets its share."""

    def __init__(self, old: Served, new: Served, draw: Draw, *, share: float, sticky: str | None) -> None:
        """``share`` in percent; ``sticky``: the name of the cookie."""
        self._old = old
        self._new = new
        self._below = share / 100
        self._cookie = sticky.encode() if sticky else None
        self._path = new.route.prefix.encode()
        self._draw = draw

    def serve(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """One request or WebSocket, by the version whose turn it is."""
        if self._cookie is not None:
            return self._serve_sticky(self._cookie, scope, receive, send)
        mount = self._new if self._draw.next() < self._below else self._old
        return mount.serve(scope, receive, send)

    async def _serve_sticky(self, cookie: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """A client keeps its number; whoever has a small one goes over first, and stays there as the share grows."""
        number = number_in(scope, cookie)
        if number is not None:
            await (self._new if number < self._below else self._old).serve(scope, receive, send)
            return
        number = int(self._draw.next() * 10_000) / 10_000
        line = b"%b=%d; Path=%b; HttpOnly; SameSite=Lax" % (cookie, round(number * 10_000), self._path)

        async def telling(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                message["headers"] = [*message.get("headers", ()), (b"set-cookie", line)]
            await send(message)

        await (self._new if number < self._below else self._old).serve(scope, receive, telling)


def number_in(scope: Scope, cookie: bytes) -> float | None:
    """The number from 0 to 1 in the client's cookie; None where there is none that could be ours."""
    for name, value in scope["headers"]:
        if name == b"cookie":
            for part in value.split(b";"):
                key, _, digits = part.strip().partition(b"=")
                if key == cookie and digits.isdigit() and len(digits) <= 4:
                    return int(digits) / 10_000
    return None
