"""What the served app writes below app_dir: its data, known by being seen (PEP 578), and from then on no code.

An audit hook can't be taken away again, so there is one for the process, and it asks who wants to know. What C code writes by
itself, and what child processes write, is not seen.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

MOST = 1_000  # paths: an app that writes more names a folder in .serveconfignore
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC
_BESIDE = ("", "-wal", "-shm", "-journal")  # what sqlite keeps beside a database
_EVENTS = frozenset({"open", "sqlite3.connect", "os.rename"})
_CODE = (".py", ".pyi", ".pyc", ".pyo")

_watching: list[Written] = []
_hooked = False


class Written:
    """The paths, relative to a folder, that this process has written since."""

    def __init__(
        self,
        folder: str,
        news: Callable[[], object] = lambda: None,
        *,
        left_out: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """``news`` is called, from any thread, when there is one more; it must be quick. ``left_out``: what does not count."""
        self._roots = {os.path.abspath(folder) + os.sep, os.path.realpath(folder) + os.sep}
        self._news = news
        self._left_out = left_out
        self.paths: set[str] = set()

    def note(self, path: str) -> None:
        """This one was opened to be written."""
        for root in self._roots:
            if path.startswith(root):
                relative = path[len(root) :].replace(os.sep, "/")
                if relative not in self.paths and len(self.paths) < MOST and not self._left_out(relative):
                    self.paths.add(relative)
                    self._news()
                return


def is_code(path: str) -> bool:
    """Whether it is Python's, by its name: to write it is to change the code."""
    return path.endswith(_CODE)


def is_cache(path: str) -> bool:
    """Whether it is what Python itself puts beside modules."""
    return "__pycache__" in path.split("/")


def watch_writes(
    folder: str, news: Callable[[], object] = lambda: None, *, left_out: Callable[[str], bool] = is_code
) -> Written:
    """From now on what is written below the folder is noted."""
    global _hooked
    written = Written(folder, news, left_out=left_out)
    _watching.append(written)
    if not _hooked:
        _hooked = True
        sys.addaudithook(_hook)
    return written


def forget(written: Written) -> None:
    """Nobody wants to know any more."""
    if written in _watching:
        _watching.remove(written)


def _hook(
    event: str,
    arguments: tuple[Any, ...],
    events: frozenset[str] = _EVENTS,  # its own, as the interpreter clears modules at its end and asks on
    watching: list[Written] = _watching,
) -> None:
    if event not in events or not watching:  # asked for every event of the process: nothing may come before this
        return
    try:
        for path in _paths(event, arguments):
            for written in tuple(watching):
                written.note(path)
    except Exception:  # noqa: BLE001 - the app must never fail because of who looks on
        pass


def _paths(event: str, arguments: tuple[Any, ...]) -> list[str]:
    """Absolute paths that the event says are about to be written."""
    match event:
        case "open":
            path, mode, flags = arguments
            writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & _WRITES)
            return [_absolute(path)] if writes and not isinstance(path, int) else []
        case "os.rename":
            return [_absolute(arguments[1])]
        case _:
            name = os.fsdecode(arguments[0])
            if name in ("", ":memory:") or name.startswith("file:"):
                return []
            return [_absolute(name) + end for end in _BESIDE]


def _absolute(path: Any) -> str:
    return os.path.abspath(os.fsdecode(path))
