"""A disk that is full, told by name wherever we write: who is told knows what to do, and nothing half-written stays."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serveconf.errors import OperatorError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # the last: a limit of this process on the size of files


class DiskFull(OperatorError):
    """There is no room for what was to be written."""

    code = "disk_full"


def is_full(error: BaseException) -> bool:
    """Whether it says that there is no room."""
    return isinstance(error, OSError) and error.errno in FULL


def disk_full(what: str, where: Path | str | None, *, hint: str = "free some space there") -> DiskFull:
    """``what`` could not be written to ``where``."""
    place = f" in {where}" if where is not None else ""
    return DiskFull(f"no space left for {what}{place} on {socket.gethostname()}", hint=hint)


@contextmanager
def told_when_full(
    what: str, where: Path | str | None = None, *, hint: str = "free some space there"
) -> Iterator[None]:
    """Raises DiskFull where the body finds no room; every other error goes on as it is."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise disk_full(what, where or error.filename, hint=hint) from error


def write_whole(path: Path, text: str) -> None:
    """Write the file, all of it or nothing: what was there stays where there is no room. Raises DiskFull."""
    with told_when_full(path.name, path.parent):
        if path.is_symlink():
            path.write_text(text, encoding="utf-8")
        else:
            replace_whole(path, text.encode(), stat.S_IMODE(path.stat().st_mode) if path.exists() else None)


def replace_whole(path: Path, data: bytes, mode: int | None) -> None:
    """The file with this content and ``mode`` (None: as any new file), in one step; what is no file is written to as it is."""
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666 if mode is None else 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if mode is not None:
                os.fchmod(file.fileno(), mode)
        draft.replace(path)
    except BaseException:  # nothing half-written stays, whatever came in between
        draft.unlink(missing_ok=True)
        raise
