"""WebSockets: uvicorn's own protocol, with what the edge adds: its counts, its request id, an end when it drains.

The HTTP protocol has checked the handshake and hands it over with the connection.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from serveconf.proxy.edge import Edge
from serveconf.proxy.rules import HOP_BY_HOP

SERVICE_RESTART = 1012
GOING_AWAY = 1001


async def _no_app(scope: Any, receive: Any, send: Any) -> None:
    """The config wants one; each protocol is given its own."""


def make_config() -> Config:
    """uvicorn's settings for WebSockets: its defaults, and nothing that touches the process."""
    config = Config(_no_app, log_config=None, lifespan="off", interface="asgi3", proxy_headers=False)
    config.load()
    return config


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket of a client."""

    def __init__(self, edge: Edge, loop: asyncio.AbstractEventLoop, config: Config, app: ASGIApp) -> None:
        state = ServerState()
        state.connections = edge.websockets  # type: ignore[assignment]
        state.tasks = edge.tasks
        super().__init__(config=config, server_state=state, app_state={}, _loop=loop)
        self.app: Any = app
        self._edge = edge

    async def run_asgi(self) -> None:
        """Call the app, counted as one request and, while it lasts, as a stream."""
        tally = self._edge.tally
        headers = self.scope["headers"]
        request_id = [field for field in headers if field[0] == b"x-request-id"]
        self.default_headers = [_as_field(self._edge.date_line), *request_id]
        self.scope["headers"] = [field for field in headers if field[0] not in HOP_BY_HOP]
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
