"""WebSockets: uvicorn's own protocol, with what the edge adds: its counts, its request id, an end when it drains.

The HTTP protocol has checked the handshake and hands it over with the connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from time import monotonic
from typing import Any

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from serveconf.proxy.edge import Edge
from serveconf.proxy.rules import HOP_BY_HOP
from serveconf.proxy.tally import CLIENT_LEFT, TRAIL, Reason, Trail
from serveconf.wire import Strand, park, running

SERVICE_RESTART = 1012
GOING_AWAY = 1001
INVALID_TEXT = 1007


async def _no_app(scope: Any, receive: Any, send: Any) -> None:
    """The config wants one; each protocol is given its own."""


def make_config() -> Config:
    """uvicorn's settings for WebSockets: its defaults, and nothing that touches the process."""
    config = Config(_no_app, log_config=None, lifespan="off", interface="asgi3", proxy_headers=False)
    config.load()
    return config


class Inbox:
    """What the client has sent, as far as uvicorn uses ``asyncio.Queue``; a strand that waits is woken in place."""

    def __init__(self) -> None:
        self._events: deque[Any] = deque()
        self._strand: Strand | None = None
        self._readers: list[asyncio.Future[None]] = []

    def empty(self) -> bool:
        """Whether everything was taken."""
        return not self._events

    def put_nowait(self, event: Any) -> None:
        """Something came; whoever waits for it goes on."""
        self._events.append(event)
        strand, self._strand = self._strand, None
        if strand is not None:
            if event["type"] == "websocket.receive":
                strand.resume()
            else:  # uvicorn tells of an end before it has written its own last words
                asyncio.get_running_loop().call_soon(strand.resume)
        for reader in self._readers:
            if not reader.done():
                reader.set_result(None)

    async def get(self) -> Any:
        """The next event."""
        while not self._events:
            self._strand = running()
            if self._strand is not None:
                await park()
                continue
            reader = asyncio.get_running_loop().create_future()
            self._readers.append(reader)
            try:
                await reader
            finally:
                self._readers.remove(reader)
        return self._events.popleft()


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket of a client."""

    def __init__(self, edge: Edge, loop: asyncio.AbstractEventLoop, config: Config, app: ASGIApp) -> None:
        state = ServerState()
        state.connections = edge.websockets  # type: ignore[assignment]
        state.tasks = edge.tasks
        super().__init__(config=config, server_state=state, app_state={}, _loop=loop)
        self.app: Any = app
        self.queue: Any = Inbox()
        self._edge = edge
        self._trail = Trail(monotonic())
        self._status: int | None = None  # of the answer to the handshake

    def send(self, event: Any) -> Coroutine[Any, Any, None]:
        """As uvicorn's; the first event answers the handshake."""
        if self._status is None:
            kinds = {"websocket.accept": 101, "websocket.http.response.start": event.get("status", 500)}
            self._answered(kinds.get(event["type"], 403))
        return super().send(event)

    def _answered(self, status: int) -> None:
        self._status = status
        self._edge.tally.shook_hands(self.scope, self._trail, status)

    def send_receive_event_to_app(self) -> None:
        """As uvicorn's, but go on reading where the message is taken at once: pausing for each costs two system calls."""
        data, self.frames = b"".join(self.frames), []
        if self.close_sent:
            return  # the app has closed it and takes no more; reading goes on until the client has closed too
        event: dict[str, Any] = {"type": "websocket.receive", "bytes": data}
        if self.curr_msg_data_type == "text":
            try:
                event = {"type": "websocket.receive", "text": data.decode()}
            except UnicodeDecodeError:
                self.conn.send_close(INVALID_TEXT)
                self.handle_parser_exception()
                return
        self.queue.put_nowait(event)
        if not self.queue.empty() and not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    async def run_asgi(self) -> None:
        """Run in place, as requests are, from within the task that uvicorn makes."""
        ended = self.loop.create_future()

        async def run() -> None:
            try:
                await self._run_counted()
            finally:
                ended.set_result(None)

        strand = Strand(self.loop, run(), self.tasks)
        strand.start()
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            strand.cancel()
            raise

    async def _run_counted(self) -> None:
        """Call the app, counted as one request and, while it lasts, as a stream."""
        tally = self._edge.tally
        headers = self.scope["headers"]
        request_id = [field for field in headers if field[0] == b"x-request-id"]
        self.default_headers = [_as_field(self._edge.date_line), *request_id]
        self.scope["headers"] = [field for field in headers if field[0] not in HOP_BY_HOP]
        self._trail = Trail(monotonic(), request_id[0][1] if request_id else b"")
        scope: Any = self.scope
        scope[TRAIL] = self._trail
        tally.requests += 1
        tally.open_streams += 1
        try:
            await super().run_asgi()
        finally:
            tally.open_streams -= 1
            closed = self.conn.close_sent
            if closed is not None and closed.code in (SERVICE_RESTART, GOING_AWAY):
                tally.streams_closed += 1
            if self.response.status_code >= 500 or (self.initial_response and self.initial_response[0] >= 500):
                tally.failed += 1
            if self._status is None:
                self._trail.reason = self._trail.reason or (Reason.CLIENT_LEFT if self.disconnected else Reason.FAILED)
                self._answered(CLIENT_LEFT if self.disconnected else 500)
            tally.hung_up(self.scope, self._trail, self._status or CLIENT_LEFT)

    def sweep(self, now: float) -> None:
        """uvicorn's keep-alive pings watch over the client."""

    def drain(self, code: int = SERVICE_RESTART, /) -> None:
        """Tell the client to connect anew (1012), or that nobody will be there (1001)."""
        if not self.handshake_complete or self.close_sent or self.transport.is_closing():
            self.shutdown()
            return
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code})
        self.conn.send_close(code)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()


def _as_field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.strip().partition(b": ")
    return name, value
