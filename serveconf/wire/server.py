"""The replica's side: listens for proxies, and runs the application on every stream that they open.

Whoever runs a replica makes one ``WireServer`` on the application's own event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from serveconf.wire.connection import Connection
from serveconf.wire.frames import (
    DEFAULT_LIMITS,
    AnyFrame,
    Broken,
    Cancel,
    Credit,
    Cut,
    End,
    Free,
    Limits,
    Memory,
    Open,
    ProtocolError,
    Refused,
    Room,
    StreamError,
)
from serveconf.wire.handlers import Handler, HttpHandler
from serveconf.wire.handshake import ServerHandshake
from serveconf.wire.held import TELLS_MODELS_FROM, HeldModels
from serveconf.wire.node_tls import NodeTls
from serveconf.wire.polling import make_poll
from serveconf.wire.websockets import WebSocketHandler

log = logging.getLogger("serveconf.wire")

App = Callable[
    [dict[str, Any], Callable[[], Awaitable[dict[str, Any]]], Callable[[dict[str, Any]], Awaitable[None]]],
    Awaitable[Any],
]


class WireServer:
    """Serves one ASGI application to the proxies that know the secret.

    ``max_ongoing`` streams are handled at a time, over all connections; more are refused in band. ``state`` is what the
    application's lifespan left: every scope gets a shallow copy. ``ongoing`` counts the handlers that have not ended.
    ``offers_files``: the application may answer with ``http.response.pathsend`` where the proxy can open the file.
    ``models``: those that the application has, for those who send it requests.
    """

    def __init__(
        self,
        app: Any,
        *,
        secret: bytes,
        max_ongoing: int,
        limits: Limits = DEFAULT_LIMITS,
        state: dict[str, Any] | None = None,
        offers_files: bool = False,
        models: HeldModels | None = None,
    ) -> None:
        self.app: App = app
        self.offers_files = offers_files
        self.max_ongoing = max_ongoing
        self.limits = limits
        self.state = {} if state is None else state
        self.ongoing = 0
        self.busy_poll = make_poll()
        self.closing = False  # nothing is taken any more
        self.models = models or HeldModels()
        self._secret = secret
        self._listeners: list[asyncio.Server] = []
        self._connections: set[ServerConnection] = set()
        self._turned_away: set[ServerConnection] = set()  # told of it when there is room again
        self._handlers: set[Handler] = set()
        self._changed = asyncio.Event()

    async def listen_unix(self, path: str) -> None:
        """Listen on a unix socket that only this user may open; a stale one in its place is removed."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        sock = socket.socket(socket.AF_UNIX)
        try:
            before = os.umask(0o177)  # of the whole process: nothing is awaited while it holds
            try:
                sock.bind(path)
            finally:
                os.umask(before)
            os.chmod(path, 0o600)
            listener = await asyncio.get_running_loop().create_unix_server(self._connection, sock=sock)
        except BaseException:  # a cancel too: nobody else knows the socket
            sock.close()
            raise
        self._listeners.append(listener)

    async def listen_tcp(self, host: str, port: int = 0, tls: NodeTls | None = None) -> tuple[str, int]:
        """Listen for proxies on other nodes; the address that it listens on. ``tls``: who comes has a certificate, too."""
        context = tls.server() if tls is not None else None
        listener = await asyncio.get_running_loop().create_server(self._connection, host, port, ssl=context)
        self._listeners.append(listener)
        address = listener.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    async def drain(self, timeout_s: float) -> bool:
        """Finish what is there and what still comes, until every proxy has left; True if all ended by itself.

        Past ``timeout_s`` nothing more is taken, WebSockets are closed with 1012, and http answers are cut.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._quiet()
        except TimeoutError:
            self.closing = True
            for handler in list(self._handlers):
                handler.give_up()
            return False
        return True

    async def close(self) -> None:
        """Stop listening, drop every connection, cancel every handler, and wait until they have ended."""
        self.closing = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.close()
        await asyncio.sleep(
            0
        )  # who was taken just now begins: a task that is cancelled before that never ends its handler
        for handler in list(self._handlers):
            handler.cancel()
        await self._quiet()

    async def _quiet(self) -> None:
        while self._handlers or self._connections:
            self._changed.clear()
            await self._changed.wait()

    def _connection(self) -> ServerConnection:
        return ServerConnection(self, ServerHandshake(self._secret))

    # called by the connections

    def joined(self, connection: ServerConnection) -> None:
        """A proxy has connected."""
        self._connections.add(connection)

    def parted(self, connection: ServerConnection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self._turned_away.discard(connection)
        self.models.parted(connection)
        self._changed.set()

    def began(self, handler: Handler) -> None:
        """A stream was taken."""
        self._handlers.add(handler)
        self.ongoing += 1

    def ended(self, handler: Handler) -> None:
        """Its handler has ended."""
        self._handlers.discard(handler)
        self.ongoing -= 1
        if self._turned_away and not self.closing:
            for connection in self._turned_away:
                connection.queue(Room(1, connection.others))
            self._turned_away.clear()
        if not self._handlers:
            self._changed.set()

    def turned_away(self, connection: ServerConnection) -> None:
        """A stream of this connection was refused."""
        self._turned_away.add(connection)


class ServerConnection(Connection):
    """One proxy's connection."""

    def __init__(self, server: WireServer, handshake: ServerHandshake) -> None:
        super().__init__(handshake, server.limits)
        self.server = server
        self._handlers: dict[int, Handler] = {}
        self._newest = 0

    @property
    def others(self) -> int:
        """How many streams of other connections the replica handles."""
        return self.server.ongoing - len(self._handlers)

    @property
    def is_alone(self) -> bool:
        return len(self._handlers) == 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.server.joined(self)

    def ready(self) -> None:
        if self._handshake.version >= TELLS_MODELS_FROM:
            self.server.models.joined(self)

    def frames_received(self, frames: Iterator[AnyFrame | Broken]) -> None:
        poll = self.server.busy_poll
        for frame in frames:
            kind = type(frame)
            if kind is Open:
                poll.asked()
                self._open(frame)  # type: ignore[arg-type]
                continue
            if kind is Free or kind is Memory:
                self.lane_heard(frame)  # type: ignore[arg-type]
                continue
            if kind is Broken:
                raise StreamError(frame.stream, frame.why)  # type: ignore[union-attr]
            handler = self._handlers.get(frame.stream)
            if handler is None:
                if frame.stream > self._newest:  # as where its Open could not be sent
                    log.warning("%s for stream %s, which was never opened", kind.__name__, frame.stream)
            elif kind is Credit:
                handler.credited(frame.size)  # type: ignore[union-attr]
            elif kind is Cancel:
                handler.client_left()
            elif not handler.gone:
                poll.asked()
                handler.frame_received(frame)  # type: ignore[arg-type]

    def stream_failed(self, stream: int) -> None:
        handler = self._handlers.get(stream)
        if handler is not None:
            handler.give_up()
        elif stream > self._newest:  # it could not begin
            self._newest = stream
            self._end_unbegun(stream)

    def _end_unbegun(self, stream: int) -> None:
        self.queue(Cut(stream))
        self.queue(End(stream, self.others))

    def _open(self, first: Open) -> None:
        number = first.stream
        if number <= self._newest:
            raise ProtocolError(f"stream {number} was opened before")
        self._newest = number
        server = self.server
        if server.closing or len(self._handlers) >= self.limits.max_streams or server.ongoing >= server.max_ongoing:
            self.queue(Refused(number, server.closing, self.others))
            server.turned_away(self)
            return
        try:
            handler = WebSocketHandler(self, first) if first.websocket else HttpHandler(self, first)
        except ProtocolError as error:
            log.warning("stream %s could not begin: %s", number, error)
            self._end_unbegun(number)
            return
        self._handlers[number] = handler
        server.began(handler)
        handler.start()

    def ended(self, handler: Handler) -> None:
        """The handler's coroutine has ended."""
        del self._handlers[handler.number]
        self.server.ended(handler)
        if not self.lost:
            handler.last_words()
            if not self._handlers:
                self.flush()  # nobody is left who could add to this turn
            if not self.server.ongoing:
                self.server.busy_poll.answered(self.loop)

    def frame_unsendable(self, frame: AnyFrame, error: Exception) -> None:
        log.error("response cut: its %s cannot be sent: %s", type(frame).__name__, error)
        handler = self._handlers.get(frame.stream)
        if handler is not None:
            handler.give_up()

    def disconnected(self, error: Exception | None) -> None:
        self.server.parted(self)
        for handler in list(self._handlers.values()):
            handler.client_left()
