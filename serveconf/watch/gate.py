"""A gate between those who read files and the one who changes them: many read at once, or one changes, and neither starves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._readers = 0
        self._closing = False
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Nobody changes anything in here."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._closing)
            self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            async with self._changed:
                self._changed.notify_all()

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Nobody reads in here; who comes meanwhile waits."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._closing)
            self._closing = True
            try:
                await self._changed.wait_for(lambda: not self._readers)
            except BaseException:  # a cancel too: whoever waits must not wait for ever
                self._closing = False
                self._changed.notify_all()
                raise
        try:
            yield
        finally:
            self._closing = False
            async with self._changed:
                self._changed.notify_all()
