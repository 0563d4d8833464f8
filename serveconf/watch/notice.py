"""Says "look again" when the system tells of a change in a watched place. It may miss one: who listens looks by itself too.

A thread of its own, because the system's queue of changes must be emptied while an apply runs.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress

from watchfiles import Change, watch

from serveconf.watch.places import Places, is_news

TOLD_MS = 200  # how soon after it has begun it says so, and how soon it hears that it shall end
GROUP_MS = 50  # changes within this time are one

# what a save on another machine, or on the other side of a virtual one, does not tell
_SILENT = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "fuse",
    "virtiofs",
    "vboxsf",
    "prl_fs",
    "afs",
    "ceph",
    "gluster",
    "lustre",
    "ocfs",
)

_ESCAPED = re.compile(r"\\([0-7]{3})")  # space, tab, newline and backslash, in proc_pid_mountinfo(5)


class Notice:
    """Watches places until it is closed. ``news`` is called from its thread."""

    def __init__(self, news: Callable[[], None]) -> None:
        self._news = news
        self._watched: dict[str, tuple[int, int]] = {}
        self._places: Places = {}
        self._data: frozenset[str] = frozenset()
        self._stop = threading.Event()
        self.heard = 0  # changes that the system has told of
        self.failed = ""  # why the system can't tell, where it can't

    def watch(self, places: Places, data: frozenset[str] = frozenset()) -> None:
        """From now on these places; a change of ``data`` (absolute paths) is no news.

        Says "look again" once they are watched, as something may have changed before.
        """
        self._places, self._data = places, data
        identities = {folder: identity for folder in places if (identity := _identity(folder)) is not None}
        if identities == self._watched and not self.failed:
            return
        self._stop.set()
        self._stop = threading.Event()
        self._watched = identities
        threading.Thread(target=self._run, args=(sorted(identities), self._stop), name="notice", daemon=True).start()

    def close(self) -> None:
        """Watch nothing any more."""
        self._stop.set()
        self._watched = {}

    def _run(self, folders: list[str], stop: threading.Event) -> None:
        begun = False
        try:
            for changes in watch(
                *folders,
                watch_filter=self._counts,
                debounce=GROUP_MS,
                step=10,
                stop_event=stop,
                rust_timeout=TOLD_MS,
                yield_on_timeout=True,
                raise_interrupt=False,
                recursive=False,
                ignore_permission_denied=True,
            ):
                if stop.is_set():
                    return
                self.heard += bool(changes)
                if changes or not begun:
                    self.failed = ""
                    self._news()
                begun = True
        except (OSError, RuntimeError) as error:  # a folder is gone again, or the system has no watches left
            if not stop.is_set():
                self.failed = str(error)
                self._news()

    def _counts(self, change: Change, path: str) -> bool:
        return path not in self._data and is_news(self._places, path)


def tells_nothing(folder: str) -> bool:
    """Whether the folder is on a file system that is known to be silent about changes that others make."""
    real = os.path.realpath(folder)
    best, kind = "", ""
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            before, _, after = line.partition(" - ")
            point = _ESCAPED.sub(lambda one: chr(int(one[1], 8)), before.split(" ")[4])
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, after.split(" ")[0]
    return kind.startswith(_SILENT)


def _identity(folder: str) -> tuple[int, int] | None:
    """Which folder it is: another one by the same name has to be watched anew."""
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino
