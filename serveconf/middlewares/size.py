"""``RequestSizeAndTime``: no body larger, and no answer later, than one route allows; inside what http_options allows."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serveconf.middlewares.answers import answer, header


class RequestSizeAndTime:
    """413 past ``max_body_bytes``; 504 past ``timeout_s`` without the beginning of an answer. None is no limit."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int | None = None, timeout_s: float | None = None) -> None:
        self.app = app
        if max_body_bytes is None and timeout_s is None:
            raise ValueError("give max_body_bytes, timeout_s or both")
        self._most = max_body_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = header(scope, b"content-length")
        if self._most is not None and length is not None and length.isdigit() and int(length) > self._most:
            await answer(scope, receive, send, 413, "Content Too Large")
            return
        started = False
        taken = 0

        async def counting() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if self._most is None or taken <= self._most:
                return message
            if not started:
                await answer(scope, receive, noting, 413, "Content Too Large")
            raise ClientDisconnect  # for the app there is no more of it

        async def noting(message: Message) -> None:
            nonlocal started
            if not started:
                started = True
                deadline.reschedule(None)
            await send(message)

        async def answering(message: Message) -> None:
            if self._most is None or taken <= self._most:  # else the answer has been given
                await noting(message)

        try:
            async with asyncio.timeout(self._timeout_s) as deadline:
                await self.app(scope, counting if self._most is not None else receive, answering)
        except TimeoutError:
            if not deadline.expired() or started:
                raise
            await answer(scope, receive, send, 504, "Gateway Timeout")
        except Exception:  # an app that was told "too large" may raise anything; else it is its own error, and goes on
            if self._most is None or taken <= self._most:
                raise
