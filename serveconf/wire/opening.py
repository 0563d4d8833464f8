"""How a request begins on the wire: its scope as an Open frame, and when its body is there."""

from __future__ import annotations

from enum import Enum
from typing import Any

from serveconf.wire.carried import pack_extras
from serveconf.wire.frames import Open

GENERATION = "serveconf.generation"  # in a scope: the number of the routing table that the request came by
GENERATION_HEADER = b":generation"  # ... and over the wire, as the last header: no client can send one of that name


class BodyMode(Enum):
    """When the request's body is there."""

    NONE = "never: there is none"
    PULL = "now or soon: the first piece goes with the head"
    STREAM = "perhaps only when the answer has begun"
    HOLD = "when the application asks for it (RFC 9110 §10.1.1)"


def body_mode(scope: dict[str, Any]) -> BodyMode:
    """How to go about the body of this request, told from its headers."""
    is_http1 = scope["http_version"] in ("1.1", "1.0")
    if scope["method"] in ("GET", "HEAD"):
        mode = BodyMode.NONE if is_http1 else BodyMode.PULL
    else:  # without a length there is no body either, unless a middleware has changed it and taken the length away
        mode = BodyMode.PULL if is_http1 else BodyMode.STREAM
    for name, value in scope["headers"]:
        if name == b"expect" and value.lower() == b"100-continue":
            return BodyMode.HOLD
        if name == b"transfer-encoding":
            mode = BodyMode.STREAM
        elif name == b"content-length":
            mode = BodyMode.PULL
    return mode


def as_open(scope: dict[str, Any], number: int, body: bytes, more: bool, hold: bool, generation: bool) -> Open:
    """The scope as it goes over the wire: what ASGI names, and nothing else. TypeError for what ASGI does not allow.

    ``generation``: whether the other end takes the table's number away again.
    """
    websocket = scope["type"] == "websocket"
    headers = scope["headers"]
    if generation and GENERATION in scope:
        headers = [*headers, (GENERATION_HEADER, b"%d" % scope[GENERATION])]
    for name, value in headers:
        if type(name) is not bytes or type(value) is not bytes:
            raise TypeError("headers must be pairs of bytes")
    client = scope.get("client")
    if client is not None:
        host, port = client
        if type(host) is not str or type(port) is not int or not 0 <= port <= 65_535:
            raise TypeError(f"the scope's client must be an address and a port, not {client!r}")
    return Open(
        number,
        websocket,
        "GET" if websocket else scope["method"],
        scope["scheme"],
        scope["http_version"],
        scope["path"],
        scope.get("raw_path"),
        scope["query_string"],
        scope.get("root_path", ""),
        headers,
        client,
        scope.get("server"),
        scope.get("subprotocols", []),
        websocket and "websocket.http.response" in scope.get("extensions", ()),
        body,
        more,
        hold,
        pack_extras(scope) if "session" in scope or "state" in scope else b"",
        "http.response.trailers" in scope.get("extensions", ()),
    )
