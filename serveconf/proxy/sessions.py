"""Which session a request belongs to, as its route's ``session_affinity`` says: in a header, or in a cookie.

``Backend`` asks; a client that has no cookie yet is given one, so that its next request goes where this one went.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from serveconf.routing import SessionAffinity

Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]


class Sessions:
    """One route's. ``cookie`` is empty where none is used."""

    def __init__(self, said: SessionAffinity) -> None:
        self._header = said.header.lower().encode() if said.header else b""
        self.cookie = said.cookie.encode() if said.cookie else b""

    def named_in(self, headers: Headers) -> bytes:
        """The session that a request names, the header before the cookie; empty where it names none."""
        found = b""
        for name, value in headers:
            if name == self._header and value:
                return value
            if name == b"cookie" and self.cookie and not found:
                found = cookie_in(value, self.cookie)
        return found

    def begin(self, scope: Any, send: Send) -> tuple[bytes, Send]:
        """A new session, and the ``send`` that tells the client of it, unless the app sets that cookie itself."""
        session = secrets.token_hex(8).encode()
        path = (scope.get("root_path") or "/").encode()
        line = b"%b=%b; Path=%b; HttpOnly; SameSite=Lax" % (self.cookie, session, path)
        own = self.cookie + b"="

        async def telling(message: dict[str, Any]) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                headers = list(message.get("headers", ()))
                if not any(name == b"set-cookie" and value.startswith(own) for name, value in headers):
                    message["headers"] = [*headers, (b"set-cookie", line)]
            await send(message)

        return session, telling


def cookie_in(header: bytes, name: bytes) -> bytes:
    """The value of one cookie in a ``Cookie`` header; empty where it is not there."""
    for part in header.split(b";"):
        key, _, value = part.strip().partition(b"=")
        if key == name:
            return value
    return b""
