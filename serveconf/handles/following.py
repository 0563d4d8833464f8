"""Keeps a directory at the committed generation, from the moment a handle is first there.

The controller stages and commits generations here as it does at proxies; so that it knows of this process, the process
``joins``. Whoever has missed one, as it could not answer, finds it in the store within ``LOOK_EVERY_S``: until then its
calls go where they went, for replicas that are replaced drain only when every connection to them has been let go of. A
process without handles looks at nothing, and nobody tells it anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from serveconf.figures import Histogram
from serveconf.handles.calling import WireCaller
from serveconf.handles.directory import Directory, ReadBeginning
from serveconf.proxy.pool import ReplicaPool
from serveconf.routing import decode

log = logging.getLogger("serveconf.handles")

LOOK_EVERY_S = 2.0
JOIN_S = 5.0  # how long a replica that starts waits until the controller can find it


class Following:
    """A caller whose directory follows the store. Made, and used, on the loop that its connections live on."""

    def __init__(
        self,
        pool: ReplicaPool,
        read: Callable[[], Awaitable[bytes | None]],
        read_beginning: ReadBeginning | None = None,
        *,
        join: Callable[[], Awaitable[None]] | None = None,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        """``join``: have the controller push generations; without, or until that has worked, ``read`` alone tells of them."""
        self.directory = Directory(pool, read_beginning)
        self._loop = asyncio.get_running_loop()
        self._read = read
        self._join = join
        self._every_s = every_s
        self._caller: WireCaller | None = None
        self._task: asyncio.Task[None] | None = None
        self._seen: bytes | None = None
        self._begun = False
        self._joined = asyncio.Event()

    def caller(self) -> WireCaller:
        """Who makes the calls of this process; from any thread."""
        if self._caller is None:
            self._caller = WireCaller(self.directory, self._loop)
            self.begin()
        return self._caller

    @property
    def durations(self) -> dict[str, Histogram]:
        """How long this process's calls have taken, by ``stack/deployment``."""
        return {} if self._caller is None else self._caller.durations

    def begin(self) -> None:
        """Code of this process has a handle; from any thread."""
        if not self._begun:
            self._begun = True
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if self._task is None:
            self._task = self._loop.create_task(self._look_again_and_again())

    async def joined(self) -> None:
        """Where it has a handle by now: when the controller can find it, and the table is there; or it takes too long."""
        if self._begun:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(JOIN_S):
                    await self._joined.wait()

    async def _look_again_and_again(self) -> None:
        while True:
            try:
                if self._join is not None:
                    await self._join()
                    self._join = None
            except Exception as error:  # noqa: BLE001 - the store may take nothing for a while: then it is read alone
                log.warning("the controller cannot be told of this process: %r", error)
            try:
                await self.refresh()
                if self._join is None:
                    self._joined.set()
            except Exception as error:  # noqa: BLE001 - the store may be out of reach for a while: what is known holds
                log.warning("the routing table cannot be read: %r", error)
            await asyncio.sleep(self._every_s)

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
