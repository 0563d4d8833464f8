"""What the guards share: a short answer of their own, a header of a request, who the client is."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Receive, Scope, Send

Fields = Sequence[tuple[bytes, bytes]]

KINDS = ("http", "websocket")


async def answer(scope: Scope, receive: Receive, send: Send, status: int, text: str, headers: Fields = ()) -> None:
    """One short answer; a WebSocket's handshake is refused with it, as plainly as the server allows."""
    body = f"{text}\n".encode()
    head = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body)), *headers]
    kind = "http.response"
    if scope["type"] == "websocket":
        kind = "websocket.http.response"
        if kind not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": text[:100]})
            return
    await send({"type": f"{kind}.start", "status": status, "headers": head})
    await send({"type": f"{kind}.body", "body": body, "more_body": False})


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first field of that name (in lower case)."""
    for field, value in scope["headers"]:
        if field == name:
            found: bytes = value
            return found
    return None


def client_of(scope: Scope) -> str:
    """The client's address as the server knows it; empty where it does not."""
    client = scope.get("client")
    return client[0] if client else ""


def without(headers: Fields, names: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    """The fields but those."""
    return [field for field in headers if field[0] not in names]


def token(name: str) -> bytes:
    """A header's name as scopes have it."""
    return name.lower().encode("ascii")
