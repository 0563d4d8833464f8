"""A gate between those who read files and the one who changes them: many read at once, or one changes, and neither starves.

With a ``file`` it holds between processes too: two that follow one branch share a checkout.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from serveconf.watch import file_lock


class Gate:
    """Belongs to one event loop."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
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
            async with file_lock.shared(self._file):
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
            async with file_lock.alone(self._file):
                yield
        finally:
            self._closing = False
            async with self._changed:
                self._changed.notify_all()
