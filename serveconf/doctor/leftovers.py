"""What former runs have left in our folder of the temporary one: folders that nobody uses, told from those that somebody may.

``machine`` calls it. A folder counts as left only where this user owns it, nobody answers on a socket in it, no process has a file
of it open or locked, and nothing in it has changed for an hour. What an app has written among its code is somebody's data.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from serveconf.code.package import was_written_to

REST_S = 3600.0
CLUSTER = re.compile("[0-9a-f]{12}")
SESSION = re.compile(r"session_[0-9_-]+")
DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Leftovers:
    """Folders that nobody uses: of ended clusters and ended Rays, and those of ended clusters that hold data of an app."""

    removable: tuple[str, ...] = ()
    with_data: tuple[str, ...] = ()


def look_for_leftovers(ours: Path) -> Leftovers:
    """Those below ``ours`` (``private.ours_in``); none where it is somebody else's."""
    if not _is_ours(ours):
        return Leftovers()
    found = [*_folders(ours, CLUSTER), *_folders(ours / "ray", SESSION)]
    resting = [folder for folder in found if _rests(folder)]
    used = _open_files(ours) if resting else frozenset()
    left = [folder for folder in resting if not any(path.is_relative_to(folder) for path in used)]
    data = [folder for folder in left if _holds_data(folder)]
    return Leftovers(
        removable=tuple(str(folder) for folder in left if folder not in data),
        with_data=tuple(str(folder) for folder in data),
    )


def _folders(place: Path, name: re.Pattern[str]) -> Iterator[Path]:
    """Folders of this user's alone; a link, and what somebody else has put there, is none."""
    if not _is_ours(place):
        return
    yield from sorted(path for path in place.iterdir() if name.fullmatch(path.name) and _is_ours(path))


def _is_ours(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def _rests(folder: Path) -> bool:
    """Nothing below it has changed for an hour, answers, or is locked. What cannot be told does not rest."""
    latest = time.time() - REST_S
    try:
        if folder.lstat().st_mtime > latest:
            return False
        for here, folders, names in os.walk(folder, onerror=_raise):
            for name in (*folders, *names):
                path = Path(here, name)
                found = path.lstat()
                if found.st_mtime > latest:
                    return False
                if stat.S_ISSOCK(found.st_mode) and _answers(path):
                    return False
                if stat.S_ISREG(found.st_mode) and path.suffix == ".lock" and _is_locked(path):
                    return False
    except OSError:
        return False
    return True


def _answers(path: Path) -> bool:
    """Whether somebody listens there, in another container too."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            found = probe.connect_ex(str(path))
        except OSError:  # its path is too long for a socket's
            return True
    return found not in (errno.ECONNREFUSED, errno.ENOENT)


def _is_locked(path: Path) -> bool:
    """Whether another process holds it (``code/claims``)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _open_files(below: Path) -> frozenset[Path]:
    """Files and folders below that processes of this user have open, map, or work in."""
    found: set[Path] = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            links = [process / "cwd", *(process / "fd").iterdir()]
            found.update(Path(target) for link in links if (target := _target(link)).startswith(f"{below}/"))
            for line in (process / "maps").read_text(errors="replace").splitlines():
                _, _, target = line.partition(f" {below}/")
                if target:
                    found.add(below / target)
    return frozenset(found)


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _holds_data(folder: Path) -> bool:
    """Whether an app has written among its code, which is kept when its cluster ends (``reconcile/packages``)."""
    code = folder / "code"
    packages = [path for path in code.iterdir() if DIGEST.fullmatch(path.name)] if code.is_dir() else []
    return any(was_written_to(path, path.name) for path in packages)


def _raise(error: OSError) -> None:
    raise error
