"""The control API's listener: bound first, so that a taken port is told before anything else is started."""

from __future__ import annotations

import asyncio
import socket

from starlette.types import ASGIApp

from serveconf.admin.port import control_port_in_use
from serveconf.errors import PortInUse
from serveconf.proxy.middleware import in_task
from serveconf.proxy.ports import listen
from serveconf.proxy.server import ProxyServer


class AdminServer:
    """The proxies' own edge, with all its limits and clocks. It touches no signal handler: it lives in an actor's thread."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._wanted = port
        self._socket: socket.socket | None = None

    @property
    def port(self) -> int:
        """The port that it is bound to."""
        assert self._socket is not None
        return int(self._socket.getsockname()[1])

    def bind(self) -> None:
        """Take the port. Raises PortInUse where another program has it."""
        try:
            self._socket = listen(self._host, self._wanted)
        except PortInUse as error:
            raise control_port_in_use(self._host, self._wanted) from error

    async def serve(self, app: ASGIApp) -> None:
        """Answer until the process ends, or this is cancelled."""
        assert self._socket is not None
        server = ProxyServer(in_task(app), self._host, self._wanted, sock=self._socket)
        await server.start()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await server.drain(0)
