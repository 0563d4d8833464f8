"""Requests to one HTTP server over connections that are kept: what the control API's client speaks with.

No HTTP library is behind it: a command asks a few times and ends, and to import one takes longer than that. Proxies that the
environment names for the web are not used, redirects not followed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from serveconf.http_connection import Broken, Connection, Incoming

if TYPE_CHECKING:
    import ssl

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
        self._idle: list[Connection] = []

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
        request = self._request(method, self._target(path, params), headers, json, content)
        limit_s = timeout_s or self._timeout_s
        with self._connection() as connection:
            used = connection.is_open
            answer = connection.ask(request, limit_s=limit_s, connect_s=connect_s)
            if answer is None and used and method == "GET":  # it was just being closed, as idle (RFC 9110 §9.2.2)
                connection.close()
                answer = connection.ask(request, limit_s=limit_s, connect_s=connect_s)
            if answer is None:
                raise Broken("the connection was closed without an answer")
            return Answer(status=answer.status, content=b"".join(answer.pieces()))

    @contextmanager
    def stream(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None
    ) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """The lines of an answer as they come, however long they take; of an error, its body and no line. Raises CallFailed."""
        request = self._request(method, self._target(path, params), self.headers, None, None)
        with self._connection(kept=False) as connection:
            answer = connection.ask(request, limit_s=self._timeout_s, patient=True)
            if answer is None:
                raise Broken("the connection was closed without an answer")
            content = b"" if answer.status == 200 else b"".join(answer.pieces())
            yield Answer(status=answer.status, content=content), _lines(answer)

    def _request(self, method: str, target: str, headers: Mapping[str, str], data: Any, content: bytes | None) -> bytes:
        """The whole request. Raises CallFailed where a header can't be one."""
        if data is not None:
            content = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
            headers = {**headers, "content-type": "application/json"}
        if content is not None or method in ("POST", "PUT"):
            headers = {**headers, "content-length": str(len(content or b""))}
        rows = [f"{method} {target} HTTP/1.1", f"host: {self._url.netloc.rpartition('@')[2]}"]
        rows += [f"{name}: {value}" for name, value in headers.items()]
        if any("\r" in row or "\n" in row for row in rows):
            raise CallFailed("a header holds the end of a line")
        try:
            return ("\r\n".join(rows) + "\r\n\r\n").encode("latin-1") + (content or b"")
        except UnicodeEncodeError as error:
            raise CallFailed(f"a header holds what can be in none: {error.object[error.start : error.end]}") from error

    def _target(self, path: str, params: Mapping[str, Any] | None) -> str:
        query = urlencode({name: _plain(value) for name, value in (params or {}).items()}, doseq=True)
        return f"{self._url.path}{quote(path, safe=_IN_PATHS)}{'?' if query else ''}{query}"

    @contextmanager
    def _connection(self, *, kept: bool = True) -> Iterator[Connection]:
        """An idle one or a new one; one on which anything has gone wrong is not used again."""
        connection = self._take() if kept else self._open()
        try:
            yield connection
        except (OSError, Broken) as error:
            late = isinstance(error, TimeoutError) and connection.is_open
            connection.close()
            lost = not isinstance(error, OSError) or isinstance(error, ConnectionResetError)
            kind = AnswerLate if late else AnswerLost if lost else CallFailed
            raise kind(str(error) or type(error).__name__) from error
        except BaseException:  # Ctrl-C, or whoever reads has gone: half an answer is left on it
            connection.close()
            raise
        if kept and connection.may_be_kept:
            self._idle.append(connection)
        else:
            connection.close()

    def _take(self) -> Connection:
        while (connection := self._pop()) is not None:
            if not connection.has_ended():
                return connection
            connection.close()
        return self._open()

    def _pop(self) -> Connection | None:
        """In one step: another thread may take the last one."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _open(self) -> Connection:
        match self._url.scheme, self._url.hostname:
            case "https", str(host):
                return Connection(host, self._url.port or 443, self._authorities)
            case "http", str(host):
                return Connection(host, self._url.port or 80, None)
        raise CallFailed("the address is none that begins with http:// or https://")

    @cached_property
    def _authorities(self) -> ssl.SSLContext:
        """Whose certificates are believed."""
        import httpx  # reading them takes longer than a command's whole request, as this import does

        return httpx.create_ssl_context(trust_env=False)


def _lines(answer: Incoming) -> Iterator[bytes]:
    rest = b""
    for piece in answer.pieces():
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _plain(value: Any) -> Any:
    """As FastAPI reads it from a query."""
    match value:
        case bool():
            return "true" if value else "false"
        case None:
            return ""
        case _:
            return value
