"""Code packages: kept in the store by their digest, unpacked once on each node that needs them. What an app has written
into an unpacked one is never removed.

A digest becomes a key of the store and the name of a folder, so nothing else is taken for one; what is kept under it was
looked at before, so that who names a package later gets what was sent under that name and nothing else.

Both places have a budget in bytes. In the store what a kept revision names stays whatever comes: what would not fit beside it
is refused. On a node what no process uses makes room, the longest unused first, and is unpacked again when it is needed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from serveconf.code.claims import Claims
from serveconf.code.package import unpack, unpacked_bytes, verify, was_written_to
from serveconf.disk import told_when_full
from serveconf.errors import AuthorError, NoRoom, NotFound
from serveconf.reconcile.ports import Store

log = logging.getLogger("serveconf.code")

FRESH_S = 600.0  # a package that was asked for or uploaded so recently may belong to an apply that is yet to come
STORE_BYTES = 1_000_000_000  # of all packages in the store, as they are packed
NODE_BYTES = 2_000_000_000  # of all that is unpacked on a node
SIZE = "code-bytes/"  # beside each package how large it is: the store tells no sizes


def check_digest(text: str) -> str:
    """``text``, which must be a digest in full. Raises AuthorError."""
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise AuthorError("a code package is named by its digest: 64 hexadecimal digits", code="bad_request")
    return text


class Packages:
    """Packages of the store, unpacked below ``folder`` (of this node). ``now`` gives seconds; budgets are in bytes."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        *,
        now: Callable[[], float] = time.monotonic,
        store_bytes: int = STORE_BYTES,
        node_bytes: int = NODE_BYTES,
    ) -> None:
        self._store = store
        self._folder = folder
        self._now = now
        self.store_bytes = store_bytes
        self._node_bytes = node_bytes
        self.needed: Callable[[], Collection[str]] = tuple  # what must stay in the store: the controller knows
        self.shorten: Callable[[int], Awaitable[None]] = _no_history  # old revisions go that name more bytes than that
        self._sizes: dict[str, int] | None = None  # of what is in the store
        self._latest: tuple[str, bytes] | None = (
            None  # what was put, until it is unpacked here: the store is not asked for it
        )
        self._putting = asyncio.Lock()
        self._claims = Claims(folder)
        self._for_good: set[str] = set()  # what this process uses from now on
        self._looking: Counter[str] = Counter()  # ... and what it uses just now, how often at once
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
        """Keep a package. Raises BadPackage where it holds something else than its digest says, NoRoom over the budget."""
        await asyncio.to_thread(verify, data, check_digest(digest))
        self._used[digest] = self._now()
        async with self._putting:
            sizes = await self.sizes()
            if digest not in sizes:
                await self._make_room(len(data), sizes)
            await self._store.put(f"{SIZE}{digest}", str(len(data)).encode())
            await self._store.put(f"code/{digest}", data)
            sizes[digest] = len(data)
        if not self.path(digest).is_dir():
            self._latest = (digest, data)

    async def sizes(self) -> dict[str, int]:
        """Bytes of each package in the store."""
        if self._sizes is None:
            known = set(await self._store.keys(SIZE))
            found = {}
            for digest in [key.removeprefix("code/") for key in await self._store.keys("code/")]:
                key = f"{SIZE}{digest}"
                said = await self._store.get(key) if key in known else None
                if said is None:  # of a version that knew no budget
                    said = str(len(await self._store.get(f"code/{digest}") or b"")).encode()
                    await self._store.put(key, said)
                found[digest] = int(said)
            if self._sizes is None:  # else another one was faster, and counts on by now
                self._sizes = found
        return self._sizes

    async def _make_room(self, size: int, sizes: dict[str, int]) -> None:
        """Forget what nothing needs, the longest unused first, until there is room for so many bytes."""
        if sum(sizes.values()) + size > self.store_bytes:
            await self.shorten(max(0, self.store_bytes - size))
        needed = set(self.needed())
        idle = sorted((d for d in sizes if d not in needed), key=lambda digest: self._used.get(digest, 0.0))
        for digest in idle:
            if sum(sizes.values()) + size <= self.store_bytes:
                return
            await self._forget(digest)
        kept = sum(sizes.values())
        if kept + size > self.store_bytes:
            raise NoRoom(
                f"the code package has {size / 1e6:.1f} MB, and of the {self.store_bytes / 1e6:.0f} MB that the store has for "
                f"packages {kept / 1e6:.1f} MB are named by revisions that are kept",
                hint="name data in .serveconfignore, or delete stacks that nobody needs; SERVECONF_CODE_MB, where the "
                "controller is started, sets another budget",
                code="code_budget",
            )

    async def _forget(self, digest: str) -> None:
        await self._store.delete(f"code/{digest}")
        await self._store.delete(f"{SIZE}{digest}")
        if self._sizes is not None:
            self._sizes.pop(digest, None)

    def path(self, digest: str) -> Path:
        """The folder that ``folder`` unpacks a package to."""
        return self._folder / check_digest(digest)

    async def folder(self, digest: str) -> Path:
        """The unpacked package. Raises NotFound where the store has none of that digest, BadPackage where it is another,
        DiskFull where the node's disk is.

        Who unpacks one takes what the store has forgotten off this node: on other nodes than the controller's nobody else would.
        From now on this process uses it, until ``use_only`` says otherwise.
        """
        self._for_good.add(digest)
        return await self._there_for_me(digest)

    @asynccontextmanager
    async def for_a_while(self, digest: str) -> AsyncIterator[Path]:
        """``folder``, while the body runs."""
        self._looking[digest] += 1
        try:
            yield await self._there_for_me(digest)
        finally:
            self._looking[digest] -= 1
            if not self._looking[digest]:
                del self._looking[digest]
                if digest not in self._for_good:
                    self._claims.drop(digest)

    async def _there_for_me(self, digest: str) -> Path:
        hint = "free some space there, or set TMPDIR of the node's Ray to a larger disk"
        with told_when_full(f"code package {digest[:12]}", self._folder, hint=hint):
            return await self._unpacked(digest)

    async def _unpacked(self, digest: str) -> Path:
        path = self.path(digest)
        self._used[digest] = self._now()
        await asyncio.to_thread(self._claims.take, digest)
        if not path.is_dir():
            async with self._claims.fetching(digest):
                if not path.is_dir():
                    await self._fetch(path, digest)
        return path

    async def _fetch(self, path: Path, digest: str) -> None:
        if self._latest is not None and self._latest[0] == digest:
            data: bytes | None = self._latest[1]
            self._latest = None
        else:
            data = await self._store.get(f"code/{digest}")
        if data is None:
            raise NotFound(f"code package {digest[:12]} is not in the store", hint="apply the spec again")
        there = await asyncio.to_thread(self._there)  # before the store is asked: what comes later is not looked at
        stored = {key.removeprefix("code/") for key in await self._store.keys("code/")}
        await asyncio.to_thread(self._clear, stored, there)
        await asyncio.to_thread(self._unpack, data, path, digest)

    def _unpack(self, data: bytes, path: Path, digest: str) -> None:
        self._make_room_here(unpacked_bytes(data))
        unpack(data, path, digest=digest)

    def use_only(self, digests: Collection[str]) -> None:
        """What else this process has asked for may be taken off the node again."""
        self._for_good &= set(digests)
        self._claims.let_go(but=self._for_good | self._looking.keys())

    async def collect(self, needed: set[str], live: Collection[str] = ()) -> None:
        """Forget the packages that nothing needs and nobody has asked for lately, and what was unpacked of them here.

        ``live``: those that this process itself still uses.
        """
        fresh = {digest for digest, used in self._used.items() if self._now() - used < FRESH_S}
        self._used = {digest: used for digest, used in self._used.items() if digest in fresh}
        self._latest = None
        kept = needed | fresh
        self.use_only(live)
        for key in await self._store.keys("code/"):
            if key.removeprefix("code/") not in kept:
                await self._forget(key.removeprefix("code/"))
        await asyncio.to_thread(lambda: self._clear(kept, self._there()))

    def _there(self) -> list[Path]:
        """What is unpacked here; with a dot: being unpacked just now."""
        found = self._folder.iterdir() if self._folder.is_dir() else ()
        return [path for path in found if not path.name.startswith(".")]

    def _clear(self, kept: set[str], there: list[Path]) -> None:
        for path in there:
            if path.name not in kept:
                self._take_away(path)

    def _take_away(self, path: Path) -> bool:
        """Off this node, unless a process uses it or has written to it. Whether it is gone."""
        if path.name in self._written_to or not path.is_dir():
            return False
        with self._claims.alone(path.name) as unused:
            if not unused:
                return False
            if was_written_to(path, path.name):
                self._written_to.add(path.name)
                log.warning("an app has written beside its modules: %s is kept", path)
                return False
            shutil.rmtree(path, ignore_errors=True)
            return True

    def _make_room_here(self, size: int) -> None:
        there = {path: _bytes_below(path) for path in self._there()}
        free = self._node_bytes - sum(there.values())
        for path in sorted(there, key=lambda path: self._claims.last_taken(path.name)):
            if free >= size:
                return
            if self._take_away(path):
                free += there[path]
        if free < size:
            log.warning(
                "unpacked code that is in use has more bytes than its budget: %d", self._node_bytes - free + size
            )


async def _no_history(most: int) -> None:
    """Nobody keeps revisions."""


def _bytes_below(folder: Path) -> int:
    total = 0
    for here, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(here, name)).st_size
            except OSError:  # another process takes it away just now
                continue
    return total


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
