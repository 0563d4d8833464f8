"""Folders and files that nobody else may read or put in our place: made so, and looked at before they are believed.

What another user could have laid there first, a link above all, is never followed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from serveconf.disk import replace_whole, told_when_full
from serveconf.errors import OperatorError

OWN_FILES = "own-files"  # in the home
MOST_OWN_FILES = 100  # the last ones that were named
TRUSTED = frozenset({0, os.getuid()})  # root can do all that we can


def ours_in(place: Path) -> Path:
    """Where our folder is in one that everybody may write to."""
    return place / f"serveconf-{os.getuid()}"


def own_folder(path: Path) -> Path:
    """The folder, made where it is missing, ours alone (0700). Raises OperatorError where somebody else has put something there."""
    with told_when_full("a folder", path.parent):
        path.mkdir(mode=0o700, exist_ok=True)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise OperatorError(
            f"{path} is not a folder of ours: somebody else has put it there",
            hint="have it taken away, or set TMPDIR to a folder of your own",
            code="foreign_folder",
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        path.chmod(0o700)
    return path


def write_private(path: Path, data: bytes) -> None:
    """Write the file so that only its owner can read it (0600), whatever was there; a reader never sees half of it.

    What is there and no file, such as /dev/stdout, is written to as it is. Raises DiskFull, and then what was there is there still.
    """
    with told_when_full(path.name, path.parent):
        replace_whole(path, data, 0o600)


def read_trusted(path: Path) -> bytes | None:
    """The content of a file that we or root have written; None where there is none, or it is a link or somebody else's."""
    try:
        with open(path, "rb", opener=_open_no_link) as file:
            found = os.fstat(file.fileno())
            return file.read() if stat.S_ISREG(found.st_mode) and found.st_uid in TRUSTED else None
    except OSError:
        return None


def _open_no_link(path: str, flags: int) -> int:
    """Waits for nobody where it is a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def home_path() -> Path:
    """Where the commands remember clusters and their tokens: $SERVECONF_HOME, else ~/.serveconf."""
    return Path(os.environ.get("SERVECONF_HOME") or Path.home() / ".serveconf")


def temp_folder() -> Path:
    """Where Ray keeps its sockets and logs by default: RAY_TMPDIR, else the system's."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")


def own_places() -> frozenset[tuple[int, int]]:
    """The folders with our tokens and with what our own Ray writes, and ``own_files``, that are there: device and inode of each."""
    found = set()
    for place in (home_path(), ours_in(temp_folder()), *own_files()):
        with contextlib.suppress(OSError):
            known = place.stat()
            found.add((known.st_dev, known.st_ino))
    return frozenset(found)


def own_files() -> list[Path]:
    """What we write where the user has said, as a readiness file or what ``run`` says: wherever it lies, it is nobody's code."""
    with contextlib.suppress(OSError):
        return [Path(line) for line in os.fsdecode(read_trusted(home_path() / OWN_FILES) or b"").splitlines()]
    return []


def note_own_file(path: Path) -> None:
    """Have every command know of it that has the same home."""
    path = path.absolute()
    known = own_files()
    if path not in known[-1:]:
        kept = [one for one in known if one != path and one.parent.is_dir()][1 - MOST_OWN_FILES :]
        home_path().mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(home_path() / OWN_FILES, os.fsencode("\n".join(map(str, [*kept, path])) + "\n"))
