"""The rest of a long request body whose length is known: read past the parser, into memory that is handed on as it is.

``HttpProtocol`` gives its connection's reading to a ``LongBody``, which calls it with each part and gives it back at the end.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from serveconf.wire import raw_buffer

if TYPE_CHECKING:
    from serveconf.proxy.protocol import HttpProtocol

LONG_BYTES = 128 << 10  # what is left of a body, from where on it is worth it
READ_BYTES = 512 << 10
COPY_BYTES = READ_BYTES >> 1  # a read that brings no more is copied: little data must not hold a large buffer

_NOTHING = memoryview(b"")


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
        self._protocol.long_body_came(bytes(data) if nbytes <= COPY_BYTES else data, self.left)
