"""``ProxyServer``: listens on a socket of its own, and gives every connection that comes in a protocol.

It runs in whatever event loop calls ``start``, in any thread, and touches no signal handler. ``drain`` ends it: nothing
new is accepted, what is in flight finishes, and what does not finish in time is cut.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import socket
from time import monotonic
from types import ModuleType
from typing import Any

from starlette.types import ASGIApp

from serveconf.errors import OperatorError
from serveconf.proxy.edge import Edge
from serveconf.proxy.ports import listen, refuse_new
from serveconf.proxy.protocol import HttpProtocol
from serveconf.proxy.tls import Tls, TlsFiles
from serveconf.proxy.websocket import SERVICE_RESTART, WebSocketProtocol, make_config

log = logging.getLogger(__name__)

BACKLOG = 2048
_DRAIN_LOOK_S = 0.02  # how often a drain looks who is left
_HANDSHAKES_S = 0.02  # between refusing new connections and closing the listener
_LAST_WORDS_S = 1.0  # how long what was cut may take to end


class ProxyServer:
    """One listener in one process."""

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        *,
        edge: Edge | None = None,
        reuse_port: bool = False,
        tls: TlsFiles | None = None,
        http2: bool = False,
        sock: socket.socket | None = None,
    ) -> None:
        """``sock``: one that is bound already.

        Raises OperatorError for certificate files that cannot be used, or ``http2`` without TLS or without zttp.
        """
        self.edge = edge or Edge()
        self.edge.serve(app)
        self._host = host
        self._port = port
        self._reuse_port = reuse_port
        self._http2 = _import_http2(tls) if http2 else None
        self._tls = Tls(tls, alpn=("h2", "http/1.1") if http2 else ("http/1.1",)) if tls is not None else None
        self._ssl = self._tls.context if self._tls is not None else None
        self._handshake_timeout_s = self.edge.limits.head_timeout_s if self._tls is not None else None
        self._goodbye_timeout_s = self.edge.limits.linger_s if self._tls is not None else None
        self._uvicorn_config = make_config()
        self._socket: socket.socket | None = None
        self._given = sock
        self._listener: asyncio.Server | None = None
        self._ticker: asyncio.Task[None] | None = None

    async def start(self, sock: socket.socket | None = None) -> tuple[str, int]:
        """Listen, on ``sock`` where one is given; the address and port it is.

        Raises PortInUse, or OperatorError for a host that is not ours.
        """
        loop = asyncio.get_running_loop()
        self._socket = (
            sock or self._given or listen(self._host, self._port, reuse_port=self._reuse_port, backlog=BACKLOG)
        )
        self._listener = await loop.create_server(
            self._make_protocol,
            sock=self._socket.dup(),  # ours stays open when the listener closes, until its backlog is empty
            backlog=BACKLOG,
            ssl=self._ssl,
            ssl_handshake_timeout=self._handshake_timeout_s,
            ssl_shutdown_timeout=self._goodbye_timeout_s,
        )
        self._ticker = self._ticker or loop.create_task(self._tick())
        address, port = self._socket.getsockname()[:2]
        log.info("listening", extra={"address": address, "port": port})
        return address, port

    @property
    def certificate_ends_at(self) -> float | None:
        """In seconds since the epoch; None without TLS."""
        return self._tls.ends_at if self._tls is not None else None

    def _make_protocol(self) -> asyncio.Protocol:
        if self._http2 is not None:
            either: asyncio.Protocol = self._http2.AlpnProtocol(self._make_http1, self._make_http2)
            return either
        return self._make_http1()

    def _make_http1(self) -> HttpProtocol:
        return HttpProtocol(self.edge, asyncio.get_running_loop(), self._make_websocket)

    def _make_http2(self) -> asyncio.Protocol:
        assert self._http2 is not None
        protocol: asyncio.Protocol = self._http2.Http2Protocol(
            self.edge, asyncio.get_running_loop(), self._uvicorn_config
        )
        return protocol

    def _make_websocket(self, app: ASGIApp, scope: dict[str, Any]) -> WebSocketProtocol:
        return WebSocketProtocol(self.edge, asyncio.get_running_loop(), self._uvicorn_config, app, scope)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            try:
                self.edge.refresh_date()
                self.edge.sweep()
                if self._tls is not None:
                    self._tls.reload_if_changed()
            except Exception:  # the timer of every connection must survive whatever one of them does
                log.exception("a sweep failed")

    @property
    def _tick_s(self) -> float:
        return min(1.0, max(0.02, self.edge.shortest_wait_s / 4))

    async def drain(
        self,
        timeout_s: float,
        *,
        websocket_timeout_s: float = 0.0,
        websocket_code: int = SERVICE_RESTART,
        goes_on: bool = False,
    ) -> None:
        """Stop listening and return when every connection has ended, or after ``timeout_s`` seconds, when all are cut.

        An answer that begins from now on ends its connection (``Connection: close``); idle connections are closed
        after a second, since a request may be on its way. WebSockets, which end by nobody's will, are closed with
        ``websocket_code`` after ``websocket_timeout_s`` seconds (1012: connect anew; 1001: nobody will be there).
        ``goes_on``: another process serves the same listener, with all who wait in its queue.
        """
        self.edge.draining = True
        if goes_on:
            self._leave_listener()
        else:
            await self._stop_listening()
        for connection in list(self.edge.connections):
            connection.drain()
        began = monotonic()
        while (self.edge.connections or self.edge.websockets) and monotonic() - began < timeout_s:
            if monotonic() - began >= websocket_timeout_s:
                self._close_websockets(websocket_code)
            self.edge.sweep()
            await asyncio.sleep(_DRAIN_LOOK_S)
        self._close_websockets(websocket_code)
        await self._cut_the_rest()
        if self._ticker is not None:
            self._ticker.cancel()
        await asyncio.to_thread(self.edge.access_log.flush, _LAST_WORDS_S)
        await asyncio.to_thread(self.edge.spans.close, _LAST_WORDS_S)

    def step_back(self) -> None:
        """Accept nobody any more: another process serves the same listener. Whoever is connected is served on."""
        self._leave_listener()

    async def _stop_listening(self) -> None:
        """Close the listener, after taking over whoever has connected to it already: the kernel would reset them."""
        if self._listener is None or self._socket is None:
            return
        refuse_new(self._socket)
        await asyncio.sleep(_HANDSHAKES_S)  # who had begun to connect is through by now, and accepted
        loop = asyncio.get_running_loop()
        self._listener.close()
        accepted = []
        try:
            while True:
                accepted.append(self._socket.accept()[0])
        except OSError:
            self._socket.close()
        for sock in accepted:
            sock.setblocking(False)
            try:
                await loop.connect_accepted_socket(
                    self._make_protocol,
                    sock,
                    ssl=self._ssl,
                    ssl_handshake_timeout=self._handshake_timeout_s,
                    ssl_shutdown_timeout=self._goodbye_timeout_s,
                )
            except OSError:
                sock.close()  # gone meanwhile, or no TLS
        self._listener = self._socket = None

    def _leave_listener(self) -> None:
        if self._listener is not None and self._socket is not None:
            self._listener.close()
            self._socket.close()
        self._listener = self._socket = None

    def _close_websockets(self, code: int) -> None:
        for websocket in list(self.edge.websockets):
            websocket.drain(code)

    async def _cut_the_rest(self) -> None:
        for connection in [*self.edge.connections, *self.edge.websockets]:
            connection.abort()
        tasks = list(self.edge.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_WORDS_S)
        for connection in [*self.edge.connections, *self.edge.websockets]:
            connection.transport.abort()


def _import_http2(tls: TlsFiles | None) -> ModuleType:
    """The protocol that only those load who want it."""
    if tls is None:
        raise OperatorError("http2 needs TLS", hint="set ssl_certfile and ssl_keyfile, or leave http2 out")
    try:
        return importlib.import_module("serveconf.proxy.http2")
    except ImportError as error:
        raise OperatorError(f"http2 cannot be used: {error}", hint="install serveconf[http2]") from error
