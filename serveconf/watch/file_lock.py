"""A lock between processes on a file (flock): many share it, or one has it alone. Who dies lets go of it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

AGAIN_S = 0.05


@asynccontextmanager
async def shared(path: Path | None) -> AsyncIterator[None]:
    """Nobody has it alone in here. Without a path there is nobody to share with."""
    async with _held(path, fcntl.LOCK_SH):
        yield


@asynccontextmanager
async def alone(path: Path | None) -> AsyncIterator[None]:
    """Nobody else has it in here."""
    async with _held(path, fcntl.LOCK_EX):
        yield


@contextmanager
def waited_for(path: Path, *, stopped: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """The same for a thread. It goes in without the lock where it is ``stopped`` while it waits."""
    descriptor = _open(path)
    try:
        while not stopped() and not _taken(descriptor, fcntl.LOCK_EX):
            time.sleep(AGAIN_S)
        yield
    finally:
        os.close(descriptor)


@asynccontextmanager
async def _held(path: Path | None, how: int) -> AsyncIterator[None]:
    if path is None:
        yield
        return
    descriptor = _open(path)  # one for each who holds it: the lock belongs to the open file
    try:
        while not _taken(descriptor, how):  # noqa: ASYNC110 - nobody tells when another process lets go
            await asyncio.sleep(AGAIN_S)
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _taken(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
