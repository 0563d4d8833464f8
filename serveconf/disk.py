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
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with told_when_full(path.name, path.parent):
        if path.is_symlink() or (path.exists() and not path.is_file()):
            path.write_text(text, encoding="utf-8")
            return
        try:
            draft.write_text(text, encoding="utf-8")
            if path.exists():
                draft.chmod(stat.S_IMODE(path.stat().st_mode))
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
