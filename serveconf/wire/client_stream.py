"""The proxy's end of a stream: what the client sends goes to the replica, what the replica answers is there for who asks.

``requests.py`` runs ASGI calls on it, ``WireClient`` hands it its frames. A small request is one frame there and one frame
back: a task of its own, to send the rest of the body or to hear that the client left, exists only where there is something
to do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from serveconf.wire.frames import (
    PIECE_COST,
    AnyFrame,
    Body,
    Cancel,
    Close,
    File,
    Message,
    Opened,
    Refused,
    Reply,
    cost_of,
)
from serveconf.wire.lent import LentFile, open_in_thread
from serveconf.wire.opening import BodyMode, as_open
from serveconf.wire.strand import Strand, park, running
from serveconf.wire.stream import Stream, as_bytes

if TYPE_CHECKING:
    from serveconf.wire.client import WireClient

log = logging.getLogger("serveconf.wire")

LENT = "serveconf.lent"  # in an http.request: its body is a view of memory that nobody writes to while there are views of it
NO_STATUS = 1005  # RFC 6455 §7.4.1
TOO_BIG = 1009


class StreamRefused(Exception):
    """The replica did not take the request; nothing of it was handled."""


class StreamLost(Exception):
    """The connection died under the request."""

    def __init__(self, response_started: bool) -> None:
        super().__init__("the replica was lost " + ("while it answered" if response_started else "before it answered"))
        self.response_started = response_started


class StreamCut(StreamLost):
    """The replica is there, but the application failed and cannot finish what it began."""


class Parked(Protocol):
    """Who waits for what comes in, and costs nothing meanwhile: a ``Strand``, or what spares a request one."""

    def resume(self) -> None:
        """Something has come."""


class ClientStream(Stream):
    """One request on its way."""

    connection: WireClient
    opened = False
    over = False  # the replica's handler has ended, or never began
    started = False  # the response has begun
    awaits_trailers = False
    answered = False  # nothing of the response is missing any more
    _client_gone = False
    _call_over = False
    _holding = False
    _failure: Exception | None = None
    _receive: Any = None
    _pump: asyncio.Task[None] | Strand | None = None
    _parked: Parked | None = None  # goes on when there is something for ``next``

    # from the replica

    def arrived(self, frame: AnyFrame) -> None:
        """A frame for this stream."""
        if self._call_over:
            return
        if type(frame) is Reply:
            if frame.body:
                self.received(len(frame.body) + PIECE_COST)
        elif type(frame) is Body:
            self.received(cost_of(frame))
        self._inbox.append(frame)
        self.wake()

    def credited(self, size: int) -> None:
        self._holding = False
        super().credited(size)

    async def next(self) -> AnyFrame | None:
        """The next frame; None when the client has left."""
        while True:
            if self._client_gone:
                return None
            if self._inbox:
                frame: AnyFrame = self._inbox.popleft()
                if type(frame) is Refused:
                    raise StreamRefused("the replica is full" if not frame.closing else "the replica is closing")
                return frame
            if self._failure is not None:
                raise self._failure
            if self.gone:
                raise StreamLost(self.started)
            if self.over:
                raise StreamCut(self.started)
            self._parked = running()
            if self._parked is None:
                await self.wait()
            else:
                await park()

    def wake(self) -> None:
        parked = self._parked
        if parked is not None:
            self._parked = None
            parked.resume()
        else:
            super().wake()

    def park(self, parked: Parked) -> None:
        """Have it go on when something comes; at once, where it has."""
        self._parked = parked
        if self._inbox or self.over or self.gone:
            self.wake()

    def park_until_body(self, parked: Parked) -> bool:
        """Have it go on with the first piece of the body, if the replica has sent that right behind the head, which is there."""
        inbox = self._inbox
        if len(inbox) != 1 or type(inbox[0]) is not Reply or not inbox[0].follows or self.over or self.gone:
            return False
        self._parked = parked
        return True

    def take_whole_answer(self) -> tuple[Reply, bytes | memoryview] | None:
        """The answer and its body, if they are there in whole and alone; nothing is missing then."""
        inbox = self._inbox
        count = len(inbox)
        if not 1 <= count <= 2 or type(inbox[0]) is not Reply or self._failure is not None:
            return None
        reply: Reply = inbox[0]
        body: bytes | memoryview = reply.body
        more = reply.more
        if count == 2:
            piece = inbox[1]
            if type(piece) is not Body or body:
                return None
            body, more = piece.data, piece.more
        if more or reply.trailers or reply.session:
            return None
        inbox.clear()
        self.started = self.answered = True
        return reply, body

    def end(self) -> None:
        """Nothing comes after what has come."""
        self.over = True
        if not self._call_over:
            self.wake()

    def fail(self, error: Exception) -> None:
        """The call cannot go on."""
        self._failure = error
        self.leave()

    # from the client

    def client_left(self) -> None:
        """Nobody waits for the answer."""
        self._client_gone = True
        self.wake()

    def watch(self) -> None:
        """The answer takes its time: listen whether the client is still there."""
        if not self._call_over and self._pump is None:
            self._pump = self.connection.loop.create_task(self._pump_body(None, False))

    def begin_http(self, scope: dict[str, Any], receive: Any, mode: BodyMode, body: bytes, more: bool) -> None:
        """Send the head and, if it is there already, the first piece of the body; see to the rest."""
        self._receive = receive
        self._holding = mode is BodyMode.HOLD
        rest: bytes | None = None
        if len(body) > self.connection.limits.inline_bytes:
            body, rest = b"", body
        ends = not more and rest is None
        self.begin(scope, body, ends=ends, body_follows=rest is not None)
        if not ends:
            self._pump = self._start_pump(self._pump_body(rest, more))
        elif running() is None:  # who runs a strand cancels it when its client leaves
            self.connection.watch_later(self)

    def begin(self, scope: dict[str, Any], body: bytes, *, ends: bool, body_follows: bool) -> None:
        """Send the head, with a small body or its first piece."""
        connection = self.connection
        if body or ends:  # it goes with the head, whatever else waits for its turn
            self._credit -= len(body) + PIECE_COST
            connection.count(len(body))
        first = as_open(scope, self.number, body, not ends, self._holding, connection.takes_generation)
        first.files = connection.peer is not None
        connection.begin(self, first, body_follows)

    def begin_large(self, scope: dict[str, Any], body: bytes) -> None:
        """Send the head, and right behind it the body, which is one piece."""
        connection = self.connection
        self.begin(scope, b"", ends=False, body_follows=True)
        self._credit -= len(body) + PIECE_COST
        connection.count(len(body))
        self.send_piece(body, False)
        if connection.is_alone:
            connection.flush()

    async def _pump_body(self, rest: bytes | None, more: bool) -> None:
        try:
            if rest is not None:
                await self.send_body(rest, more)
            while more:
                await self.may_pull()
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    return self.client_left()
                body, more = _body_of(message), bool(message.get("more_body", False))
                if self.spend(len(body), self.connection.limits.piece_bytes):
                    self.send_piece(body, more)
                else:
                    await self.send_body(body, more)
            for _ in range(2):  # where there is no body, the message that says so was not taken yet
                if (await self._receive())["type"] == "http.disconnect":
                    return self.client_left()
        except Exception as error:  # noqa: BLE001 the client's side failed: the call raises it, where someone is listening
            self.fail(error)

    async def may_pull(self) -> None:
        """Until the replica has use for more: what was not pulled yet stays with the client."""
        while self._holding and not self.gone:
            await self._credit_changed()
        await self._may_send(self.connection.limits.piece_bytes + PIECE_COST)
        self.connection.next_turns()  # the client may take its time: whoever has something to send goes first

    async def open_file(self, frame: File) -> LentFile | None:
        """The file that is the answer's body; None if it has to come in Body frames."""
        pid = self.connection.peer
        if pid is None:
            raise StreamCut(self.started)
        try:
            file: LentFile = await open_in_thread(lambda: LentFile(pid, frame))
        except OSError as error:
            log.warning("a file of the replica cannot be opened, it sends it: %s", error)
            self.connection.queue(Opened(self.number, False))
            return None
        self.connection.queue(Opened(self.number, True))
        self.answered = True
        return file

    def begin_websocket(self, scope: dict[str, Any], receive: Any) -> None:
        """Send the handshake on, and from then on what the client sends."""
        self._receive = receive
        self.connection.begin(self, as_open(scope, self.number, b"", False, False, self.connection.takes_generation))
        self._pump = self._start_pump(self._pump_messages())

    def _start_pump(self, pump: Coroutine[Any, Any, None]) -> asyncio.Task[None] | Strand:
        if running() is None:
            return self.connection.loop.create_task(pump)
        strand = Strand(self.connection.loop, pump, set())
        strand.start()
        return strand

    async def _pump_messages(self) -> None:
        try:
            while True:
                if self.must_wait:
                    await self.may_pull()
                message = await self._receive()
                kind = message["type"]
                if kind == "websocket.receive":
                    await self._send_message(message)
                elif kind == "websocket.disconnect":
                    return self._send_disconnect(message.get("code"), message.get("reason"))
        except Exception as error:  # noqa: BLE001 as in _pump_body
            self.fail(error)

    async def _send_message(self, message: dict[str, Any]) -> None:
        data, text = message.get("bytes"), False
        if data is None:
            data, text = message["text"].encode(), True
        if len(data) > self.connection.limits.max_message_bytes:
            self._send_disconnect(TOO_BIG, "message too big")
        elif self.spend(len(data), self.connection.limits.inline_bytes):
            self.connection.queue(Message(self.number, data, text), self.connection.is_alone)
        else:
            await self.send_message(data, text)

    def _send_disconnect(self, code: int | None, reason: str | None) -> None:
        code = code if code is not None and 1000 <= code <= 4999 else NO_STATUS
        if not self.over:
            self.connection.queue(Close(self.number, code, reason or ""))
        self.answered = True
        self.client_left()

    # the end

    def leave_call(self) -> bool:
        """The call is over. Whether the stream is over with it: the replica has never heard of it."""
        self._call_over = True
        if self._pump is not None:
            self._pump.cancel()
        self._inbox.clear()
        if self.opened and not self.over and not self.answered and not self.gone:
            self.connection.queue(Cancel(self.number))
        return not self.opened


def _body_of(message: dict[str, Any]) -> bytes | memoryview:
    """What nobody can change before it is sent."""
    body = message.get("body", b"")
    return body if LENT in message else as_bytes(body)
