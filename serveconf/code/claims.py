"""Who uses an unpacked package: a lock that is shared by all who do, and ends with each of them, however he ends.

Whoever takes unpacked packages off a node asks here first, so that nothing is taken away from a process that imports from it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

FETCH_S = 20.0
FETCH_LOOK_S = 0.02


def _locked_now(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Claims:
    """Those of this process, on the packages below ``folder``. May be called from any thread, for one package at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}

    def take(self, digest: str) -> None:
        """From now on nobody takes it away; waits for who is just doing so. Raises OSError."""
        if digest not in self._held:
            descriptor = self._locked(digest)
            if self._held.setdefault(digest, descriptor) != descriptor:
                os.close(descriptor)
        os.utime(self._held[digest])  # when it was last asked for

    def _locked(self, digest: str) -> int:
        while True:
            descriptor = self._open(digest)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                if os.path.samestat(os.fstat(descriptor), os.stat(self._path(digest))):
                    return descriptor
            except FileNotFoundError:  # it was taken away while this one waited
                pass
            except BaseException:  # no descriptor stays open, whatever came in between
                os.close(descriptor)
                raise
            os.close(descriptor)

    def let_go(self, but: Collection[str] = ()) -> None:
        """Of all others than these."""
        for digest in [digest for digest in self._held if digest not in but]:
            self.drop(digest)

    def drop(self, digest: str) -> None:
        """Of this one alone."""
        if digest in self._held:
            os.close(self._held.pop(digest))

    @contextmanager
    def alone(self, digest: str) -> Iterator[bool]:
        """Whether nobody uses it; then nobody begins to while the body runs, and afterwards it is as if nobody ever had."""
        descriptor = self._open(digest)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
            self._path(digest).unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    @asynccontextmanager
    async def fetching(self, digest: str) -> AsyncIterator[None]:
        """One process of this node at a time, which ends it however it ends: who waits finds the package there.

        Who has waited for too long goes on beside the other.
        """
        path = self._folder / f".{digest}.fetch"
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            deadline = time.monotonic() + FETCH_S
            while not _locked_now(descriptor) and time.monotonic() < deadline:  # noqa: ASYNC110 - of another process
                await asyncio.sleep(FETCH_LOOK_S)
            yield
        finally:
            path.unlink(missing_ok=True)  # one that comes now and makes another fetches by itself, at worst
            os.close(descriptor)

    def last_taken(self, digest: str) -> float:
        """Seconds since the epoch; 0 where nobody ever has."""
        try:
            return self._path(digest).stat().st_mtime
        except OSError:
            return 0.0

    def _open(self, digest: str) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        return os.open(self._path(digest), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def _path(self, digest: str) -> Path:
        return self._folder / f".{digest}.lock"
