"""Code packages: kept in the store by their digest, unpacked once on each node that needs them."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from serveconf.code.package import unpack
from serveconf.errors import NotFound
from serveconf.reconcile.ports import Store

FRESH_S = 600.0  # a package that was asked for or uploaded so recently may belong to an apply that is yet to come


class Packages:
    """Packages of the store, unpacked below ``folder`` (of this node). ``now`` gives seconds."""

    def __init__(self, store: Store, folder: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._folder = folder
        self._now = now
        self._used: dict[str, float] = {}  # digest -> when somebody last asked for it here

    async def has(self, digest: str) -> bool:
        """Whether the store has the package."""
        self._used[digest] = self._now()
        return bool(await self._store.keys(f"code/{digest}"))

    async def put(self, digest: str, data: bytes) -> None:
        """Keep a package."""
        self._used[digest] = self._now()
        await self._store.put(f"code/{digest}", data)

    def path(self, digest: str) -> Path:
        """The folder that ``folder`` unpacks a package to."""
        return self._folder / digest

    async def folder(self, digest: str) -> Path:
        """The unpacked package. Raises NotFound where the store has none of that digest, BadPackage where it is another."""
        self._used[digest] = self._now()
        path = self.path(digest)
        if not path.is_dir():
            data = await self._store.get(f"code/{digest}")
            if data is None:
                raise NotFound(f"code package {digest[:12]} is not in the store", hint="apply the spec again")
            await asyncio.to_thread(unpack, data, path, digest=digest)
        return path

    async def collect(self, needed: set[str]) -> None:
        """Forget the packages that nothing needs and nobody has asked for lately, and what was unpacked of them here."""
        fresh = {digest for digest, used in self._used.items() if self._now() - used < FRESH_S}
        self._used = {digest: used for digest, used in self._used.items() if digest in fresh}
        kept = needed | fresh
        for key in await self._store.keys("code/"):
            if key.removeprefix("code/") not in kept:
                await self._store.delete(key)
        await asyncio.to_thread(self._clear, kept)

    def _clear(self, kept: set[str]) -> None:
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.name not in kept and not path.name.startswith("."):  # with a dot: being unpacked just now
                    shutil.rmtree(path, ignore_errors=True)
