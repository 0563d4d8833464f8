"""The rest of a long request body whose length is known: read past the parser, into memory that is handed on as it is.

``HttpProtocol`` gives its connection's reading to a ``LongBody``, which hands it each part and gives it back at the end.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httptools

from serveconf.proxy.rules import Refused
from serveconf.wire import raw_buffer

if TYPE_CHECKING:
    from serveconf.proxy.exchange import Exchange
    from serveconf.proxy.protocol import HttpProtocol

LONG_BYTES = 128 << 10  # what is left of a body, from where on it is worth it
READ_BYTES = 512 << 10
COPY_BYTES = READ_BYTES >> 1  # a read that brings no more is copied: little data must not hold a large buffer

_NOTHING = memoryview(b"")


def read_past_parser(protocol: HttpProtocol, exchange: Exchange, length: int) -> None:
    """Read so what is left of the body of ``length`` bytes, if it is worth it."""
    left = length - exchange.body_total
    if left >= LONG_BYTES and not (protocol.is_ignoring or exchange.complete or protocol.transport.is_closing()):
        _give_reading(protocol, LongBody(protocol, left))


def _give_reading(protocol: HttpProtocol, reader: asyncio.BaseProtocol) -> None:
    transport = protocol.transport
    transport.pause_reading()  # the transport looks at what its protocol can when it begins to read
    transport.set_protocol(reader)
    if not protocol.is_read_paused:
        transport.resume_reading()


class LongBody(asyncio.BufferedProtocol):
    """``left`` bytes of the body are still to come."""

    def __init__(self, protocol: HttpProtocol, left: int) -> None:
        self.left = left
        self._protocol = protocol
        self._buffer = _NOTHING
        self.connection_lost = protocol.connection_lost  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]

    def get_buffer(self, sizehint: int) -> memoryview:
        self._buffer = raw_buffer(READ_BYTES)[: self.left]
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data, self._buffer = self._buffer[:nbytes], _NOTHING
        self.left -= nbytes
        self._hand_on(bytes(data) if nbytes <= COPY_BYTES else data)

    def _hand_on(self, body: bytes | memoryview) -> None:
        protocol = self._protocol
        if not self.left:
            protocol.parser = httptools.HttpRequestParser(protocol)  # the one before this waits for the body for ever
            _give_reading(protocol, protocol)
        if protocol.is_ignoring:
            return
        try:
            protocol.on_body(body)
        except Refused as refusal:
            protocol.refuse(refusal)
        if not self.left:
            protocol.on_message_complete()
