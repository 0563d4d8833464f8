"""Keeps a directory at the committed generation by looking into the store, from the moment a handle is first there.

A process without handles looks at nothing. It is told of a change within ``LOOK_EVERY_S``; until then its calls go where
they went, for replicas that are replaced drain only when every connection to them has been let go of.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from serveconf.figures import Histogram
from serveconf.handles.calling import WireCaller
from serveconf.handles.directory import Directory, ReadBeginning
from serveconf.proxy.pool import ReplicaPool
from serveconf.routing import decode

log = logging.getLogger("serveconf.handles")

LOOK_EVERY_S = 0.25


class Following:
    """A caller whose directory follows the store. Made, and used, on the loop that its connections live on."""

    def __init__(
        self,
        pool: ReplicaPool,
        read: Callable[[], Awaitable[bytes | None]],
        read_beginning: ReadBeginning | None = None,
    ) -> None:
        self.directory = Directory(pool, read_beginning)
        self._loop = asyncio.get_running_loop()
        self._read = read
        self._caller: WireCaller | None = None
        self._task: asyncio.Task[None] | None = None
        self._seen: bytes | None = None

    def caller(self) -> WireCaller:
        """Who makes the calls of this process; from any thread."""
        if self._caller is None:
            self._caller = WireCaller(self.directory, self._loop)
            self._loop.call_soon_threadsafe(self._follow)
        return self._caller

    @property
    def durations(self) -> dict[str, Histogram]:
        """How long this process's calls have taken, by ``stack/deployment``."""
        return {} if self._caller is None else self._caller.durations

    def _follow(self) -> None:
        if self._task is None:
            self._task = self._loop.create_task(self._look_again_and_again())

    async def _look_again_and_again(self) -> None:
        while True:
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001 - the store may be out of reach for a while: what is known holds
                log.warning("the routing table cannot be read: %r", error)
            await asyncio.sleep(LOOK_EVERY_S)

    async def refresh(self) -> None:
        """Take the table that is committed now. Raises what reading it raises."""
        data = await self._read()
        if data is not None and data != self._seen:
            await self.directory.take(decode(data))
            self._seen = data

    async def close(self) -> None:
        """Let go of every replica."""
        if self._task is not None:
            self._task.cancel()
        await self.directory.close()
