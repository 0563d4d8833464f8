"""One client connection: HTTP/1.1 parsed strictly by llhttp, checked further by ``rules``, handed on as ``Exchange``s.

A request that the edge refuses is answered in its turn and ends the connection: what follows it cannot be trusted to
begin where it seems to. Requests of one connection are answered one after the other, in order (RFC 9112 §9.3.2).
No request has a timer of its own: ``Edge.sweep`` looks at the few attributes here that say since when a client is awaited.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, cast
from urllib.parse import unquote

import httptools
from starlette.types import ASGIApp
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from serveconf.proxy.clocks import Wait
from serveconf.proxy.edge import Edge
from serveconf.proxy.exchange import Exchange
from serveconf.proxy.head import RequestHead
from serveconf.proxy.long_body import read_past_parser
from serveconf.proxy.rules import STATUS_LINES, Refused
from serveconf.proxy.sweep import Clocks
from serveconf.proxy.upgrade import become_websocket, is_handshake, parser_within_body
from serveconf.wire import SENDS_FILES

log = logging.getLogger(__name__)

HOLD_S = 0.01  # a request whose small body has not come in whole begins so much later at most

_ASGI = {"version": "3.0", "spec_version": "2.3"}
_METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}

OpenWebSocket = Callable[[ASGIApp, dict[str, Any]], asyncio.Protocol]  # the app, and the scope of the handshake


class HttpProtocol(asyncio.Protocol):
    """An HTTP/1.1 server connection, as uvloop drives it."""

    def __init__(self, edge: Edge, loop: asyncio.AbstractEventLoop, open_websocket: OpenWebSocket) -> None:
        self.edge = edge
        self.loop = loop
        self.open_websocket = open_websocket
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.writable: asyncio.Future[None] | None = None  # set while the client takes nothing
        self.head = RequestHead(edge)
        self.on_url = self.head.on_url  # the parser calls them without a detour
        self.on_header = self.head.on_header
        self.parser: Any = httptools.HttpRequestParser(self)
        self._exchanges: deque[Exchange] = deque()  # answered in order; the first one is being answered
        self._to_start: Exchange | None = None  # when the packet is parsed: it may hold the body too
        self._hold: asyncio.TimerHandle | None = None  # ... or when its small body has come
        self.reading: Exchange | None = None  # whose body is being received
        self._refusal: Refused | None = None  # to be answered when its turn comes
        self.is_ignoring = False  # whatever the client still sends
        self.is_read_paused = False
        self.awaits: Wait | None = Wait.HEAD
        self.since = monotonic()
        self._clocks: Clocks | None = None
        self.body_waiting = 0  # bytes of all requests' bodies that their apps have not taken
        self._handshake: dict[str, Any] | None = None  # the scope of a WebSocket's
        self._keeps_body = False  # of a request that asks for an upgrade and does not get it
        self._head_bytes = 0  # of an unfinished head, without its first packet
        self._packet = 0  # size of what is being parsed
        self._barren_bytes = 0  # received within a body since it last grew
        self._sends_files = False  # to the socket itself
        self.lends_bodies = False  # a long one, to whoever takes it

    # The transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=self.edge.limits.max_unsent_bytes)
        self.edge.connections.add(self)
        self.server = get_local_addr(self.transport)
        self.client = get_remote_addr(self.transport)
        self.scheme = "https" if is_ssl(self.transport) else "http"
        self.lends_bodies = self.edge.lends_bodies and self.scheme == "http"
        self._sends_files = self.scheme == "http" and hasattr(socket, "MSG_MORE")
        if self.edge.is_full:
            self.refuse(Refused(503, "Too many connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.edge.connections.discard(self)
        self.awaits = None
        self.is_ignoring = True
        self._start_held()  # who leaves within a body is told to the app, and counted, as ever
        self.resume_writing()
        for exchange in list(self._exchanges):
            exchange.disconnect()
        self._exchanges.clear()
        self.reading = None
        self.parser = None  # it holds this protocol, and this protocol it

    def pause_writing(self) -> None:
        self.writable = self.loop.create_future()

    def resume_writing(self) -> None:
        writable, self.writable = self.writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def data_received(self, data: bytes) -> None:
        while data and not self.is_ignoring:
            data = self._parse(data)
        exchange = self._to_start
        if exchange is not None:
            if exchange.more_body and self.head.has_small_body:
                self._hold = self._hold or self.loop.call_later(HOLD_S, self._start_held)
                return
            if self._hold is None:
                self._to_start = None
                self._start(exchange)
            else:
                self._start_held()
        if self.reading is not None and self.head.length is not None and self.lends_bodies:
            read_past_parser(self, self.reading, self.head.length)

    def _start_held(self) -> None:
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None
        exchange, self._to_start = self._to_start, None
        if exchange is not None:
            self._start(exchange)

    def _parse(self, data: bytes) -> bytes:
        """Feed the parser; what it leaves, since a request that asks for an upgrade stops it."""
        self._packet = len(data)
        was_in_head = self.head.is_open
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._go_on_after_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse_unparsed(error)
        else:
            if self.head.is_open:
                self._await_head(was_in_head)
            elif self.reading is not None:
                self._check_body_grows()
        return b""

    # The parser's calls

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self.head.begin()

    def on_headers_complete(self) -> None:
        head = self.head
        edge = self.edge
        came_in_parts = self.awaits is Wait.HEAD
        if came_in_parts or self._packet > edge.unsuspicious_bytes or len(head.headers) > edge.front.max_request_fields:
            head.check_size()
        version: str = self.parser.get_http_version()
        raw_method: bytes = self.parser.get_method()
        method = _METHODS.get(raw_method) or raw_method.decode("ascii")
        raw_path, query, request_id = head.close(version, method)
        path = raw_path.decode("ascii")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": _ASGI.copy(),
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": method,
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": head.headers,
        }
        if head.has_specials:
            if head.upgrade is not None and self.parser.should_upgrade():
                if is_handshake(scope, head, is_first=not self._exchanges):
                    self._handshake = scope
                    return
                self._keeps_body = head.has_body
            if head.takes_trailers:
                scope["extensions"] = {"http.response.trailers": {}}
        if self._sends_files:
            scope[SENDS_FILES] = True
        keep_alive = version == "1.1" and self.parser.should_keep_alive()
        self._take(Exchange(self, self.app, scope, request_id, keep_alive, head.expects_continue))

    @property
    def app(self) -> ASGIApp:
        """What is to answer the request whose head was parsed last."""
        return self.edge.forwarded_app if self.head.is_forwarded else self.edge.app

    def on_body(self, body: bytes | memoryview) -> None:
        self._barren_bytes = -1
        exchange = self.reading
        if exchange is None or exchange.complete:
            return  # the app has answered without it
        limit = self.edge.front.max_request_body_bytes
        if limit is not None and exchange.body_total + len(body) > limit:
            raise Refused(413, "The request body is too large")
        exchange.take(body)
        if self.body_waiting > self.edge.unread_bytes:
            self.pause_reading()

    def on_message_complete(self) -> None:
        exchange = self.reading
        if exchange is None or self._keeps_body:
            return
        self.reading = None
        exchange.more_body = False
        was_complete = exchange.complete  # else it goes on to the next request by itself, perhaps in this very call
        exchange.tell()
        if not exchange.keep_alive:
            self.is_ignoring = True
        elif was_complete:
            self._next()

    def _take(self, exchange: Exchange) -> None:
        self.awaits = None
        self.reading = exchange
        self._barren_bytes = 0
        if self.head.is_chunked:
            self.head.expect_trailers()
        self._exchanges.append(exchange)
        if len(self._exchanges) == 1:
            self._to_start = exchange
        elif len(self._exchanges) > self.edge.limits.max_pipelined:
            self.pause_reading()

    def _await_head(self, was_in_head: bool) -> None:
        """The head is not whole yet: its deadline and its size are watched from here on."""
        if not was_in_head:
            self._await_client(Wait.HEAD)
        else:
            self._head_bytes += self._packet
            if self._head_bytes > self.edge.front.max_request_head_bytes:
                self.refuse(Refused(431, "The request header fields are too large"))

    def _check_body_grows(self) -> None:
        """Chunk extensions and trailers are no body; without a bound they would be received for ever."""
        self._barren_bytes = 0 if self._barren_bytes < 0 else self._barren_bytes + self._packet
        if self._barren_bytes > self.edge.front.max_request_head_bytes:
            self.refuse(Refused(431, "The trailer fields or chunk extensions are too large"))

    def _go_on_after_upgrade(self, rest: bytes) -> bytes:
        """A WebSocket's next bytes are frames, any other's are HTTP."""
        if self._handshake is not None:
            become_websocket(self, self._handshake, rest)
            return b""
        if self._keeps_body:  # the parser takes it for what follows the upgrade; a fresh one is told what it is
            self._keeps_body = False
            self.parser = parser_within_body(self, self.head.length)
        return rest

    # Answers, in their order

    def _start(self, exchange: Exchange) -> None:
        if not exchange.disconnected:
            exchange.start()

    @property
    def has_one_request(self) -> bool:
        """Whether nothing waits behind the request that is being answered."""
        return len(self._exchanges) == 1

    def exchange_ended(self, exchange: Exchange) -> None:
        """The answer is complete: on to the next request, or to the end of the connection."""
        if not exchange.keep_alive:
            self._say_goodbye(is_upload_unread=self.reading is not None)
        elif self.reading is exchange:
            self._await_client(Wait.GOODBYE)  # the rest of the body is dropped as it comes, but not for ever
            self.resume_reading()
        else:
            self._next()

    def _next(self) -> None:
        self._exchanges.popleft()
        if self._exchanges:
            self.loop.call_soon(self._start, self._exchanges[0])
        elif self._refusal is not None:
            self._answer_refusal(self._refusal)
        elif not self.head.is_open:
            self._await_client(Wait.NEXT)
        self.resume_reading()

    def _refuse_unparsed(self, error: httptools.HttpParserError) -> None:
        if self.is_ignoring:
            return  # the request before this said that it would be the last
        cause = error.__context__
        if isinstance(cause, Refused):
            self.refuse(cause)
            return
        if isinstance(error, httptools.HttpParserCallbackError):
            log.error("a request could not be taken", exc_info=cause)
        self.refuse(Refused(400, "The request is malformed"))

    def refuse(self, refusal: Refused) -> None:
        """Answer so, as soon as the requests before it are answered, and close."""
        self.is_ignoring = True
        exchange, self.reading = self.reading, None
        if exchange is not None:  # its head was good, its body is not
            if exchange.started:
                exchange.cut()
                return
            self._exchanges.remove(exchange)
            exchange.disconnect()
        if self._exchanges:
            self._refusal = refusal
        else:
            self._answer_refusal(refusal)

    def _answer_refusal(self, refusal: Refused) -> None:
        body = refusal.reason.encode() + b"\n"
        self.transport.write(
            b"%b%bcontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (STATUS_LINES[refusal.status], self.edge.date_line, len(body), body)
        )
        self.edge.tally.refuse(self.client, refusal.status, len(body))
        self._say_goodbye(is_upload_unread=True)

    def _say_goodbye(self, *, is_upload_unread: bool) -> None:
        """Close. Where the client may still be sending, only our half at first: a reset would take the answer from it."""
        self.is_ignoring = True
        for exchange in self._exchanges:
            exchange.let_go_of_body()
        self._exchanges.clear()
        self.reading = None
        if is_upload_unread and self.transport.can_write_eof():
            self.transport.write_eof()
            self._await_client(Wait.GOODBYE)
            self.resume_reading()
        else:
            self.transport.close()

    def reset(self) -> None:
        """Close so that the client sees an error: with RST instead of FIN."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def write_continue(self) -> None:
        """The app wants the body that the client holds back (RFC 9110 §10.1.1)."""
        self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def pause_reading(self) -> None:
        """Until the app takes what has been received."""
        if not self.is_read_paused and not self.transport.is_closing():
            self.is_read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Unless there is still too much that waits for its turn."""
        if not self.is_read_paused or self.transport.is_closing():
            return
        edge = self.edge
        if len(self._exchanges) <= edge.limits.max_pipelined and self.body_waiting <= edge.unread_bytes:
            self.is_read_paused = False
            self.transport.resume_reading()

    # The edge's calls

    def _await_client(self, what: Wait) -> None:
        self.awaits = what
        self.since = monotonic()

    def sweep(self, now: float) -> None:
        """Close, if what the client is awaited for did not come in time."""
        if self._clocks is None:
            self._clocks = Clocks()
        self._clocks.sweep(self, now)

    def give_up(self, reason: str) -> None:
        """Cut the connection, whatever is under way on it."""
        for exchange in self._exchanges:
            exchange.trail.reason = exchange.trail.reason or reason
        self.reset()

    def drain(self, code: int = 0, /) -> None:
        """What is being answered is the last of this connection; an idle one is closed by ``sweep``."""
        if self._exchanges:
            self._exchanges[-1].keep_alive = False

    def abort(self) -> None:
        """Close at once; what is in flight gets 503, or is cut."""
        self._start_held()
        for exchange in list(self._exchanges):
            exchange.cancel()
        if not self._exchanges:
            self.transport.close()
