"""HTTP/2 as far as uvicorn itself carries it: for TLS clients that ask for it, beside HTTP/1.1 on the same port.

Off by default, and ``zttp`` must be installed (the extra ``http2``). uvicorn's protocol frames and multiplexes; what the
edge owes every request is put around the app here: request id, body limit, hop-by-hop fields, counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.zttp_h2_impl import RequestResponseCycle, ZttpH2Protocol
from uvicorn.server import ServerState

from serveconf.proxy.clocks import Stall, Wait, seconds_for, taken_by
from serveconf.proxy.edge import Edge
from serveconf.proxy.middleware import plain_body
from serveconf.proxy.rules import HOP_BY_HOP, Refused, check_host, check_size, is_request_id, make_request_id
from serveconf.proxy.system import send_text
from serveconf.proxy.tally import CLIENT_LEFT, TRAIL, Reason, Trail

ALPN = ("h2", "http/1.1")


class Http2Protocol(ZttpH2Protocol):
    """One HTTP/2 connection of a client."""

    def __init__(self, edge: Edge, loop: asyncio.AbstractEventLoop, config: Config) -> None:
        state = ServerState()
        state.connections = edge.connections  # type: ignore[assignment]
        state.tasks = edge.tasks
        super().__init__(config=config, server_state=state, app_state={}, _loop=loop)
        self.app: Any = Http2Request(edge)
        self._edge = edge
        self._taken = Stall()
        self._granted = Stall()
        self._given = 0  # bytes of answers so far
        self._idle = Stall()
        self._room = asyncio.Event()  # something came from the client: it may have made room for more of its answers
        self._awaits = Wait.HEAD
        self.timeout_keep_alive: Any = edge.front.keep_alive_timeout_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """One that is one too many is told to go: there is no stream yet to answer 503 on."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if self._edge.is_full:
            self.shutdown()

    def handle_request(self, event: Any) -> None:
        """A request whose head ends it has no later event that says so; uvicorn 0.54 waits for one."""
        self._awaits = Wait.NEXT
        super().handle_request(event)
        cycle = self.cycles.get(event.stream_id)
        if cycle is None:
            return
        cycle.send = partial(self._send, cycle, cycle.send)  # type: ignore[method-assign]
        if event.end_stream:
            cycle.more_body = False
            cycle.message_event.set()

    async def _send(self, cycle: RequestResponseCycle, send: Any, message: Any) -> None:
        """As uvicorn's, when the client has made room for what was sent before (RFC 9113 §5.2): else all of an answer would be
        kept here for one that takes none of it."""
        while _kept(cycle) > self._edge.limits.max_unsent_bytes and not cycle.disconnected:
            self._room.clear()
            await self._room.wait()
        self._given += len(message.get("body", b""))
        await send(message)

    def data_received(self, data: bytes) -> None:
        """Room for an answer may have come, or its end."""
        super().data_received(data)
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for room any more."""
        super().connection_lost(exc)
        self._room.set()

    def sweep(self, now: float) -> None:
        """Cut a client that takes nothing; close where no request is under way for too long, whatever else it sends."""
        taken, kept = taken_by(self.transport), sum(map(_kept, self.cycles.values()))
        stalled_s = max(
            self._taken.seconds(taken, now) if taken is not None else 0.0,
            self._granted.seconds(self._given - kept, now) if kept else 0.0,
        )
        if not kept:
            self._granted = Stall()
        if stalled_s >= seconds_for(Wait.TAKE, self._edge):
            self.transport.abort()
        elif self._idle.seconds(bool(self.cycles), now) >= seconds_for(self._awaits, self._edge) and not self.cycles:
            self.transport.close()

    def drain(self, code: int = 0, /) -> None:
        """Streams that began finish, then the connection says GOAWAY."""
        self.shutdown()

    def abort(self) -> None:
        """What is in flight is cancelled with its tasks."""
        self.transport.close()


def _kept(cycle: RequestResponseCycle) -> int:
    """How many bytes of an answer wait for the client to make room."""
    return cycle.stream.pending_bytes or 0


class Http2Request:
    """The edge's share of an HTTP/2 request, as an ASGI app around the edge's app."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id, length, is_forwarded = self._take_headers(scope)
        tally = self._edge.tally
        tally.begin()
        started = False
        trail = scope[TRAIL] = Trail(monotonic(), request_id)
        status, sent, ended = CLIENT_LEFT, 0, False
        limit = self._edge.front.max_request_body_bytes
        body = _Body(receive, limit, self._edge)

        async def counted_send(message: Message) -> None:
            nonlocal started, status, sent, ended
            if message["type"] == "http.response.start" and not started:
                started, status = True, message["status"]
                tally.answer(status)
                message = {**message, "headers": self._answer_headers(message.get("headers", ()), request_id)}
            elif message["type"] == "http.response.body":
                sent += len(message.get("body", b""))
                ended = not message.get("more_body", False)
            await send(plain_body(message))

        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                trail.reason = Reason.TOO_LARGE if refusal.status in (414, 431) else Reason.MALFORMED
                await send_text(scope, counted_send, refusal.status, f"{refusal.reason}\n")
                return
            if limit is not None and length is not None and length > limit:
                trail.reason = Reason.TOO_LARGE
                await send_text(scope, counted_send, 413, "The request body is too large\n")
                return
            app = self._edge.forwarded_app if is_forwarded else self._edge.app
            await app(scope, body, counted_send)
            if not ended and not body.left:
                raise RuntimeError("an app returned without a complete answer")
        except _BodyTooLarge:
            trail.reason = Reason.TOO_LARGE
            if started:
                raise
            await send_text(scope, counted_send, 413, "The request body is too large\n")
        except _BodyTooLate:
            trail.reason = Reason.TOO_SLOW
            if started:
                raise
            await send_text(scope, counted_send, 408, "The request body did not come in time\n")
        except Exception:  # counted, and raised on
            trail.reason = trail.reason or (Reason.CUT if started else Reason.FAILED)
            if started:
                tally.cut()
            elif not body.left:
                status = 500  # uvicorn's answer
            raise
        finally:
            if not started:
                tally.leave()
            if not ended:
                trail.reason = trail.reason or Reason.CLIENT_LEFT
            tally.ended(scope, trail, status, body.received, sent)

    def _refusal(self, scope: Scope) -> Refused | None:
        """What HTTP/1.1 is refused for: the size of its head, a method, a target or a host that are none."""
        query = scope["query_string"]
        target = scope["raw_path"] + b"?" + query if query else scope["raw_path"]
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        try:
            check_size(target, scope["headers"], self._edge.front)
            if len(hosts) > 1:
                return Refused(400, "More than one Host")
            if hosts:  # zttp makes one of :authority (RFC 9113 §8.3.1)
                check_host(hosts[0], "1.1")
        except Refused as refused:
            return refused
        if scope["method"] == "CONNECT":
            return Refused(501, "CONNECT is not supported")
        if not target.startswith(b"/") and not (target == b"*" and scope["method"] == "OPTIONS"):
            return Refused(400, "The request target is malformed")
        return None

    def _take_headers(self, scope: Scope) -> tuple[bytes, int | None, bool]:
        request_id, length, is_forwarded = b"", None, False
        kept = []
        id_name = self._edge.request_id_name
        for name, value in scope["headers"]:
            if name == id_name:
                if not request_id and is_request_id(value):
                    request_id = value
                continue
            if name in HOP_BY_HOP or name.startswith(b":"):  # such a name is ours alone on the way to a replica
                continue
            if name == b"content-length" and value.isdigit():
                length = int(value)
            is_forwarded = is_forwarded or name in (b"x-forwarded-for", b"x-forwarded-proto")
            kept.append((name, value))
        if id_name:
            request_id = request_id or make_request_id()
            kept.append((id_name, request_id))
        scope["headers"] = kept
        scope.pop("state", None)
        return request_id, length, is_forwarded

    def _answer_headers(self, headers: Any, request_id: bytes) -> list[tuple[bytes, bytes]]:
        fields = [(name.lower(), value) for name, value in headers]
        names = {name for name, _ in fields}
        fields = [field for field in fields if field[0] not in HOP_BY_HOP]
        if b"date" not in names:
            fields.append((b"date", self._edge.date_line[6:-2]))
        if request_id and self._edge.request_id_name not in names:
            fields.append((self._edge.request_id_name, request_id))
        return fields


class _BodyTooLarge(Exception):
    """The body went past the limit while it was received."""


class _BodyTooLate(Exception):
    """Nothing of the body came for too long, while the app waited for it."""


class _Body:
    """ASGI's ``receive``, counted and limited."""

    def __init__(self, receive: Receive, limit: int | None, edge: Edge) -> None:
        self._receive = receive
        self._limit = limit
        self._edge = edge
        self._more = True
        self.received = 0
        self.left = False

    async def __call__(self) -> Message:
        message = await (self._receive_in_time() if self._more else self._receive())
        self._more = message.get("more_body", False)
        self.left = message["type"] == "http.disconnect"
        self.received += len(message.get("body", b""))
        if self._limit is not None and self.received > self._limit:
            raise _BodyTooLarge
        return message

    async def _receive_in_time(self) -> Message:
        deadline = asyncio.timeout(seconds_for(Wait.BODY, self._edge))
        try:
            async with deadline:
                return await self._receive()
        except TimeoutError:
            if deadline.expired():
                raise _BodyTooLate from None
            raise


class AlpnProtocol(asyncio.Protocol):
    """A TLS connection until it is known what the client speaks: that is settled when the handshake is over."""

    def __init__(self, http1: Callable[[], asyncio.Protocol], http2: Callable[[], asyncio.Protocol]) -> None:
        self._make_http1 = http1
        self._make_http2 = http2

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        chosen = tls.selected_alpn_protocol() if tls is not None else None
        protocol = self._make_http2() if chosen == "h2" else self._make_http1()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
