"""Uploads of code packages: how many bytes of them the controller holds at once. What has no room yet waits, unread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from serveconf.errors import AuthorError, NoRoom

MAX_PACKAGE_BYTES = 120_000_000
AT_ONCE_BYTES = 250_000_000
WAIT_S = 30.0


class Uploads:
    """Those that are under way."""

    def __init__(self, *, at_once: int = AT_ONCE_BYTES, wait_s: float = WAIT_S) -> None:
        self._free = at_once
        self._wait_s = wait_s
        self._freed = asyncio.Condition()

    async def take(self, request: Request) -> bytes:
        """The body, once there is room for it. Raises AuthorError where it is too large, NoRoom where none came free."""
        size = _announced(request)
        if size > MAX_PACKAGE_BYTES:
            raise _too_large()
        async with self._room(size):
            data = bytearray()
            async for chunk in request.stream():
                data += chunk
                if len(data) > size:
                    raise _too_large()
            return bytes(data)

    @asynccontextmanager
    async def _room(self, size: int) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._wait_s), self._freed:
                await self._freed.wait_for(lambda: self._free >= size)
                self._free -= size
        except TimeoutError:
            raise NoRoom(
                "other uploads of code packages are under way", hint="apply again in a moment", code="uploads_full"
            ) from None
        try:
            yield
        finally:
            async with self._freed:
                self._free += size
                self._freed.notify_all()


def _announced(request: Request) -> int:
    """How many bytes come at most."""
    said = request.headers.get("content-length", "")
    return int(said) if said.isascii() and said.isdigit() else MAX_PACKAGE_BYTES


def _too_large() -> AuthorError:
    return AuthorError("the code package is larger than 100 MB", code="code_too_large")
