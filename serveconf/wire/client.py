"""The proxy's side: one connection to one replica, on which requests are ASGI applications' calls.

``WireClient`` is the connection. ``requests.py`` runs one request on it, ``client_stream.py`` is its stream.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterator
from typing import Any

from serveconf.errors import OperatorError
from serveconf.wire.client_stream import ClientStream, StreamCut, StreamRefused
from serveconf.wire.connection import Connection
from serveconf.wire.frames import (
    DEFAULT_LIMITS,
    AnyFrame,
    Body,
    Broken,
    Cancel,
    Credit,
    End,
    FrameTooLarge,
    Free,
    Limits,
    Memory,
    Models,
    Open,
    Refused,
    Reply,
    Room,
    StreamError,
)
from serveconf.wire.handshake import TAKES_GENERATION_FROM, TAKES_MEMORY_FROM, ClientHandshake
from serveconf.wire.lent import peer_with_files
from serveconf.wire.node_tls import NodeTls
from serveconf.wire.opening import BodyMode, body_mode
from serveconf.wire.requests import CLIENT_LEFT, begin_http, finish_http, run_websocket

log = logging.getLogger("serveconf.wire")

WATCH_AFTER_S = 0.05  # an answer that takes longer has its client watched; most need no such task


def _context(tls: NodeTls | None, address: str) -> ssl.SSLContext:
    if tls is None:
        raise ConnectionRefusedError(f"{address} wants TLS, and RAY_USE_TLS is not set here")
    try:
        return tls.client()
    except OperatorError as error:  # files that do not fit each other yet, say: to be tried again
        raise ConnectionError(error.message) from error


class WireClient(Connection):
    """One connection to one replica. It is an ASGI application: a call is a stream.

    ``open`` says whether it takes streams; ``ongoing`` counts those of this connection whose handler has not ended;
    ``load`` is that of the whole replica, as far as it is known. ``on_close`` is called once when the connection is
    gone, ``on_room`` whenever a stream has ended or the replica has room again.
    """

    def __init__(self, secret: bytes, limits: Limits) -> None:
        super().__init__(ClientHandshake(secret), limits)
        self.open = False
        self.closed = False
        self.takes_generation = False  # the number of the table that a request came by
        self.full = False  # the replica has refused a stream, and has not said that there is room again
        self.ongoing = 0
        self.peer: int | None = None  # the replica's process, where its files can be opened from here
        self.replica = ""  # who is at the other end, for whoever asks later where a request has been
        self.models: set[bytes] | None = None  # that the replica has; None: requests do not ask it for any
        self.on_models: Callable[[], None] | None = None  # called once, when it is known that requests do
        self.on_close: Callable[[], None] | None = None
        self.on_room: Callable[[], None] | None = None
        self._retiring = False
        self._others = 0
        self._newest = 0
        self._streams: dict[int, ClientStream] = {}
        self._unwatched: list[ClientStream] = []
        self._shaken: asyncio.Future[None] = self.loop.create_future()
        self._gone: asyncio.Event = asyncio.Event()

    @classmethod
    async def connect(
        cls,
        address: str,
        *,
        secret: bytes,
        limits: Limits = DEFAULT_LIMITS,
        timeout_s: float = 5.0,
        tls: NodeTls | None = None,
    ) -> WireClient:
        """Connect to ``unix:/path``, ``tcp:host:port``, or with ``tls`` to ``tls:host:port``. OSError (TimeoutError and
        SSLError are such) when that fails."""
        loop = asyncio.get_running_loop()
        kind, _, where = address.partition(":")
        async with asyncio.timeout(timeout_s):
            if kind == "unix":
                _, client = await loop.create_unix_connection(lambda: cls(secret, limits), where)
            elif kind in ("tcp", "tls"):
                host, _, port = where.rpartition(":")
                context = _context(tls, address) if kind == "tls" else None
                _, client = await loop.create_connection(
                    lambda: cls(secret, limits), host.strip("[]"), int(port), ssl=context
                )
            else:
                raise ValueError(f"not an address of a replica: {address}")
            try:
                await client._shaken
            except BaseException:  # a cancel too: no connection stays open that nobody has
                client.abort()
                raise
        return client

    @property
    def load(self) -> int:
        """How many streams the replica handles, as far as this side knows."""
        return self._others + self.ongoing

    async def __call__(self, scope: Any, receive: Any, send: Any, mode: BodyMode | None = None) -> int:
        """Run one request on the replica; the status that was sent.

        StreamRefused when the replica did not take it, StreamLost when the connection died before it was answered in
        full. When the client leaves, or when this call is cancelled, the replica's handler is cancelled. ``mode`` is
        for a caller that has asked ``body_mode`` already.
        """
        if not self.open:
            raise StreamRefused("the connection takes no more requests")
        stream = self._new_stream()
        try:
            if scope["type"] != "http":
                return await run_websocket(stream, scope, receive, send)
            if await begin_http(stream, scope, receive, mode or body_mode(scope)):
                return await finish_http(stream, scope, send)
            return CLIENT_LEFT
        finally:
            self.leave(stream)

    def takes_whole(self, size: int) -> bool:
        """Whether a request with a body of ``size`` bytes can be sent whole, and now."""
        limits = self.limits
        return size <= limits.inline_bytes or (size <= limits.piece_bytes and not self.clogged)

    def begin_whole(self, scope: Any, body: bytes) -> ClientStream:
        """Send a request whose body is there, and which ``takes_whole`` has said yes to.

        Who calls this calls ``leave`` when the answer was taken, or ``finish``.
        """
        stream = self._new_stream()
        try:
            if len(body) <= self.limits.inline_bytes:
                stream.begin(scope, body, ends=True, body_follows=False)
            else:
                stream.begin_large(scope, body)
        except BaseException:  # whatever it is, no stream stays that nobody ends
            self.leave(stream)
            raise
        return stream

    async def finish(self, stream: ClientStream, scope: Any, send: Any) -> int:
        """Wait for the answer of a request that was begun, as a call does."""
        try:
            return await finish_http(stream, scope, send)
        finally:
            self.leave(stream)

    def _new_stream(self) -> ClientStream:
        self.ongoing += 1
        self._newest = number = self._newest + 1
        stream = self._streams[number] = ClientStream(self, number)
        return stream

    async def retire(self) -> None:
        """Take no more streams; returns when the last one has ended and the connection is closed."""
        self.retire_soon()
        await self._gone.wait()

    def retire_soon(self) -> None:
        """As ``retire``, without waiting."""
        self._retiring = True
        self.open = False
        if not self._streams:
            self.close()

    # streams

    @property
    def is_alone(self) -> bool:
        return self.ongoing == 1

    def begin(self, stream: ClientStream, first: Open, body_follows: bool = False) -> None:
        """Send the request's first frame; ``body_follows`` in this turn."""
        stream.opened = True
        self.queue(first, self.ongoing == 1 and not body_follows)

    def watch_later(self, stream: ClientStream) -> None:
        """Watch the client of this stream if the answer is not there within ``WATCH_AFTER_S``."""
        if not self._unwatched:
            self.loop.call_later(WATCH_AFTER_S, self._watch)
        self._unwatched.append(stream)

    def _watch(self) -> None:
        streams, self._unwatched = self._unwatched, []
        for stream in streams:
            stream.watch()

    def leave(self, stream: ClientStream) -> None:
        """The call is over; the stream ends when the replica says so, or never began."""
        if stream.leave_call() or self.lost:
            self._end(stream)

    def _end(self, stream: ClientStream) -> None:
        if self._streams.pop(stream.number, None) is None:
            return
        self.ongoing -= 1
        self.full = False
        stream.end()
        if self._retiring and not self._streams:
            self.close()
        elif self.on_room is not None:
            self.on_room()

    # Connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.peer = peer_with_files(transport.get_extra_info("socket"))

    def ready(self) -> None:
        self.open = True
        self.lane.is_understood = self._handshake.version >= TAKES_MEMORY_FROM
        self.takes_generation = self._handshake.version >= TAKES_GENERATION_FROM
        if not self._shaken.done():
            self._shaken.set_result(None)

    def frames_received(self, frames: Iterator[AnyFrame | Broken]) -> None:
        for frame in frames:
            kind = type(frame)
            if kind is Room:
                self._has_room(frame)  # type: ignore[arg-type]
                continue
            if kind is Memory or kind is Free:
                self.lane_heard(frame)  # type: ignore[arg-type]
                continue
            if kind is Models:
                self._note_models(frame)  # type: ignore[arg-type]
                continue
            stream = self._streams.get(frame.stream)
            if stream is None:
                if frame.stream > self._newest:  # as where its Open could not be sent
                    log.warning("%s for stream %s, which was never opened", kind.__name__, frame.stream)
            elif kind is Broken:
                raise StreamError(frame.stream, frame.why)  # type: ignore[union-attr]
            elif kind is Reply or kind is Body:
                stream.arrived(frame)  # type: ignore[arg-type]
                if frame.done:  # type: ignore[union-attr]
                    self._others = frame.others  # type: ignore[union-attr]
                    self._end(stream)
            elif kind is Credit:
                stream.credited(frame.size)  # type: ignore[union-attr]
            elif kind is End:
                self._others = frame.others  # type: ignore[union-attr]
                stream.arrived(frame)  # type: ignore[arg-type]
                self._end(stream)
            elif kind is Refused:
                self._refused(stream, frame)  # type: ignore[arg-type]
            else:
                stream.arrived(frame)  # type: ignore[arg-type]

    def stream_failed(self, stream: int) -> None:
        failed = self._streams.get(stream)
        if failed is not None and not failed.gone:
            failed.fail(StreamCut(failed.started))
            self.queue(Cancel(stream))

    def _refused(self, stream: ClientStream, frame: Refused) -> None:
        self._others = frame.others
        stream.arrived(frame)
        self._end(stream)
        self.full = True
        if frame.closing:
            self.open = False

    def _has_room(self, frame: Room) -> None:
        self._others = frame.others
        self.full = False
        if self.on_room is not None:
            self.on_room()

    def _note_models(self, frame: Models) -> None:
        is_first = self.models is None
        models = self.models = self.models or set()
        models.difference_update(frame.gone)
        models.update(frame.here)
        if is_first and self.on_models is not None:
            self.on_models()

    def frame_unsendable(self, frame: AnyFrame, error: Exception) -> None:
        log.warning("request given up: its %s cannot be sent: %s", type(frame).__name__, error)
        stream = self._streams.get(frame.stream)
        if stream is not None and isinstance(frame, Open):
            stream.fail(error if isinstance(error, FrameTooLarge) else StreamCut(response_started=False))
            self._end(stream)
        else:
            self.stream_failed(frame.stream)

    def disconnected(self, error: Exception | None) -> None:
        self.closed = True
        self.open = False
        if not self._shaken.done():
            self._shaken.set_exception(error or ConnectionRefusedError("the replica closed the connection"))
        for stream in list(self._streams.values()):
            stream.leave()
        self._streams.clear()
        self.ongoing = 0
        self._gone.set()
        if self.on_close is not None:
            self.on_close()
