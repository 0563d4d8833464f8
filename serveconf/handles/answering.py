"""The called end: the ASGI application of a replica, which runs calls by handle itself and passes requests on to the app."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from serveconf.errors import AuthorError
from serveconf.handles.invoking import invoke, invoke_stream
from serveconf.handles.parcels import has_buffers, unpack
from serveconf.handles.traced import Tracing, run_traced, watching
from serveconf.handles.wire_form import HTTP_VERSION, LENGTH, STREAM, error_item, value_item
from serveconf.runtime import context
from serveconf.tracing import CARRIED
from serveconf.wire import GENERATION_HEADER

log = logging.getLogger("serveconf.replica")

Holding = Callable[[int], AbstractContextManager[int]]


class Answering:
    """``servable`` gives the object that is called; ``holding`` keeps the routing table that a request began with, and says
    which one that is.
    """

    def __init__(
        self,
        app: ASGIApp,
        servable: Callable[[], Any],
        holding: Holding | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._tracing = tracing
        self._app = app
        self._servable = servable
        self._holding = holding

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request, WebSocket or call."""
        if scope["http_version"] == HTTP_VERSION:
            return self._within(scope, self._answer, receive, send)
        return self._within(scope, self._app, receive, send)

    async def _within(self, scope: Scope, app: ASGIApp, receive: Receive, send: Send) -> None:
        """With the request's own context; the calls that it has made end with it where its client leaves."""
        endpoint = scope["state"].pop(CARRIED, None)
        span = self._tracing.begin(endpoint, scope) if endpoint is not None and self._tracing is not None else None
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        said = _generation(headers)
        with self._holding(said) if self._holding is not None else nullcontext(0) as generation:
            request = context.Request(headers, generation, span=span)
            context.request.set(request)
            try:
                if span is None:
                    await app(scope, receive, send)
                else:
                    watched = watching(span, send)
                    await run_traced(span, lambda: app(scope, receive, watched))
            except asyncio.CancelledError:
                request.cancel_calls()
                raise

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            args, kwargs = await _arguments(receive)
            if scope["method"] == STREAM:
                await self._answer_stream(scope["path"], args, kwargs, send)
                return
            pieces = value_item(await invoke(self._servable(), scope["path"], args, kwargs))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - user code: whatever it raises, SystemExit too, is its caller's
            pieces = _failed(scope, error)
        await send(_start(sum(map(len, pieces))))
        await _send_pieces(pieces, send, last=True)

    async def _answer_stream(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], send: Send) -> None:
        await send(_start(None))
        items = invoke_stream(self._servable(), method, args, kwargs)
        try:
            goes_on = True
            while goes_on:
                try:
                    pieces = value_item(await anext(items))
                except StopAsyncIteration:
                    break
                except asyncio.CancelledError:
                    raise
                except BaseException as error:  # noqa: BLE001 - as above
                    pieces, goes_on = _failed({"path": method}, error), False
                await _send_pieces(pieces, send, last=False)
        finally:
            await items.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _generation(headers: list[tuple[bytes, bytes]]) -> int:
    """Taken away: it is not for the app."""
    if headers and headers[-1][0] == GENERATION_HEADER:
        return int(headers.pop()[1])
    return 0


async def _arguments(receive: Receive) -> tuple[tuple[Any, ...], dict[str, Any]]:
    message = await receive()
    body = message.get("body", b"")
    if message.get("more_body", False):
        whole = bytearray(body)
        while message.get("more_body", False):
            message = await receive()
            whole += message.get("body", b"")
        body = whole
    elif has_buffers(body):
        body = bytearray(body)  # arrays look into it, and may be written to
    args, kwargs = unpack(body)
    return args, kwargs


def _failed(scope: Scope, error: BaseException) -> list[bytes | memoryview]:
    request = context.request.get()
    if request is not None and request.span is not None:
        request.span.fail(type(error).__qualname__)
    if not isinstance(error, AuthorError):
        log.error("call of %s raised", scope["path"], exc_info=error)
    return error_item(error)


def _start(length: int | None) -> dict[str, Any]:
    headers = [] if length is None else [(LENGTH, b"%d" % length)]
    return {"type": "http.response.start", "status": 200, "headers": headers}


async def _send_pieces(pieces: list[bytes | memoryview], send: Send, *, last: bool) -> None:
    for number, piece in enumerate(pieces, 1):
        await send({"type": "http.response.body", "body": piece, "more_body": not (last and number == len(pieces))})
