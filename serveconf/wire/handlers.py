"""The replica's end of a stream: runs the application on one request, and speaks ASGI with it.

A handler starts with an Open frame and ends when the application's coroutine does, background tasks included. When the
client leaves, the application is told, and cancelled if it does not end by itself. ``server.py`` makes them;
``websockets.py`` holds the one for WebSockets.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

from serveconf.wire.carried import CarriedSession, unpack_extras
from serveconf.wire.checked import as_status, check_number, checked_headers
from serveconf.wire.frames import (
    PIECE_COST,
    AnyFrame,
    Body,
    Cut,
    End,
    Headers,
    Open,
    Opened,
    Reply,
    StreamError,
    Trailers,
    cost_of,
)
from serveconf.wire.lent import OwnFile, open_in_thread
from serveconf.wire.stream import Stream, as_bytes

if TYPE_CHECKING:
    from serveconf.wire.server import ServerConnection

log = logging.getLogger("serveconf.wire")

_READ_BYTES = 256 << 10  # of a file that the proxy cannot open
_ERROR_TEXT = b"Internal Server Error"
_ERROR_HEADERS: Headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"21")]


class ClientDisconnected(OSError):
    """The application sends to a client that has left."""


class Handler(Stream):
    """What HTTP and WebSocket handlers have in common: the task, and its end."""

    connection: ServerConnection
    task: asyncio.Task[None]
    complete = False  # the answer was given in full
    _cancelling: asyncio.TimerHandle | None = None
    _cancelled = False
    told_grace_s = 0.0  # until it is cancelled, for an application that has heard in receive() that its client left
    untold_grace_s = 0.0  # the same for one that was not listening

    def __init__(self, connection: ServerConnection, scope: dict[str, Any], number: int) -> None:
        super().__init__(connection, number)
        self._scope = scope

    def start(self) -> None:
        """Run the application."""
        self.task = self.connection.loop.create_task(self._run())

    async def receive(self) -> dict[str, Any]:
        """ASGI receive."""
        raise NotImplementedError

    async def send(self, message: dict[str, Any]) -> None:
        """ASGI send."""
        raise NotImplementedError

    def frame_received(self, frame: AnyFrame) -> None:
        """Body, Message or Close for this stream."""
        raise NotImplementedError

    def fail(self) -> None:
        """The application has raised or ended too early: say so, as far as that is still possible."""
        raise NotImplementedError

    def finish(self) -> None:
        """The application has returned: see that the answer is complete."""
        raise NotImplementedError

    def last_words(self) -> None:
        """Tell the proxy that the handler has ended."""
        self.connection.queue(End(self.number, self.connection.others))

    def give_up(self) -> None:
        """The replica stops: end what cannot be finished."""
        if not self.complete:
            self.connection.queue(Cut(self.number))
        self.client_left()

    async def _run(self) -> None:
        try:
            result = await self.connection.server.app(self._scope, self.receive, self.send)
            if result is None:
                self.finish()
            else:
                log.error("ASGI callable should return None, but returned '%s'.", result)
                self.fail()
        except ClientDisconnected:
            self.fail()
        except asyncio.CancelledError:
            if not self._cancelled:
                log.error("ASGI application was cancelled, though its client is still there")
            self.fail()
        except BaseException as error:  # whatever an application raises, SystemExit too, ends this request and no more
            if self.gone:
                log.info("ASGI application ended after its client had left: %r", error)
            else:
                log.error("Exception in ASGI application\n", exc_info=error)
            self.fail()
        finally:
            if self._cancelling is not None:
                self._cancelling.cancel()
            self.connection.ended(self)

    def client_left(self) -> None:
        """Tell the application; cancel it soon if it has not answered yet."""
        if self.gone:
            return
        grace_s = self.told_grace_s if self.read_by_someone else self.untold_grace_s
        self.leave()
        if not self.complete:
            self._cancelling = self.connection.loop.call_later(grace_s, self.cancel)

    def cancel(self) -> None:
        """Cancel the application, as asked for."""
        self._cancelled = True
        self.task.cancel()


class HttpHandler(Handler):
    """One http request."""

    told_grace_s = 1.0
    _last: Reply | Body | None = None  # the last answering frame, and the turn that it was queued in
    _last_turn = 0
    _left: int | None = None  # of content-length
    _session: CarriedSession | None = None
    _trailers: Headers | None = None  # those given so far, where the answer ends with them
    _body_sent = False
    _may_send_file = False
    _opened: bool | None = None  # by the proxy: the file that it was told of
    _is_lending = False

    def __init__(self, connection: ServerConnection, first: Open) -> None:
        super().__init__(connection, http_scope(first, connection.server.state), first.stream)
        if first.files and connection.server.offers_files:
            self._scope.setdefault("extensions", {})["http.response.pathsend"] = {}
            self._may_send_file = True
        self._head = first.method == "HEAD"
        self._hold = first.hold
        self._body_ended = not first.more
        if first.extras:
            self._session = unpack_extras(first.extras, self._scope)
        if first.body or not first.more:
            cost = len(first.body) + PIECE_COST
            self.received(cost)
            self._inbox.append((first.body, cost))

    # the request

    def frame_received(self, frame: AnyFrame) -> None:
        if type(frame) is Opened and self._is_lending and self._opened is None:
            self._opened = frame.whole
            self.wake()
            return
        if type(frame) is not Body or self._body_ended:
            raise StreamError(self.number, f"{type(frame).__name__} does not belong here")
        cost = cost_of(frame)
        self.received(cost)
        self._body_ended = not frame.more
        if not self.complete:
            self._inbox.append((bytes(frame.data), cost))
            self.wake()

    async def receive(self) -> dict[str, Any]:
        while True:
            if self.gone or self.complete:
                return {"type": "http.disconnect"}
            if self._inbox:
                data, cost = self._inbox.popleft()
                self.used(cost)
                return {"type": "http.request", "body": data, "more_body": not (self._body_ended and not self._inbox)}
            if self._hold:
                self._hold = False
                self.grant()
            await self.wait()

    # the response

    async def send(self, message: dict[str, Any]) -> None:
        if self.gone:
            raise ClientDisconnected
        kind = message["type"]
        if self._last is None:
            if kind != "http.response.start":
                raise RuntimeError(f"Expected ASGI message 'http.response.start', but got '{kind}'.")
            self._start(message)
        elif self.complete:
            raise RuntimeError(f"Unexpected ASGI message '{kind}' sent, after response already completed.")
        elif self._body_sent:
            self._send_trailers(kind, message)
        elif kind == "http.response.pathsend" and self._may_send_file:
            await self._send_file(message["path"])
        elif kind != "http.response.body":
            raise RuntimeError(f"Expected ASGI message 'http.response.body', but got '{kind}'.")
        else:
            await self._send_body(as_bytes(message.get("body", b"")), bool(message.get("more_body", False)))

    def _start(self, message: dict[str, Any]) -> None:
        status = as_status(message["status"])
        headers, length = checked_headers(message.get("headers", ()), self.connection.limits)
        if length is not None and not self._head and status not in (204, 304):
            self._left = length
        session = b"" if self._session is None else self._session.news()
        trailers = bool(message.get("trailers", False)) and "http.response.trailers" in self._scope.get(
            "extensions", ()
        )
        if trailers:
            self._trailers = []
        self._queue(Reply(self.number, status, headers, session=session, trailers=trailers))

    async def _send_body(self, body: bytes, more: bool) -> None:
        if self._head:
            body = b""
        size = len(body)
        if self._left is not None:
            self._left -= size
            if self._left < 0:
                raise RuntimeError("Response content longer than Content-Length")
            if self._left and not more:
                raise RuntimeError("Response content shorter than Content-Length")
        if not self._send_at_once(body, size, more):
            await self.send_body(body, more)
            if self.gone:
                raise ClientDisconnected
        if not more:
            if self._trailers is None:
                self.complete = True
                self.wake()
            else:
                self._body_sent = True

    async def _send_file(self, path: str) -> None:
        self._may_send_file = False  # it is all of the body
        file: OwnFile = await open_in_thread(lambda: OwnFile(path))
        try:
            if self._head or file.content is not None:
                await self._send_body(b"" if self._head else file.content or b"", False)
            elif self._trailers is None and (self._left is None or self._left == file.size):
                await self._lend(file)
            else:
                await self._send_pieces(file)
        finally:
            file.close()

    async def _lend(self, file: OwnFile) -> None:
        """Let the proxy send it, or send it where the proxy can't."""
        self._is_lending = True
        self.connection.queue(file.frame(self.number))
        while self._opened is None and not self.gone:
            await self.wait()
        if self.gone:
            raise ClientDisconnected
        if self._opened:
            self.complete = True
            self.wake()
        else:
            await self._send_pieces(file)

    async def _send_pieces(self, file: OwnFile) -> None:
        start = 0
        while start < file.size:
            piece = await asyncio.to_thread(os.pread, file.descriptor, _READ_BYTES, start)
            if not piece:
                break
            start += len(piece)
            await self._send_body(piece, True)
        await self._send_body(b"", False)

    def _send_trailers(self, kind: str, message: dict[str, Any]) -> None:
        if kind != "http.response.trailers" or self._trailers is None:
            raise RuntimeError(f"Expected ASGI message 'http.response.trailers', but got '{kind}'.")
        headers, _ = checked_headers(message.get("headers", ()), self.connection.limits)
        check_number([*self._trailers, *headers], self.connection.limits)
        self._trailers += headers
        if not message.get("more_trailers", False):
            self.connection.queue(Trailers(self.number, self._trailers))
            self.complete = True
            self.wake()

    def _send_at_once(self, body: bytes, size: int, more: bool) -> bool:
        if more and not size:
            return True
        connection = self.connection
        if not self.spend(size, connection.limits.piece_bytes):
            return False
        last = self._last
        is_in_turn = self._last_turn == connection.turn
        if (
            is_in_turn
            and type(last) is Reply
            and last.more
            and not last.body
            and size <= connection.limits.inline_bytes
        ):
            last.body = body
            last.more = more
        else:
            self.send_piece(body, more)
        if more:
            connection.hurry()
        return True

    def send_piece(self, data: bytes | memoryview, more: bool) -> None:
        connection, last = self.connection, self._last
        if self._last_turn == connection.turn:
            if type(last) is Reply:
                last.follows = True
            elif isinstance(last, Body) and connection.add_piece(last, data, more):
                self._credit += PIECE_COST  # it is one piece now
                return
        self._last = frame = Body(self.number, b"", more)
        self._last_turn = connection.queue_piece(frame, data)

    def _queue(self, frame: Reply) -> None:
        self.connection.queue(frame)
        self._last = frame
        self._last_turn = self.connection.turn

    # the end

    def finish(self) -> None:
        if self.gone or self.complete:
            return
        if self._last is None:
            log.error("ASGI callable returned without starting response.")
        else:
            log.error("ASGI callable returned without completing response.")
        self.fail()

    def fail(self) -> None:
        if self.gone or self.complete:
            return
        self.complete = True
        if self._last is None:
            self._queue(Reply(self.number, 500, _ERROR_HEADERS, _ERROR_TEXT, more=False, others=self.connection.others))
        else:
            self.connection.queue(Cut(self.number))

    def last_words(self) -> None:
        last = self._last
        if last is not None and not last.more and self._last_turn == self.connection.turn and self._trailers is None:
            last.done = True
            last.others = self.connection.others
        else:
            super().last_words()


def http_scope(first: Open, state: dict[str, Any]) -> dict[str, Any]:
    """The ASGI scope of an http request."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": first.http_version,
        "method": first.method,
        "scheme": first.scheme,
        "path": first.path,
        "raw_path": first.raw_path,
        "query_string": first.query_string,
        "root_path": first.root_path,
        "headers": first.headers,
        "client": first.client,
        "server": first.server,
        "state": state.copy(),
    }
    if first.trailers:
        scope["extensions"] = {"http.response.trailers": {}}
    return scope
