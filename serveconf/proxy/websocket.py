"""WebSockets: uvicorn's own protocol, with what the edge adds: its counts, its request id, an end when it drains.

The HTTP protocol has checked the handshake and hands it over with the connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Generator
from time import monotonic
from typing import Any, Literal

from starlette.types import ASGIApp, Scope
from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.frames import Frame
from websockets.http11 import Request, Response
from websockets.protocol import Protocol
from websockets.server import ServerProtocol

from serveconf.proxy.clocks import PING_S, Stall, Wait, seconds_for, taken_by
from serveconf.proxy.edge import Edge
from serveconf.proxy.rules import check_fields
from serveconf.proxy.tally import CLIENT_LEFT, TRAIL, Reason, Trail
from serveconf.wire import Strand, checked_close, checked_subprotocol, park, running

SERVICE_RESTART = 1012
GOING_AWAY = 1001
ABNORMAL = 1006
INVALID_TEXT = 1007
TOO_BIG = 1009

LINGER_S = 1.0  # a client that has been failed may go on sending for so long
QUIET_S = 0.1  # ... and has stopped when nothing has come for so long


async def _no_app(scope: Any, receive: Any, send: Any) -> None:
    """The config wants one; each protocol is given its own."""


def make_config() -> Config:
    """uvicorn's settings for WebSockets: its defaults, and nothing that touches the process."""
    config = Config(
        _no_app,
        log_config=None,
        lifespan="off",
        interface="asgi3",
        proxy_headers=False,
        ws_ping_interval=PING_S,
        ws_ping_timeout=PING_S,
    )
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


class Opened(ServerProtocol):
    """A WebSocket whose handshake was parsed and checked before: what comes is frames from the first byte on."""

    def parse(self) -> Generator[None]:
        return Protocol.parse(self)


def make_handshake(scope: Scope) -> Request:
    """What ``websockets`` decides on, of a request that the edge has checked; its own limits have no say in the rest."""
    headers = Headers(Connection="Upgrade", Upgrade="websocket")
    for name, value in scope["headers"]:
        if name.startswith(b"sec-websocket-"):
            headers[name.decode("ascii")] = value.decode("latin-1")
    return Request(path="/", headers=headers)


def as_websocket(scope: Scope) -> Scope:
    """The scope of a WebSocket, from that of its handshake."""
    offered = b",".join(value for name, value in scope["headers"] if name == b"sec-websocket-protocol")
    scope = {key: value for key, value in scope.items() if key != "method"}
    scope.update(
        type="websocket",
        asgi={"version": "3.0", "spec_version": "2.4"},
        scheme="wss" if scope["scheme"] == "https" else "ws",
        subprotocols=[token.strip() for token in offered.decode("latin-1").split(",")] if offered else [],
        extensions={"websocket.http.response": {}},
    )
    return scope


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket of a client. ``scope`` is that of the handshake."""

    def __init__(
        self, edge: Edge, loop: asyncio.AbstractEventLoop, config: Config, app: ASGIApp, scope: dict[str, Any]
    ) -> None:
        state = ServerState()
        state.connections = edge.websockets  # type: ignore[assignment]
        state.tasks = edge.tasks
        super().__init__(config=config, server_state=state, app_state={}, _loop=loop)
        limits = edge.limits
        self.conn = Opened(
            extensions=self.conn.available_extensions, max_size=limits.max_message_bytes, logger=self.logger
        )
        self.app: Any = app
        self.queue: Any = Inbox()
        self._edge = edge
        self._handshake = scope
        self._early = bytearray()  # what comes before the handshake is answered
        self._begun: bytearray | None = None  # a message that came in part
        self._fragments = 0
        self._opened_at = monotonic()
        self._taken = Stall()
        self._lingers_until: float | None = None  # its last word is said, and what still comes is dropped
        self._trail = Trail(monotonic())
        self._status: int | None = None  # of the answer to the handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake came with it."""
        super().connection_made(transport)
        self.response = self.conn.accept(make_handshake(self._handshake))
        if self.response.status_code != 101:
            self._edge.tally.refuse(self.client, self.response.status_code, len(self.response.body))
            self._deny(self.response)
            return
        self.handshake_initiated = True
        self.scope: Any = as_websocket(self._handshake)
        self.queue.put_nowait({"type": "websocket.connect"})
        task = self.loop.create_task(self.run_asgi())
        task.add_done_callback(self.on_task_complete)
        self.tasks.add(task)

    def _deny(self, response: Response) -> None:
        self.handshake_complete = self.close_sent = True
        self.conn.send_response(response)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()

    # Reading

    def data_received(self, data: bytes) -> None:
        """Frames, but not before the handshake is answered: a pong would else come before that."""
        if self._lingers_until is not None:
            self._linger()
        elif self.handshake_complete:
            super().data_received(data)
        else:
            self._early += data
            self._control_reading()

    def start_keepalive(self) -> None:
        """The handshake is answered."""
        super().start_keepalive()
        early, self._early = bytes(self._early), bytearray()
        if early:
            self._control_reading()
            super().data_received(early)

    def _control_reading(self) -> None:
        """Read while the app takes what comes, and the client what it is sent: else pongs would pile up."""
        if self.transport.is_closing() or self._lingers_until is not None:
            return
        if self.read_paused or not self.writable.is_set() or len(self._early) > self._edge.limits.max_unread_bytes:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        """The client takes nothing."""
        super().pause_writing()
        self._control_reading()

    def resume_writing(self) -> None:
        """It takes again."""
        super().resume_writing()
        self._control_reading()

    async def receive(self) -> Any:
        """The next event, and the client is read from again when it was the last."""
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self._control_reading()
        return message

    def handle_text(self, event: Frame) -> None:
        """A text message, or its first fragment."""
        self._begin("text", event)

    def handle_bytes(self, event: Frame) -> None:
        """A binary message, or its first fragment."""
        self._begin("bytes", event)

    def _begin(self, kind: Literal["text", "bytes"], event: Frame) -> None:
        self.curr_msg_data_type = kind
        if event.fin:
            self._hand_on(event.data)
        else:
            self._begun, self._fragments = bytearray(event.data), 1

    def handle_cont(self, event: Frame) -> None:
        """A further fragment, joined at once: kept one by one, small ones cost many times their size."""
        begun = self._begun
        if begun is None:
            return  # of a message that was too much
        begun += event.data
        self._fragments += 1
        if event.fin:
            self._begun = None
            self._hand_on(begun)
        elif self._fragments > self._edge.limits.max_fragments:
            self._begun = None
            self._fail(TOO_BIG, "too many fragments")

    def _hand_on(self, data: bytes | bytearray | memoryview) -> None:
        """As uvicorn does, but go on reading where the message is taken at once: pausing for each costs two system calls."""
        if self.close_sent:
            return  # the app has closed it and takes no more; reading goes on until the client has closed too
        event: dict[str, Any] = {"type": "websocket.receive"}
        if self.curr_msg_data_type == "text":
            try:
                event["text"] = str(data, "utf-8")
            except UnicodeDecodeError:
                self._fail(INVALID_TEXT, "")
                return
        else:
            event["bytes"] = bytes(data)
        self.queue.put_nowait(event)
        if not self.queue.empty() and not self.read_paused:
            self.read_paused = True
            self._control_reading()

    def handle_parser_exception(self) -> None:
        """As uvicorn's, but not closed over what the client is still sending: that would reset its last words away."""
        close = self.conn.close_sent
        assert close is not None
        self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        self.close_sent = True
        self.transport.write(b"".join(self.conn.data_to_send()))
        self._lingers_until = self.loop.time() + LINGER_S
        self.transport.resume_reading()
        self._linger()

    def _linger(self) -> None:
        """Drop what comes, and close when nothing has come for a moment."""
        assert self._lingers_until is not None
        if self.close_timer is not None:
            self.close_timer.cancel()
        pause_s = min(QUIET_S, max(0.0, self._lingers_until - self.loop.time()))
        self.close_timer = self.loop.call_later(pause_s, self.transport.close)

    def _fail(self, code: int, reason: str) -> None:
        if self.conn.close_sent is None:
            self.conn.fail(code, reason)
            self.handle_parser_exception()

    # Writing

    def send(self, event: Any) -> Coroutine[Any, Any, None]:
        """As uvicorn's; the first event answers the handshake. RuntimeError for what a client must not be sent."""
        kind = event["type"]
        if kind == "websocket.close":
            checked_close(event.get("code") or 1000, event.get("reason") or "")
        elif kind == "websocket.accept":
            checked_subprotocol(event.get("subprotocol"))
            check_fields(event.get("headers", ()))
        if self._status is None:
            kinds = {"websocket.accept": 101, "websocket.http.response.start": event.get("status", 500)}
            self._answered(kinds.get(kind, 403))
        return super().send(event)

    def _answered(self, status: int) -> None:
        self._status = status
        self._edge.tally.shook_hands(self.scope, self._trail, status)

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
        scope = self.scope
        request_id = [field for field in scope["headers"] if field[0] == self._edge.request_id_name]
        self.default_headers = [_as_field(self._edge.date_line), *request_id]
        self._trail = scope[TRAIL] = Trail(monotonic(), request_id[0][1] if request_id else b"")
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
        """Cut a client that takes nothing; end a handshake that nobody answers. Pings watch over the rest."""
        taken = taken_by(self.transport)
        if taken is not None and self._taken.seconds(taken, now) >= seconds_for(Wait.TAKE, self._edge):
            self._trail.reason = self._trail.reason or Reason.TOO_SLOW
            self.transport.abort()
        elif not self.handshake_complete and now - self._opened_at >= seconds_for(Wait.ACCEPT, self._edge):
            self._trail.reason = self._trail.reason or Reason.TOO_SLOW
            self.queue.put_nowait({"type": "websocket.disconnect", "code": ABNORMAL})
            if self._status is None:
                self._answered(408)
            self._deny(self.conn.reject(408, "The WebSocket was not accepted in time\n"))

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
