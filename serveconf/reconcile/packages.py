"""Code packages: kept in the store by their digest, unpacked once on each node that needs them. What an app has written
into an unpacked one is never removed.

A digest becomes a key of the store and the name of a folder, so nothing else is taken for one; what is kept under it was
looked at before, so that who names a package later gets what was sent under that name and nothing else.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

from serveconf.code.package import unpack, verify, was_written_to
from serveconf.errors import AuthorError, NotFound, OperatorError
from serveconf.reconcile.ports import Store

log = logging.getLogger("serveconf.code")

FRESH_S = 600.0  # a package that was asked for or uploaded so recently may belong to an apply that is yet to come


def check_digest(text: str) -> str:
    """``text``, which must be a digest in full. Raises AuthorError."""
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise AuthorError("a code package is named by its digest: 64 hexadecimal digits", code="bad_request")
    return text


class Packages:
    """Packages of the store, unpacked below ``folder`` (of this node). ``now`` gives seconds."""

    def __init__(self, store: Store, folder: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._folder = folder
        self._now = now
        self._written_to: set[str] = set()  # digests of which the folder is kept for good
        self._used: dict[str, float] = {}  # digest -> when somebody last asked for it here

    @property
    def store(self) -> Store:
        """Where they are kept."""
        return self._store

    async def has(self, digest: str) -> bool:
        """Whether the store has the package."""
        key = f"code/{check_digest(digest)}"
        self._used[digest] = self._now()
        return key in await self._store.keys(key)

    async def put(self, digest: str, data: bytes) -> None:
        """Keep a package. Raises BadPackage where it holds something else than its digest says."""
        await asyncio.to_thread(verify, data, check_digest(digest))
        self._used[digest] = self._now()
        await self._store.put(f"code/{digest}", data)

    def path(self, digest: str) -> Path:
        """The folder that ``folder`` unpacks a package to."""
        return self._folder / check_digest(digest)

    async def folder(self, digest: str) -> Path:
        """The unpacked package. Raises NotFound where the store has none of that digest, BadPackage where it is another,
        OperatorError where the disk is full.

        Who unpacks one takes what the store has forgotten off this node: on other nodes than the controller's nobody else would.
        """
        path = self.path(digest)
        self._used[digest] = self._now()
        if not path.is_dir():
            data = await self._store.get(f"code/{digest}")
            if data is None:
                raise NotFound(f"code package {digest[:12]} is not in the store", hint="apply the spec again")
            there = await asyncio.to_thread(self._there)  # before the store is asked: what comes later is not looked at
            stored = {key.removeprefix("code/") for key in await self._store.keys("code/")}
            await asyncio.to_thread(self._clear, stored, there)
            await asyncio.to_thread(self._unpack, data, path, digest)
        return path

    def _unpack(self, data: bytes, path: Path, digest: str) -> None:
        try:
            unpack(data, path, digest=digest)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise OperatorError(
                f"no space left for code package {digest[:12]} in {self._folder} on {socket.gethostname()}",
                hint="free some space there, or set TMPDIR of the node's Ray to a larger disk",
                code="disk_full",
            ) from error

    async def collect(self, needed: set[str]) -> None:
        """Forget the packages that nothing needs and nobody has asked for lately, and what was unpacked of them here."""
        fresh = {digest for digest, used in self._used.items() if self._now() - used < FRESH_S}
        self._used = {digest: used for digest, used in self._used.items() if digest in fresh}
        kept = needed | fresh
        for key in await self._store.keys("code/"):
            if key.removeprefix("code/") not in kept:
                await self._store.delete(key)
        await asyncio.to_thread(lambda: self._clear(kept, self._there()))

    def _there(self) -> list[Path]:
        """What is unpacked here; with a dot: being unpacked just now."""
        found = self._folder.iterdir() if self._folder.is_dir() else ()
        return [path for path in found if not path.name.startswith(".")]

    def _clear(self, kept: set[str], there: list[Path]) -> None:
        for path in there:
            if path.name in kept | self._written_to or not path.is_dir():
                continue
            if was_written_to(path, path.name):
                self._written_to.add(path.name)
                log.warning("an app has written beside its modules: %s is kept", path)
            else:
                shutil.rmtree(path, ignore_errors=True)


def clear_node(folder: Path) -> None:
    """The cluster has ended: take its folder of this node away, but for unpacked code that an app has written to."""
    code = folder / "code"
    packages = list(code.iterdir()) if code.is_dir() else []
    kept = {path for path in packages if not path.name.startswith(".") and was_written_to(path, path.name)}
    if not kept:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in [*folder.iterdir(), *packages]:
        if path.is_dir() and path != code and path not in kept:
            shutil.rmtree(path, ignore_errors=True)
        elif not path.is_dir():
            path.unlink(missing_ok=True)
