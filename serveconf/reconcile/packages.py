"""Code packages: kept in the store by their digest, unpacked once on each node that needs them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from serveconf.code.package import unpack
from serveconf.errors import NotFound
from serveconf.reconcile.ports import Store


class Packages:
    """Packages of the store, unpacked below ``folder`` (of this node)."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder

    async def has(self, digest: str) -> bool:
        """Whether the store has the package."""
        return bool(await self._store.keys(f"code/{digest}"))

    async def put(self, digest: str, data: bytes) -> None:
        """Keep a package."""
        await self._store.put(f"code/{digest}", data)

    def path(self, digest: str) -> Path:
        """The folder that ``folder`` unpacks a package to."""
        return self._folder / digest

    async def folder(self, digest: str) -> Path:
        """The unpacked package. Raises NotFound where the store has none of that digest."""
        path = self.path(digest)
        if not path.is_dir():
            data = await self._store.get(f"code/{digest}")
            if data is None:
                raise NotFound(f"code package {digest[:12]} is not in the store", hint="apply the spec again")
            await asyncio.to_thread(unpack, data, path)
        return path

    async def collect(self, needed: set[str]) -> None:
        """Forget the packages that nothing needs."""
        for key in await self._store.keys("code/"):
            if key.removeprefix("code/") not in needed:
                await self._store.delete(key)
