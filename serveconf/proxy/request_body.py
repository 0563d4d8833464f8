"""What comes in of one HTTP/1.1 request's body, and how an app is told of it: ASGI's ``receive``.

The protocol hands in the parts; ``Exchange`` adds the answer. What waits is counted, for the connection and for the process.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.types import Message

from serveconf.wire import LENT, Strand, park, running

if TYPE_CHECKING:
    from serveconf.proxy.protocol import HttpProtocol


class RequestBody:
    """The request's half of an exchange."""

    __slots__ = (
        "body",
        "body_total",
        "body_waiting",
        "complete",
        "connection",
        "disconnected",
        "end_told",
        "expects_continue",
        "more_body",
        "news",
        "reader",
        "receivers",
        "started",
    )

    def __init__(self, connection: HttpProtocol, expects: bool) -> None:
        self.connection = connection
        self.expects_continue = expects
        self.disconnected = False
        self.started = False  # the answer
        self.complete = False
        self.body: list[bytes | memoryview] = []
        self.body_waiting = 0  # bytes of it that the app has not taken
        self.body_total = 0
        self.more_body = True
        self.end_told = False
        self.news: asyncio.Event | None = None
        self.reader: Strand | None = None  # parked in ``receive``
        self.receivers = 0

    def take(self, body: bytes | memoryview) -> None:
        """A part of the body came in."""
        self.body.append(body)
        size = len(body)
        self.body_waiting += size
        self.body_total += size
        self.connection.body_waiting += size
        self.connection.edge.kept_bytes += size
        self.tell()

    def tell(self) -> None:
        """There is news for ``receive``. A strand that waits there goes on in here, so what has come may be taken now."""
        reader, self.reader = self.reader, None
        if reader is not None:
            reader.resume()
        if self.news is not None:
            self.news.set()

    async def receive(self) -> Message:
        """The next part of the body; then, when the answer is complete or the client has gone, ``http.disconnect``."""
        if self.expects_continue:
            self.expects_continue = False
            if not self.started and self.more_body:
                self.connection.write_continue()
        while not (self.disconnected or self.complete):
            if self.body or not (self.more_body or self.end_told):
                return self.take_body()
            self.connection.resume_reading()
            self.receivers += 1
            try:
                await self._hear_news()
            finally:
                self.receivers -= 1
        return {"type": "http.disconnect"}

    async def _hear_news(self) -> None:
        strand = running()
        if strand is not None and self.reader is None:
            self.reader = strand
            try:
                await park()
            finally:
                if self.reader is strand:  # it was cancelled
                    self.reader = None
            return
        if self.news is None:
            self.news = asyncio.Event()
        self.news.clear()
        await self.news.wait()

    def take_body(self) -> Message:
        """The message of what has come of the body."""
        parts = self.body
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.let_go_of_body()
        self.end_told = not self.more_body
        self.connection.resume_reading()
        message = {"type": "http.request", "body": body, "more_body": self.more_body}
        if type(body) is memoryview:
            message[LENT] = True
        return message

    def let_go_of_body(self) -> None:
        """What waits of it will not be taken."""
        self.connection.body_waiting -= self.body_waiting
        self.connection.edge.kept_bytes -= self.body_waiting
        self.body_waiting = 0
