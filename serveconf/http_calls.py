"""Requests to one HTTP server over connections that are kept: what the control API's client speaks with.

On ``http.client`` and nothing more: a command asks a few times and ends, and a whole HTTP library takes longer to import than
that. Proxies that the environment names for the web are not used, redirects not followed.
"""

from __future__ import annotations

import http.client
import json
import select
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

READ_BYTES = 65_536
_IN_PATHS = "/:@!$&'()*+,;=~"  # RFC 3986 §3.3


class CallFailed(Exception):
    """Nobody answers there, or what answers breaks off or is no HTTP server."""


class AnswerLate(CallFailed):
    """Somebody listens there, and has not answered in time: the request may have been heard."""


class AnswerLost(CallFailed):
    """The connection ended before the answer had come: the request may have been heard."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back, whole."""

    status: int
    content: bytes

    @property
    def is_error(self) -> bool:
        """Whether it says that something is wrong."""
        return self.status >= 400

    @property
    def text(self) -> str:
        """As text, to be shown."""
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        """Raises ValueError where it is none."""
        return json.loads(self.content)


class HttpCalls:
    """Calls below one address. Threads may share it: each call has a connection of its own for as long as it lasts."""

    def __init__(self, address: str, headers: Mapping[str, str], *, timeout_s: float) -> None:
        """``timeout_s``: for connecting, and for each piece that is waited for, where a call says nothing else."""
        self.headers = dict(headers)
        self._url = urlsplit(address)
        self._timeout_s = timeout_s
        self._idle: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close the connections that are idle."""
        while (connection := self._pop()) is not None:
            connection.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        connect_s: float | None = None,
        without: str = "",
    ) -> Answer:
        """One request and its whole answer, of any status; without the header of the name ``without``. Raises CallFailed.

        ``connect_s``: how long connecting may take, where that is less than the answer may.
        """
        headers = {name: value for name, value in {**self.headers, **(headers or {})}.items() if name != without}
        target = self._target(path, params)
        timeout_s = timeout_s or self._timeout_s
        with self._connection(connect_s or timeout_s) as connection:
            used = connection.sock is not None
            if not used:
                connection.connect()
            connection.timeout = timeout_s
            connection.sock.settimeout(timeout_s)
            try:
                response = _send(connection, method, target, headers, json, content)
            except http.client.RemoteDisconnected:  # it was just being closed, as idle (RFC 9110 §9.2.2)
                if not used or method != "GET":
                    raise
                response = _send(connection, method, target, headers, json, content)
            return Answer(status=response.status, content=response.read())

    @contextmanager
    def stream(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None
    ) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """The lines of an answer as they come, however long they take; of an error, its body and no line. Raises CallFailed."""
        with self._connection(self._timeout_s, kept=False) as connection:
            connection.connect()
            connection.sock.settimeout(None)
            response = _send(connection, method, self._target(path, params), self.headers, None, None)
            content = b"" if response.status == 200 else response.read()
            yield Answer(status=response.status, content=content), _lines(response)

    def _target(self, path: str, params: Mapping[str, Any] | None) -> str:
        query = urlencode({name: _plain(value) for name, value in (params or {}).items()}, doseq=True)
        return f"{self._url.path}{quote(path, safe=_IN_PATHS)}{'?' if query else ''}{query}"

    @contextmanager
    def _connection(self, timeout_s: float, *, kept: bool = True) -> Iterator[http.client.HTTPConnection]:
        """An idle one or a new one; one on which anything has gone wrong is not used again."""
        connection = self._take() if kept else self._open()
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        try:
            yield connection
        except (OSError, http.client.HTTPException) as error:
            is_late = isinstance(error, TimeoutError) and connection.sock is not None
            connection.close()
            lost = isinstance(error, http.client.BadStatusLine | http.client.IncompleteRead | ConnectionResetError)
            raise (AnswerLate if is_late else AnswerLost if lost else CallFailed)(
                str(error) or type(error).__name__
            ) from error
        except BaseException:  # Ctrl-C, or whoever reads has gone: half an answer is left on it
            connection.close()
            raise
        if kept:
            self._idle.append(connection)
        else:
            connection.close()

    def _take(self) -> http.client.HTTPConnection:
        while (connection := self._pop()) is not None:
            if connection.sock is None or not _has_ended(connection):
                return connection
            connection.close()
        return self._open()

    def _pop(self) -> http.client.HTTPConnection | None:
        """In one step: another thread may take the last one."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _open(self) -> http.client.HTTPConnection:
        match self._url.scheme, self._url.hostname:
            case "https", str(host):
                return http.client.HTTPSConnection(host, self._url.port or 443, context=self._authorities)
            case "http", str(host):
                return http.client.HTTPConnection(host, self._url.port or 80)
        raise CallFailed("the address is none that begins with http:// or https://")

    @cached_property
    def _authorities(self) -> ssl.SSLContext:
        """Whose certificates are believed."""
        import httpx  # reading them takes longer than a command's whole request, as this import does

        return httpx.create_ssl_context(trust_env=False)


def _send(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    headers: Mapping[str, str],
    data: Any,
    content: bytes | None,
) -> http.client.HTTPResponse:
    if data is not None:
        content = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        headers = {**headers, "content-type": "application/json"}
    try:
        connection.request(method, target, body=content, headers=dict(headers))
    except (BrokenPipeError, ConnectionResetError):  # who refuses a large body may answer without reading it
        if connection.sock is None:
            raise
    return connection.getresponse()


def _lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """By ``read1``: iterating the response would take one that breaks off for one that ends."""
    rest = b""
    while piece := response.read1(READ_BYTES):
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _has_ended(connection: http.client.HTTPConnection) -> bool:
    """Whether the server has closed a connection on which nothing is asked: then it can be read."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _plain(value: Any) -> Any:
    """As FastAPI reads it from a query."""
    match value:
        case bool():
            return "true" if value else "false"
        case None:
            return ""
        case _:
            return value
