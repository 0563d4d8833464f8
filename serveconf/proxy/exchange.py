"""One HTTP/1.1 request and its answer: the ASGI ``send`` of an app, and what it writes to the connection.

The protocol makes one for each request head and feeds it the body (``request_body.py``); it tells the protocol when the
answer is complete or can never be. On the request path: plain attributes, no timer, and nothing is allocated that most
requests do not use.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Scope

from serveconf.proxy.call import ResponseCut
from serveconf.proxy.request_body import RequestBody
from serveconf.proxy.rules import HOP_BY_HOP, STATUS_LINES, field_name, is_injected
from serveconf.proxy.sendfile import send_file
from serveconf.proxy.tally import CLIENT_LEFT, TRAIL, Reason, Trail
from serveconf.wire import BODY_FOLLOWS, Strand

if TYPE_CHECKING:
    from serveconf.proxy.edge import Shortcut
    from serveconf.proxy.protocol import HttpProtocol
    from serveconf.wire import LentFile

log = logging.getLogger(__name__)

_COPY_BYTES = 32_768


class Exchange(RequestBody):
    """A request that was taken from a connection. ``run`` is its life."""

    __slots__ = (
        "app",
        "bytes_left",
        "bytes_sent",
        "chunked",
        "has_no_body",
        "held_head",
        "keep_alive",
        "request_id",
        "scope",
        "shortcut",
        "status",
        "strand",
        "streaming",
        "trail",
        "trailer_fields",
        "trailers",
    )

    def __init__(
        self, connection: HttpProtocol, app: ASGIApp, scope: Scope, request_id: bytes, keep_alive: bool, expects: bool
    ) -> None:
        RequestBody.__init__(self, connection, expects)  # without super(): it is once a request
        self.app = app
        self.scope = scope
        self.request_id = request_id
        self.trail = scope[TRAIL] = Trail(monotonic(), request_id)
        self.keep_alive = keep_alive
        self.strand: Strand | None = None  # that runs it
        self.shortcut: Shortcut | None = None  # ... or what spares it one
        # the answer
        self.status = CLIENT_LEFT  # until it is known better
        self.bytes_sent = 0  # of the body
        self.has_no_body = False
        self.chunked = False
        self.bytes_left: int | None = None  # of a body with a Content-Length
        self.streaming = False
        self.trailers = False
        self.trailer_fields: list[Any] = []
        self.held_head = b""  # goes with the first piece of the body: one write, not two

    def start(self) -> None:
        """It is this one's turn."""
        edge = self.connection.edge
        edge.tally.begin()
        if self.more_body or edge.shortcut is None or self.app is not edge.app or not edge.shortcut(self):
            self.run_app(self.app)

    def run_app(self, app: ASGIApp) -> None:
        """Have it answered by ``app``."""
        connection = self.connection
        self.shortcut = None
        self.strand = Strand(connection.loop, self.run(app), connection.edge.tasks)
        self.strand.start()

    async def run(self, app: ASGIApp) -> None:
        """Call the app; whatever it leaves unanswered is answered or cut here."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._fail(503, b"Service Unavailable\n", Reason.DRAINED)
        except ResponseCut as error:
            log.warning("an answer was cut", extra={"path": self.scope["path"], "why": str(error)})
            self._fail(502, b"Bad Gateway", Reason.CUT)
        except Exception:  # noqa: BLE001 one request must not end the process: it is logged, and answered or cut
            self._failed()
        else:
            if not self.complete and not self.disconnected:
                log.error("an app returned without a complete answer", extra={"path": self.scope["path"]})
                self._fail(500, b"Internal Server Error", Reason.FAILED)
        finally:
            self._count_out()

    def _failed(self) -> None:
        """Called where the exception is handled."""
        if not self.disconnected:
            log.exception("a request failed", extra={"path": self.scope["path"], "request": self.request_id.decode()})
        self._fail(500, b"Internal Server Error", Reason.FAILED)

    def answer(self, status: int, headers: Any, body: bytes | memoryview) -> bool:
        """The whole answer at once, without ``run``; False where it could not be written, and was answered or cut."""
        try:
            self._write_head(status, headers, trailers=False)
            self._write_body(body, more=False)
        except Exception:  # noqa: BLE001 as in ``run``
            self._failed()
            self._count_out()
            return False
        return True

    def _count_out(self) -> None:
        tally = self.connection.edge.tally
        if not self.started:
            tally.leave()
        if not self.complete:  # else it was counted when it was
            self.trail.reason = self.trail.reason or Reason.CLIENT_LEFT
            tally.ended(self.scope, self.trail, self.status, self.body_total, self.bytes_sent)
        if self.streaming:
            self.streaming = False
            tally.open_streams -= 1

    # What the protocol tells

    def disconnect(self) -> None:
        """The client went away. Whoever waits in ``receive`` learns it there; an app that waits elsewhere is cancelled."""
        self.disconnected = True
        self.let_go_of_body()
        has_receiver = self.receivers > 0
        self.tell()
        if not has_receiver and not self.complete:
            self.cancel()

    def cancel(self) -> None:
        """Have the app stop, if it has begun: an answer that has not becomes a 503."""
        if self.shortcut is not None:
            self.shortcut.go_on()
        if self.strand is not None:
            self.strand.cancel()

    # ASGI

    async def send(self, message: Message) -> None:
        """One event of the answer. Returns when the client can take more; after it has gone, events are dropped."""
        connection = self.connection
        if connection.writable is not None:
            await asyncio.shield(connection.writable)  # it is everybody's: who is cancelled must not cancel it
        if self.disconnected:
            return
        kind = message["type"]
        if not self.started:
            if kind != "http.response.start":
                raise RuntimeError(f"an answer begins with http.response.start, not with {kind}")
            self._write_head(message["status"], message.get("headers", ()), message.get("trailers", False))
            if BODY_FOLLOWS not in message:
                self._write_held_head()
        elif self.complete:
            if kind == "http.response.trailers":
                return  # announced, but this answer's framing has no place for them
            raise RuntimeError(f"{kind} after the answer was complete")
        elif kind == "http.response.body":
            self._write_body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.pathsend":
            await self._send_file(message["file"])
        elif kind == "http.response.trailers" and self.trailers:
            self.trailer_fields = [*self.trailer_fields, *message.get("headers", ())]
            if not message.get("more_trailers", False):
                self._write_trailers(self.trailer_fields)
        else:
            raise RuntimeError(f"{kind} is not expected here")

    # Writing

    def _write_head(self, status: int, headers: Any, trailers: bool) -> None:
        connection = self.connection
        edge = connection.edge
        head = [STATUS_LINES[status]]
        date, request_id, length = edge.date_line, self.request_id, None
        edge_fields = edge.answer_fields
        for raw_name, value in headers:
            name = field_name(raw_name)
            if name in edge_fields:
                if name == b"content-length":
                    length = _same_length(length, value)
                    continue
                if name in HOP_BY_HOP:
                    continue
                if name == b"date":
                    date = b""
                else:
                    request_id = b""
            head.append(b"%b: %b\r\n" % (name, value))
        if date:
            head.append(date)
        if request_id:
            head.append(b"%b: %b\r\n" % (edge.request_id_name or b"x-request-id", request_id))
        self._choose_framing(status, length, trailers, head)
        data = b"".join(head)
        if is_injected(data, len(head)):
            raise ValueError("a header field of the answer holds a line end or a NUL")
        self.started = True
        self.status = status
        self.held_head = data + b"\r\n"
        edge.tally.answer(status)

    def _write_held_head(self) -> None:
        if self.held_head:
            self.connection.transport.write(self.held_head)
            self.held_head = b""

    def _choose_framing(self, status: int, length: int | None, trailers: bool, head: list[bytes]) -> None:
        """How the client finds the end of the body (RFC 9112 §6.3), and whether the connection goes on after it."""
        self.has_no_body = status == 204 or status == 304 or self.scope["method"] == "HEAD"
        self.chunked = self.trailers = False
        self.bytes_left = length
        if length is not None:
            if status != 204:
                head.append(b"content-length: %d\r\n" % length)
        elif not self.has_no_body:
            if self.scope["http_version"] == "1.1":
                self.chunked = True
                self.trailers = trailers and "http.response.trailers" in self.scope.get("extensions", ())
                head.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False
        if self.expects_continue and self.more_body:
            self.keep_alive = False  # whether the client will send the body now, nobody knows
        if self.connection.edge.draining and self.connection.has_one_request:
            self.keep_alive = False
        if not self.keep_alive:
            head.append(b"connection: close\r\n")

    def _write_body(self, body: bytes | memoryview, more: bool) -> None:
        head, self.held_head = self.held_head, b""
        if self.has_no_body:
            body = b""
        self.bytes_sent += len(body)
        if self.chunked:
            end = b"" if more or self.trailers else b"0\r\n\r\n"
            if body:
                head, end = head + b"%x\r\n" % len(body), b"\r\n" + end
            self._write(head, body, end)
            head = body = b""
        elif self.bytes_left is not None and not self.has_no_body:
            self.bytes_left -= len(body)
            if self.bytes_left < 0 or (self.bytes_left and not more):
                self.held_head = head
                raise RuntimeError("the body of an answer is not as long as its Content-Length says")
        if head or body:
            self._write(head, body, b"")
        if more:
            self._is_streaming()
        elif not self.trailers:
            self._end()

    def _write(self, before: bytes, body: bytes | memoryview, after: bytes) -> None:
        """In one go; a small body is copied, since that costs less than a list of buffers does."""
        transport = self.connection.transport
        if len(body) <= _COPY_BYTES:
            data = b"".join((before, body, after))
            if data:
                transport.write(data)
        elif before or after:
            transport.writelines([part for part in (before, body, after) if part])
        else:
            transport.write(body)

    async def _send_file(self, file: LentFile) -> None:
        """All of the body, without its passing through this process."""
        if self.has_no_body or not file.size:
            self._write_body(b"", False)
            return
        if self.bytes_left is None:
            self.bytes_left = file.size  # so that it is cut rather than ended, where it has to be
        elif self.bytes_left != file.size:
            raise RuntimeError("the file of an answer is not as long as its Content-Length says")
        head, self.held_head = self.held_head, b""
        if self.chunked:
            head += b"%x\r\n" % file.size
        self._is_streaming()
        await send_file(self, head, file)
        if not self.disconnected:
            if self.chunked:
                self.connection.transport.write(b"\r\n0\r\n\r\n")
            self._end()

    def file_sent(self, size: int) -> None:
        """So much of a file has left."""
        self.bytes_sent += size
        if self.bytes_left is not None:
            self.bytes_left -= size

    def _is_streaming(self) -> None:
        if not self.streaming:
            self.streaming = True
            self.connection.edge.tally.open_streams += 1

    def _write_trailers(self, headers: Any) -> None:
        lines = [b"0\r\n", *(b"%b: %b\r\n" % (field_name(name), value) for name, value in headers)]
        data = b"".join(lines)
        if is_injected(data, len(lines)):
            raise ValueError("a trailer field of the answer holds a line end or a NUL")
        self.connection.transport.write(data + b"\r\n")
        self._end()

    def _end(self) -> None:
        self.complete = True
        self.connection.edge.tally.ended(self.scope, self.trail, self.status, self.body_total, self.bytes_sent)
        self.body.clear()
        self.let_go_of_body()
        self.tell()
        self.connection.exchange_ended(self)

    def _fail(self, status: int, text: bytes, reason: str) -> None:
        """An answer that has not begun becomes an error; one that has is cut, so that nobody takes it for whole."""
        if self.disconnected or self.complete:
            return
        self.trail.reason = self.trail.reason or reason
        if self.started:
            self.cut()
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text))]
        self._write_head(status, headers, trailers=False)
        self._write_body(text, more=False)

    def cut(self) -> None:
        """End the connection in a way that nobody takes for the end of the body."""
        connection = self.connection
        self._write_held_head()
        self.trail.reason = self.trail.reason or Reason.CUT
        connection.edge.tally.cut()
        if self.streaming:
            connection.edge.tally.streams_closed += 1
        self.disconnected = True
        if self.chunked or self.bytes_left:
            connection.transport.close()  # the client sees that the end is missing
        else:
            connection.reset()  # an orderly end of the connection would read as the end of the body


def _same_length(known: int | None, value: bytes) -> int:
    """The Content-Length of an answer. Raises ValueError if it is no number, or a second one that differs."""
    if not value.isdigit():
        raise ValueError(f"{value!r} is no Content-Length")
    length = int(value)
    if known is not None and known != length:
        raise ValueError(f"two Content-Lengths, {known} and {length}")
    return length
