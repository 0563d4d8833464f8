"""What both ends of a stream have in common: credit for what they send, account of what they receive, waking a reader.

The proxy's streams (``client.py``) and the replica's handlers (``handlers.py``) are built on it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from serveconf.wire.frames import GRANT_SHIFT, PIECE_COST, Body, Credit, Message, StreamError

if TYPE_CHECKING:
    from serveconf.wire.connection import Connection


class Stream:
    """One request as one end sees it. Its state begins as class attributes: most of it never changes for most requests."""

    gone = False  # the other end has left: nothing is sent any more, and nothing comes
    _held = 0  # received from the other end and not granted again yet
    _owed = 0  # the part of it that was used up already
    _readers: list[asyncio.Future[None]] | None = None
    _senders: list[asyncio.Future[None]] | None = None  # waiting for credit
    _lock: asyncio.Lock | None = None  # held while a large body or message goes out in pieces

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.number = number
        self._credit = connection.limits.window_bytes
        self._inbox: deque[Any] = deque()

    # receiving

    def received(self, cost: int) -> None:
        """Something that costs ``cost`` came in. StreamError when the other end had no credit for it."""
        self._held += cost
        if self._held > self.connection.limits.window_bytes:
            raise StreamError(self.number, "more data than was granted")

    def used(self, cost: int) -> None:
        """Something that costs ``cost`` was used up; as much again may come."""
        self._owed += cost
        if self._owed >= self.connection.limits.window_bytes >> GRANT_SHIFT and not self.gone:
            self.grant()

    def grant(self) -> None:
        """Tell the other end what was used up."""
        self._held -= self._owed
        self.connection.queue(Credit(self.number, self._owed))
        self._owed = 0

    def wake(self) -> None:
        """Something came in, or nothing will come any more."""
        if self._readers:
            for reader in self._readers:
                if not reader.done():
                    reader.set_result(None)
            self._readers.clear()

    async def wait(self) -> None:
        """Until ``wake``."""
        reader = self.connection.loop.create_future()
        if self._readers is None:
            self._readers = []
        self._readers.append(reader)
        try:
            await reader
        finally:
            if reader in self._readers:
                self._readers.remove(reader)

    @property
    def read_by_someone(self) -> bool:
        """Whether someone waits for what comes in."""
        return bool(self._readers)

    # sending

    def credited(self, size: int) -> None:
        """The other end has used up ``size``."""
        self._credit += size
        if self._credit > self.connection.limits.window_bytes:
            raise StreamError(self.number, "more credit than was used")
        self._wake_senders()

    def leave(self) -> None:
        """The other end is gone: whoever waits to send or to receive goes on, and finds ``gone`` set."""
        self.gone = True
        self._wake_senders()
        self.wake()

    def _wake_senders(self) -> None:
        if self._senders:
            for sender in self._senders:
                if not sender.done():
                    sender.set_result(None)
            self._senders.clear()

    def spend(self, size: int, most: int) -> bool:
        """Take the credit for ``size`` bytes that are to be queued in this turn, if they can go at once and whole."""
        connection = self.connection
        if (
            size > most
            or self._credit < size + PIECE_COST
            or connection.clogged
            or (self._lock is not None and self._lock.locked())
        ):
            return False
        self._credit -= size + PIECE_COST
        connection.count(size)
        return True

    async def send_body(self, data: bytes | memoryview, more: bool) -> None:
        """Send ``data`` as Body frames, as credit and turns allow."""
        connection = self.connection
        limits = connection.limits
        view = memoryview(data)
        start, end = 0, len(data)
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            while True:
                size = min(end - start, limits.piece_bytes)
                await self._may_send(size + PIECE_COST)
                if self.gone:
                    return
                self._credit -= size + PIECE_COST
                connection.count(size)
                piece = view[start : start + size]
                start += size
                self.send_piece(piece, more or start < end)
                if start >= end:
                    return

    async def send_message(self, data: bytes, text: bool) -> None:
        """Send ``data`` as the fragments of one message, as credit and turns allow. ValueError where it is too large."""
        limits = self.connection.limits
        if len(data) > limits.max_message_bytes:
            raise ValueError(
                f"a WebSocket message of {len(data)} bytes is too large, at most {limits.max_message_bytes}"
            )
        piece_bytes = min(limits.inline_bytes, limits.piece_bytes)
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            for start in range(0, max(len(data), 1), piece_bytes):
                piece = data[start : start + piece_bytes]
                await self._may_send(len(piece) + PIECE_COST)
                if self.gone:
                    return
                self._credit -= len(piece) + PIECE_COST
                self.connection.count(len(piece))
                self.connection.queue(Message(self.number, piece, text, start + len(piece) < len(data)))

    async def last_in_line(self) -> None:
        """Until no large message is on its way any more."""
        if self._lock is not None:
            async with self._lock:
                pass

    def send_piece(self, data: bytes | memoryview, more: bool) -> None:
        """Queue a piece that credit was taken for."""
        self.connection.queue_piece(Body(self.number, b"", more), data)

    @property
    def must_wait(self) -> bool:
        """Whether a piece would have to wait for credit or for its turn."""
        connection = self.connection
        return self._credit < connection.limits.piece_bytes + PIECE_COST or connection.clogged

    async def _may_send(self, cost: int) -> None:
        while not self.gone:
            if self._credit < cost:
                await self._credit_changed()
            elif self.connection.clogged:
                await self.connection.wait_turn()
            else:
                return

    async def _credit_changed(self) -> None:
        sender = self.connection.loop.create_future()
        if self._senders is None:
            self._senders = []
        self._senders.append(sender)
        await sender


def as_bytes(data: Any) -> bytes:
    """A body as bytes that nobody can change before they are sent."""
    if type(data) is bytes:
        return data
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"a body must be bytes, not {type(data).__name__}")
