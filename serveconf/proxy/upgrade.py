"""What happens to the body of a request that asks for another protocol than a WebSocket: it is parsed on.

llhttp stops at such a request and takes what follows for the other protocol, whether or not the server agrees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httptools

if TYPE_CHECKING:
    from serveconf.proxy.protocol import HttpProtocol


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
