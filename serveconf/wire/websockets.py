"""The replica's end of a WebSocket: ASGI's websocket messages to frames and back."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from serveconf.wire.carried import unpack_extras
from serveconf.wire.checked import as_status, checked_headers
from serveconf.wire.frames import PIECE_COST, Accept, AnyFrame, Body, Close, Cut, Message, Open, Reply, StreamError
from serveconf.wire.handlers import ClientDisconnected, Handler
from serveconf.wire.stream import Stream, as_bytes

if TYPE_CHECKING:
    from serveconf.wire.server import ServerConnection

log = logging.getLogger("serveconf.wire")

INTERNAL_ERROR = 1011  # RFC 6455 §7.4.1, and IANA's registry for 1012
SERVICE_RESTART = 1012
ABNORMAL = 1006
_CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})  # 1004 to 1006 are never sent
_REASON_BYTES = 123
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Assembly:
    """Fragments of one message until it is whole. Fragments are granted back at once, whole messages when read."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._begun: bytearray | None = None

    def add(self, frame: Message) -> tuple[str | bytes, int] | None:
        """The whole message, and what reading it uses up, or None when more of it must come. StreamError when it cannot be."""
        stream = self._stream
        cost = len(frame.data) + PIECE_COST
        stream.received(cost)
        begun = self._begun
        if begun is None:
            if not frame.more:
                return self._content(frame.data, frame.text), cost
            begun = self._begun = bytearray()
        if len(begun) + len(frame.data) > stream.connection.limits.max_message_bytes:
            raise StreamError(stream.number, "message too large")
        begun += frame.data
        if frame.more:
            stream.used(cost)
            return None
        self._begun = None
        return self._content(begun, frame.text), cost

    def _content(self, data: bytes | bytearray, text: bool) -> str | bytes:
        if not text:
            return bytes(data)
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError as error:
            raise StreamError(self._stream.number, "text that is none") from error


def checked_close(code: Any, reason: Any) -> tuple[int, str]:
    """Code and reason as they may stand in a close frame (RFC 6455 §5.5.1, §7.4). RuntimeError for others."""
    if not isinstance(code, int) or not (3000 <= code <= 4999 or code in _CLOSE_CODES):
        raise RuntimeError(f"Invalid WebSocket close code '{code}'.")
    if not isinstance(reason, str):
        raise RuntimeError(f"The reason of a WebSocket's close must be text, not {type(reason).__name__}.")
    if len(reason.encode()) > _REASON_BYTES:
        raise RuntimeError(f"The reason of a WebSocket's close is longer than {_REASON_BYTES} bytes.")
    return int(code), reason


def checked_subprotocol(subprotocol: Any) -> str | None:
    """A token, as it may stand in Sec-WebSocket-Protocol (RFC 6455 §4.2.2). RuntimeError for others."""
    if subprotocol is None:
        return None
    if not isinstance(subprotocol, str) or not _TOKEN.fullmatch(subprotocol):
        raise RuntimeError(f"Invalid WebSocket subprotocol {subprotocol!r}.")
    return subprotocol


class WebSocketHandler(Handler):
    """One WebSocket."""

    told_grace_s = 10.0  # handlers often have something to put in order
    untold_grace_s = 1.0

    def __init__(self, connection: ServerConnection, first: Open) -> None:
        super().__init__(connection, websocket_scope(first, connection.server.state), first.stream)
        self._connected = False  # the application has received websocket.connect
        self._accepted = False
        self._denying = False
        self._can_deny = first.denial
        self._code, self._reason = ABNORMAL, ""
        self._assembly = Assembly(self)
        if first.extras:
            unpack_extras(first.extras, self._scope)

    # from the client

    def frame_received(self, frame: AnyFrame) -> None:
        if type(frame) is Message:
            whole = self._assembly.add(frame)
            if whole is not None and not self.complete:
                self._inbox.append(whole)
                self.wake()
        elif type(frame) is Close:
            self._code, self._reason = frame.code, frame.reason
            self.client_left()
        else:
            raise StreamError(self.number, f"{type(frame).__name__} does not belong here")

    async def receive(self) -> dict[str, Any]:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        while True:
            if self._inbox:
                content, size = self._inbox.popleft()
                self.used(size)
                if isinstance(content, str):
                    return {"type": "websocket.receive", "text": content}
                return {"type": "websocket.receive", "bytes": content}
            if self.gone or self.complete:
                return {"type": "websocket.disconnect", "code": self._code, "reason": self._reason}
            await self.wait()

    # to the client

    async def send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if self.gone:
            if kind == "websocket.close":
                return  # it is closed; a handler that closes in any case goes on with its own clean-up
            raise ClientDisconnected
        if self.complete:
            raise RuntimeError(f"Unexpected ASGI message '{kind}', after the WebSocket was closed.")
        if self._accepted:
            await self._send_open(kind, message)
        elif self._denying:
            await self._send_denial(kind, message)
        else:
            self._send_first(kind, message)

    def _send_first(self, kind: str, message: dict[str, Any]) -> None:
        queue = self.connection.queue
        if kind == "websocket.accept":
            headers, _ = checked_headers(message.get("headers", ()), self.connection.limits)
            queue(Accept(self.number, checked_subprotocol(message.get("subprotocol")), headers))
            self._accepted = True
        elif kind == "websocket.close":
            self._close(ABNORMAL, "", wire_code=1000)
        elif kind == "websocket.http.response.start" and self._can_deny:
            headers, _ = checked_headers(message.get("headers", ()), self.connection.limits)
            queue(Reply(self.number, as_status(message["status"]), headers, others=self.connection.others))
            self._denying = True
        else:
            raise RuntimeError(
                "Expected ASGI message 'websocket.accept', 'websocket.close' or 'websocket.http.response.start' "
                f"but got '{kind}'."
            )

    async def _send_open(self, kind: str, message: dict[str, Any]) -> None:
        if kind == "websocket.send":
            data, text = message.get("bytes"), False
            if data is None:
                data, text = message["text"].encode(), True
            data = as_bytes(data)
            if self.spend(len(data), self.connection.limits.inline_bytes):
                is_alone = self.connection.is_alone
                self.connection.queue(Message(self.number, data, text), is_alone)
                if is_alone:
                    self.connection.server.busy_poll.answered(self.connection.loop)
            else:
                await self.send_message(data, text)
                if self.gone:
                    raise ClientDisconnected
        elif kind == "websocket.close":
            code, reason = checked_close(message.get("code") or 1000, message.get("reason") or "")
            await self.last_in_line()
            self._close(code, reason)
        else:
            raise RuntimeError(f"Expected ASGI message 'websocket.send' or 'websocket.close', but got '{kind}'.")

    async def _send_denial(self, kind: str, message: dict[str, Any]) -> None:
        if kind != "websocket.http.response.body":
            raise RuntimeError(f"Expected ASGI message 'websocket.http.response.body' but got '{kind}'.")
        body, more = as_bytes(message.get("body", b"")), bool(message.get("more_body", False))
        if self.spend(len(body), self.connection.limits.inline_bytes):
            self.connection.queue(Body(self.number, body, more))
        else:
            await self.send_body(body, more)
        if not more:
            self.complete = True
            self.wake()

    def _close(self, code: int, reason: str, *, wire_code: int | None = None) -> None:
        self.connection.queue(Close(self.number, wire_code or code, reason))
        self._code, self._reason = code, reason
        self.complete = True
        self.wake()

    # the end

    def finish(self) -> None:
        if self.gone or self.complete:
            return
        if self._accepted:
            self._close(1000, "")
        else:
            log.error("ASGI callable returned without completing handshake.")
            self.fail()

    def fail(self) -> None:
        if self.gone or self.complete:
            return
        if self._accepted:
            self._close(INTERNAL_ERROR, "")
        else:
            self.complete = True
            self.connection.queue(Cut(self.number))

    def give_up(self) -> None:
        if self._accepted and not self.complete and not self.gone:
            self._close(SERVICE_RESTART, "service restart")
            self._code = SERVICE_RESTART
            self.complete = False  # so that a handler that does not end by itself is cancelled
            self.client_left()
        else:
            super().give_up()


def websocket_scope(first: Open, state: dict[str, Any]) -> dict[str, Any]:
    """The ASGI scope of a WebSocket."""
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": first.http_version,
        "scheme": first.scheme,
        "path": first.path,
        "raw_path": first.raw_path,
        "query_string": first.query_string,
        "root_path": first.root_path,
        "headers": first.headers,
        "client": first.client,
        "server": first.server,
        "subprotocols": first.subprotocols,
        "state": state.copy(),
        "extensions": {"websocket.http.response": {}} if first.denial else {},
    }
