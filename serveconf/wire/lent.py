"""A file that the replica has opened and the proxy reads: ASGI's ``http.response.pathsend``, over the wire.

The replica opens the file itself, so that all its checks hold, and names its descriptor. The proxy opens that one anew
through /proc: the same file, whatever has become of its name since, or none. What may block on a disk is done in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import struct
import sys
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from serveconf.wire.frames import File

SENDS_FILES = "serveconf.sends_files"  # in a scope: its ``send`` takes http.response.pathsend with a LentFile
SMALL_BYTES = 64 << 10  # a file that is no larger is read by the replica: that is as much work as opening it twice
READ_BYTES = 256 << 10
_CREDENTIALS = "iII"  # struct ucred
_ONE = bytearray(1)

T = TypeVar("T")

_threads: ThreadPoolExecutor | None = None


def peer_with_files(sock: Any) -> int | None:
    """The process at the other end of ``sock``, if its files can be opened from here."""
    if sock is None or sock.family != socket.AF_UNIX or sys.platform != "linux":
        return None
    try:
        pid: int = struct.unpack(
            _CREDENTIALS, sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(_CREDENTIALS))
        )[0]
        os.listdir(f"/proc/{pid}/fd")
    except OSError:  # as in another container
        return None
    return pid


class OwnFile:
    """The replica's: open while the proxy has not opened it. ``content``: all of it, where it is small."""

    def __init__(self, path: str) -> None:
        """Blocks. OSError when it cannot be opened or is no plain file."""
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        self.content: bytes | None = None
        try:
            found = os.fstat(self.descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(f"{path} is not a file")
            self.size = found.st_size
            self._found = found
            if self.size <= SMALL_BYTES:
                self.content = os.pread(self.descriptor, self.size, 0)
        except BaseException:  # no descriptor stays open, whatever came in between
            os.close(self.descriptor)
            raise

    def frame(self, stream: int) -> File:
        """What to tell the proxy."""
        return File(stream, self.descriptor, self._found.st_dev, self._found.st_ino, self.size)

    def close(self) -> None:
        """It was opened, or never will be."""
        os.close(self.descriptor)


class LentFile:
    """The proxy's: the first ``size`` bytes of it are an answer's body."""

    def __init__(self, pid: int, frame: File) -> None:
        """Blocks. OSError when it cannot be opened from here."""
        self.size = frame.size
        self._work: asyncio.Future[Any] | None = None
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        self.descriptor = os.open(f"/proc/{pid}/fd/{frame.file}", flags)
        found = os.fstat(self.descriptor)
        if not stat.S_ISREG(found.st_mode) or (found.st_dev, found.st_ino) != (frame.device, frame.inode):
            os.close(self.descriptor)
            raise FileNotFoundError("not the file that was lent")

    def is_cached(self, start: int, size: int) -> bool:
        """Whether that part of it is in memory, as far as its ends tell."""
        try:
            for place in (start, start + size - 1):
                os.preadv(self.descriptor, [_ONE], place, os.RWF_NOWAIT)
        except OSError:  # it is not, or this file system does not say
            return False
        return True

    async def do(self, work: Callable[[], T], start: int, size: int) -> T:
        """``work`` with that part of it: here, where that does not block, else in a thread."""
        if self.is_cached(start, size):
            return work()
        self._work = future = _in_thread(work)
        return await asyncio.shield(future)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """All of it. EOFError if it has become shorter."""
        start = 0
        while start < self.size:
            size = min(READ_BYTES, self.size - start)
            piece = await self.do(lambda start=start, size=size: os.pread(self.descriptor, size, start), start, size)  # type: ignore[misc]
            if not piece:
                raise EOFError("the file has become shorter")
            start += len(piece)
            yield piece

    def when_idle(self, then: Callable[[], None]) -> None:
        """Once no thread has to do with it."""
        if self._work is None or self._work.done():
            then()
        else:
            self._work.add_done_callback(lambda _: then())

    def close(self) -> None:
        """Nobody reads it any more; a thread that still does closes it."""
        self.when_idle(lambda: os.close(self.descriptor))


def _in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    global _threads
    if _threads is None:
        _threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="files")
    return asyncio.get_running_loop().run_in_executor(_threads, work)


async def open_in_thread(make: Callable[[], OwnFile] | Callable[[], LentFile]) -> Any:
    """What ``make`` opens. OSError from it; who is cancelled meanwhile leaves nothing open."""
    future: asyncio.Future[Any] = _in_thread(make)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        future.add_done_callback(_close_late)
        raise


def _close_late(future: asyncio.Future[Any]) -> None:
    with contextlib.suppress(OSError):
        future.result().close()
