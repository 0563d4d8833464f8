"""A function or an object with ``__call__`` as an ASGI app: request in, whatever it returns out as a response.

Any path and any method below the prefix reach it. Sync code runs in a thread pool. What it raises becomes a plain 500
and is raised on, so that the server above logs it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing
from typing import Any

import anyio
from fastapi.encoders import jsonable_encoder
from starlette.concurrency import run_in_threadpool
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from serveconf.ingress.kinds import takes_request

_END = object()


def as_app(func: Callable[..., Any]) -> ASGIApp:
    """``func(request)``, or ``func()`` where it takes nothing, as an ASGI app."""
    call, with_request = _caller(func), takes_request(func)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)
            return
        request = Request(scope, receive, send)
        result = await (call(request) if with_request else call())
        if isinstance(result, AsyncGenerator | Generator):
            await _stream(result, scope, receive, send)
        else:
            await as_response(result)(scope, receive, send)

    return ServerErrorMiddleware(app)


def as_response(result: Any) -> Response:
    """A return value as a response; generators are not for here."""
    match result:
        case Response():
            return result
        case None:
            return Response()
        case str():
            return PlainTextResponse(result)
        case bytes() | bytearray() | memoryview():
            # named as a header: as a media type Starlette would add a charset, which nobody knows for bytes
            return Response(bytes(result), headers={"content-type": "text/plain"})
    return JSONResponse(_plain(result))


def _caller(func: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """``func`` to be awaited, run in a thread where it is sync. Making a generator runs none of its code."""
    kind = functools.partial(_is_kind, func)

    async def call(*args: Any) -> Any:
        if kind(inspect.iscoroutinefunction):
            return await func(*args)
        if kind(inspect.isasyncgenfunction) or kind(inspect.isgeneratorfunction):
            return func(*args)
        result = await run_in_threadpool(func, *args)
        return await result if inspect.isawaitable(result) else result

    return call


def _is_kind(func: Callable[..., Any], test: Callable[[object], bool]) -> bool:
    while isinstance(func, functools.partial):
        func = func.func
    return test(func) or test(getattr(func, "__call__", None))  # noqa: B004 - the method itself is looked at, not whether there is one


async def _stream(
    source: AsyncGenerator[Any, Any] | Generator[Any, Any, Any], scope: Scope, receive: Receive, send: Send
) -> None:
    """Send what ``source`` yields as it comes, and close it whatever happens.

    The first chunk is awaited before the response starts, so that an early exception is still a 500.
    """
    items = source if isinstance(source, AsyncGenerator) else iterate_in_threads(source)
    try:
        first = await anext(items, _END)
        chunks = _chunks(first, items)
        async with aclosing(chunks):
            await StreamingResponse(chunks, media_type="text/plain")(scope, receive, send)
    finally:
        with anyio.CancelScope(shield=True):  # the client may have left: its cancellation must not cut the clean-up
            await items.aclose()


async def _chunks(first: Any, rest: AsyncGenerator[Any, Any]) -> AsyncGenerator[bytes, None]:
    if first is _END:
        return
    yield _as_bytes(first)
    async for item in rest:
        yield _as_bytes(item)


async def iterate_in_threads(source: Generator[Any, Any, Any]) -> AsyncGenerator[Any, None]:
    """Each step in a thread. A cancelled reader lets a step that has begun end: a generator that runs cannot be closed."""
    step: asyncio.Task[Any] | None = None
    try:
        while True:
            step = asyncio.create_task(run_in_threadpool(next, source, _END))
            if (item := await asyncio.shield(step)) is _END:
                return
            yield item
    finally:
        with anyio.CancelScope(shield=True):
            if step is not None and not step.done():
                await asyncio.gather(step, return_exceptions=True)
            await run_in_threadpool(source.close)


def _as_bytes(item: Any) -> bytes:
    match item:
        case bytes() | bytearray() | memoryview():
            return bytes(item)
        case str():
            return item.encode()
    return json.dumps(_plain(item), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _plain(result: Any) -> Any:
    """``result`` as data that JSON knows. numpy's values too, where numpy is there: a result can hold none otherwise."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return jsonable_encoder(result)
    return jsonable_encoder(
        result,
        custom_encoder={
            numpy.ndarray: lambda array: jsonable_encoder(array.tolist()),
            numpy.generic: lambda scalar: jsonable_encoder(scalar.item()),
        },
    )
