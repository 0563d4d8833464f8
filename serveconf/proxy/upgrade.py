"""A request that asks for another protocol: a WebSocket gets its connection, and for any other it is as if it had not asked.

llhttp stops at such a request and takes what follows for the other protocol, whether or not the server agrees: the body of
one that does not get it is parsed on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httptools

from serveconf.proxy.head import RequestHead
from serveconf.proxy.rules import Refused

if TYPE_CHECKING:
    from serveconf.proxy.protocol import HttpProtocol


def is_handshake(scope: dict[str, Any], head: RequestHead, *, is_first: bool) -> bool:
    """Whether the upgrade that is asked for is a WebSocket; any other is ignored (RFC 9110 §7.8). Raises Refused.

    ``is_first``: nothing before it on its connection is unanswered.
    """
    if scope["method"] == "GET" and scope["http_version"] == "1.1" and head.upgrade == b"websocket":
        if head.has_body or not is_first:
            raise Refused(400, "A WebSocket handshake has no body, and nothing unanswered before it")
        return True
    return False


def become_websocket(protocol: HttpProtocol, scope: dict[str, Any], rest: bytes) -> None:
    """Hand the connection on, with what has come behind the handshake."""
    protocol.edge.connections.discard(protocol)
    protocol.awaits = None
    protocol.is_ignoring = True
    websocket = protocol.open_websocket(protocol.app, scope)
    protocol.transport.set_protocol(websocket)
    websocket.connection_made(protocol.transport)
    if rest:
        websocket.data_received(rest)


def parser_within_body(protocol: HttpProtocol, length: int | None) -> httptools.HttpRequestParser:
    """A parser that stands at the beginning of a body: of so many bytes, or in chunks."""
    parser = httptools.HttpRequestParser(_AfterHead(protocol))
    framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
    return parser


class _AfterHead:
    """Hands on what a parser calls, but for the first head, which the protocol knows already."""

    def __init__(self, protocol: HttpProtocol) -> None:
        self._protocol = protocol
        self._is_after = False
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete

    def on_message_begin(self) -> None:
        if self._is_after:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self._is_after:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_after:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_after:
            self._protocol.on_headers_complete()
        self._is_after = True
