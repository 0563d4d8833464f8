"""One connection to an HTTP/1.1 server: what ``http_calls`` asks goes out, its answer comes in, through httptools' parser.

The parser is the proxies' own, and there is no more to it: ``http.client`` takes longer to import, with all of ``email``, than
a command takes to ask.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import httptools

if TYPE_CHECKING:
    import ssl

READ_BYTES = 65_536
# Who may wait for ever notices a network that has gone: seconds and times, by the names that systems give them.
ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPALIVE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class Broken(Exception):
    """What came is no whole answer."""


class Connection:
    """One connection, opened when something is asked; one request after the other."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._place, self._tls = (host, port), tls
        self._socket: socket.socket | None = None
        self._answer: Incoming | None = None

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    @property
    def may_be_kept(self) -> bool:
        """Whether the last answer was read to its end, and the server keeps the connection."""
        return self._answer is not None and self._answer.is_whole and self._answer.keeps

    def ask(
        self, request: bytes, *, limit_s: float, connect_s: float | None = None, patient: bool = False
    ) -> Incoming | None:
        """The answer's head; None where the server has closed the connection instead.

        ``limit_s``: for connecting, where ``connect_s`` says nothing else, and for each piece that is waited for;
        ``patient``: those may take any time.
        """
        if self._socket is None:
            self._socket = socket.create_connection(self._place, timeout=connect_s or limit_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in ALIVE.items():
                if (option := getattr(socket, name, None)) is not None:
                    self._socket.setsockopt(socket.IPPROTO_TCP, option, value)
            if self._tls is not None:
                self._socket = self._tls.wrap_socket(self._socket, server_hostname=self._place[0])
        self._socket.settimeout(None if patient else limit_s)
        with suppress(BrokenPipeError, ConnectionResetError):  # who refuses a large body may answer without reading it
            self._socket.sendall(request)
        self._answer = Incoming(self._socket)
        return self._answer if self._answer.begin() else None

    def has_ended(self) -> bool:
        """Whether the server has closed a connection on which nothing is asked: then it can be read."""
        poll = select.poll()
        poll.register(self._socket or -1, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Incoming:
    """An answer that is being read: a protocol for httptools."""

    def __init__(self, sock: socket.socket) -> None:
        self.status = 0
        self.keeps = False
        self.is_whole = False
        self._socket = sock
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._says_its_end = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._says_its_end |= name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        status: int = self._parser.get_status_code()
        if status >= 200:  # before it there may be others that only inform (RFC 9110 §15.2)
            self.status, self.keeps = status, self._parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        self.is_whole = bool(self.status)

    def begin(self) -> bool:
        """Read the head. False where there is none: the connection has been closed. Raises Broken where it is no head."""
        began = False
        while not self.status:
            if not (read := self._socket.recv(READ_BYTES)):
                if began:
                    raise Broken("the answer broke off")
                return False
            began = True
            self._take(read)
        return True

    def pieces(self) -> Iterator[bytes]:
        """What follows the head, as it comes."""
        while True:
            taken, self._pieces = self._pieces, []
            yield from taken
            if self.is_whole:
                return
            if read := self._socket.recv(READ_BYTES):
                self._take(read)
            elif self._says_its_end:
                raise Broken("the answer broke off")
            else:  # it ends with the connection (RFC 9112 §6.3)
                self.is_whole = True
                self.keeps = False

    def _take(self, read: bytes) -> None:
        try:
            self._parser.feed_data(read)
        except httptools.HttpParserError as error:
            raise Broken(f"the answer is not HTTP: {error}") from error
