"""One ASGI call of the proxy on a stream: the request goes to the replica, the answer comes back.

``WireClient`` calls ``begin_http`` and ``finish_http``, or ``run_websocket``.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import Any

from serveconf.wire.carried import give_back
from serveconf.wire.client_stream import ClientStream, StreamCut
from serveconf.wire.frames import PIECE_COST, Accept, Body, Close, File, Message, Reply, StreamError, Trailers, cost_of
from serveconf.wire.lent import SENDS_FILES, LentFile
from serveconf.wire.opening import BodyMode
from serveconf.wire.stream import as_bytes
from serveconf.wire.websockets import Assembly

log = logging.getLogger("serveconf.wire")

BODY_FOLLOWS = "serveconf.body_follows"  # in an http.response.start: its first http.response.body comes right behind
CLIENT_LEFT = 499  # what a call returns for a client that did not wait for its answer


async def begin_http(stream: ClientStream, scope: dict[str, Any], receive: Any, mode: BodyMode) -> bool:
    """Send one http request; False if the client has left before."""
    body, more = b"", mode is not BodyMode.NONE
    if mode is BodyMode.PULL:
        message = await receive()
        if message["type"] != "http.request":
            return False
        body, more = as_bytes(message.get("body", b"")), bool(message.get("more_body", False))
    stream.begin_http(scope, receive, mode, body, more)
    return True


async def finish_http(stream: ClientStream, scope: dict[str, Any], send: Any) -> int:
    """Send the answer on; its status, or CLIENT_LEFT."""
    more = True
    status = CLIENT_LEFT
    while True:
        frame = await stream.next()
        kind = type(frame)
        cost = 0
        if kind is Reply:
            status = frame.status  # type: ignore[union-attr]
            stream.started = True
            more, stream.awaits_trailers = frame.more, frame.trailers  # type: ignore[union-attr]
            stream.answered = not (more or stream.awaits_trailers)
            if frame.session:  # type: ignore[union-attr]
                give_back(frame.session, scope)  # type: ignore[union-attr]
            start = {"type": "http.response.start", "status": status, "headers": frame.headers}  # type: ignore[union-attr]
            data = frame.body  # type: ignore[union-attr]
            cost = len(data) + PIECE_COST if data else 0
            if stream.awaits_trailers:
                start["trailers"] = True
            if data or not more:
                start[BODY_FOLLOWS] = True
                await send(start)
                await send({"type": "http.response.body", "body": data, "more_body": more})
            else:
                if frame.follows:  # type: ignore[union-attr]
                    start[BODY_FOLLOWS] = True
                await send(start)
        elif kind is Body and stream.started:
            data = frame.data  # type: ignore[union-attr]
            cost = cost_of(frame)  # type: ignore[arg-type]
            more = frame.more  # type: ignore[union-attr]
            stream.answered = not (more or stream.awaits_trailers)
            await send({"type": "http.response.body", "body": data, "more_body": more})
        elif kind is File and stream.started and more and not stream.awaits_trailers:
            file = await stream.open_file(frame)  # type: ignore[arg-type]
            if file is not None:
                await _send_file(file, scope, send)
                return status
        elif kind is Trailers and stream.awaits_trailers and not more:
            stream.answered = True
            await send({"type": "http.response.trailers", "headers": frame.headers, "more_trailers": False})  # type: ignore[union-attr]
        elif frame is None:
            return CLIENT_LEFT
        else:
            raise StreamCut(stream.started)
        if stream.answered:
            return status
        frame = data = None  # the next one may be long in coming
        stream.used(cost)


async def _send_file(file: LentFile, scope: dict[str, Any], send: Any) -> None:
    """The body of an answer from a file, to whoever knows of such bodies, and to others in pieces."""
    try:
        if SENDS_FILES in scope:
            await send({"type": "http.response.pathsend", "file": file})
            return
        async with aclosing(file.pieces()) as pieces:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    except (EOFError, OSError) as error:
        log.error("an answer is cut, its file cannot be read: %s", error)
        raise StreamCut(response_started=True) from error
    finally:
        file.close()


async def run_websocket(stream: ClientStream, scope: dict[str, Any], receive: Any, send: Any) -> int:
    """One WebSocket; 101 if it was accepted, else the status that it was denied with."""
    stream.begin_websocket(scope, receive)
    assembly = Assembly(stream)
    status = CLIENT_LEFT
    while True:
        frame = await stream.next()
        if frame is None:
            return status
        if isinstance(frame, Message):
            try:
                whole = assembly.add(frame)
            except StreamError as error:
                raise StreamCut(stream.started) from error
            if whole is not None:
                content, size = whole
                await send({"type": "websocket.send", "text" if frame.text else "bytes": content})
                stream.used(size)
        elif isinstance(frame, Accept):
            status, stream.started = 101, True
            await send({"type": "websocket.accept", "subprotocol": frame.subprotocol, "headers": frame.headers})
        elif isinstance(frame, Close):
            stream.answered = True
            await send({"type": "websocket.close", "code": frame.code, "reason": frame.reason})
            return status if stream.started else 403
        elif isinstance(frame, Reply):
            status, stream.started = frame.status, True
            await send({"type": "websocket.http.response.start", "status": status, "headers": frame.headers})
        elif isinstance(frame, Body):
            stream.answered = not frame.more
            await send({"type": "websocket.http.response.body", "body": bytes(frame.data), "more_body": frame.more})
            stream.used(cost_of(frame))
            if stream.answered:
                return status
            frame = None  # as in finish_http
        else:
            raise StreamCut(stream.started)
