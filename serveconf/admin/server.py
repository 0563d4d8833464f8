"""The control API's listener: bound first, so that a taken port is told before anything else is started."""

from __future__ import annotations

import errno
import socket

import uvicorn
from starlette.types import ASGIApp

from serveconf.errors import OperatorError, PortInUse


class AdminServer:
    """uvicorn on a socket of ours, without signal handlers: it lives in an actor's thread."""

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
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((self._host, self._wanted))
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(control_port_taken(self._host, self._wanted)) from error
            raise OperatorError(
                f"can't listen on {self._host}:{self._wanted} (control API): {error.strerror}"
            ) from error
        self._socket = sock

    async def serve(self, app: ASGIApp) -> None:
        """Answer until the process ends."""
        assert self._socket is not None
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", ws="none", http="httptools")
        await uvicorn.Server(config)._serve([self._socket])


def control_port_taken(host: str, port: int) -> str:
    """What to say when another program holds the control API's port."""
    return (
        f"port {port} on {host} (control API) is in use by another program; "
        "choose another with --address http://127.0.0.1:PORT or SERVECONF_ADDRESS"
    )
