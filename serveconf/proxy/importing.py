"""Imports from code folders in one process where several versions of the same module names live side by side.

A middleware is imported from the snapshot that its stack was applied with. The next apply brings another snapshot, whose
``shop.auth`` must be the new one, while requests of the old generation still run the old one. So modules that belong to
another code folder leave ``sys.modules`` before an import, and come back when their own folder is imported from again.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


class CodeFolders:
    """Which modules each code folder brought into this process. One per process; safe to call from threads.

    Those of one folder at most are in ``sys.modules``: so what an import takes does not grow with the number of folders.
    """

    def __init__(self) -> None:
        self._modules: dict[str, dict[str, ModuleType]] = {}  # of folders that were left
        self._entered = ""  # the folder whose modules are in sys.modules
        self._kept: frozenset[str] | None = None
        self._lock = threading.Lock()

    def use_only(self, folders: Collection[str]) -> None:
        """Of all others nothing is kept beyond the next import: what still runs of them has been imported."""
        self._kept = frozenset(map(_real, folders))

    def run(self, folder: str, action: Callable[[], T]) -> T:
        """``action()`` with ``folder`` first on ``sys.path`` and none of another folder's modules in ``sys.modules``."""
        with self._lock, self._active(_real(folder)):
            return action()

    @contextmanager
    def _active(self, folder: str) -> Iterator[None]:
        if folder != self._entered:
            self._enter(folder)
        self._put_last(folder, present=False)
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(folder)
            self._put_last(folder, present=True)

    def _enter(self, folder: str) -> None:
        """The modules of the folder that was entered before leave, also those imported later, inside functions."""
        if self._entered:
            leaving = self._modules[self._entered] = _loaded_below(self._entered)
            _forget(leaving)
            self._put_last(self._entered, present=False)
        self._entered = folder
        sys.modules.update(self._modules.get(folder, {}))
        if self._kept is not None:
            self._modules = {other: modules for other, modules in self._modules.items() if other in self._kept}

    def _put_last(self, folder: str, *, present: bool) -> None:
        """Imports inside functions run later: they find the folder at the end of the path, where it shadows nothing."""
        sys.path[:] = [entry for entry in sys.path if entry != folder]
        if present:
            sys.path.append(folder)


def import_attribute(import_path: str) -> object:
    """What ``module:attribute`` names (the attribute may be dotted)."""
    module_name, _, attribute = import_path.partition(":")
    found: object = importlib.import_module(module_name)
    for name in attribute.split("."):
        found = getattr(found, name)
    return found


def user_traceback(error: BaseException) -> str:
    """The traceback without the frames of serveconf and of the import system; every frame, if that would leave none."""
    frames = traceback.extract_tb(error.__traceback__)
    users = [frame for frame in frames if not _is_machinery(frame.filename)]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(users)] if users else []
    return "".join([*lines, *traceback.format_exception_only(error)])


_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_IMPORTLIB = os.path.dirname(os.path.abspath(importlib.__file__)) + os.sep
_THREADS = os.path.abspath(threading.__file__)


def _is_machinery(filename: str) -> bool:
    return filename.startswith(("<frozen importlib", _OWN, _IMPORTLIB)) or filename == _THREADS


def _loaded_below(folder: str) -> dict[str, ModuleType]:
    return {name: module for name, module in list(sys.modules.items()) if _is_below(module, folder)}


def _is_below(module: ModuleType, folder: str) -> bool:
    """Whether a module was loaded from below a folder. Namespace packages have no file, only a path."""
    file, prefix = getattr(module, "__file__", None), folder + os.sep
    places = [os.path.dirname(file) if isinstance(file, str) else None, *getattr(module, "__path__", ())]
    return any(isinstance(place, str) and (_real(place) + os.sep).startswith(prefix) for place in places)


@lru_cache(maxsize=4_096)
def _real(folder: str) -> str:
    """Remembered: a process has some thousand modules, and each folder above one costs the system a call."""
    return os.path.realpath(folder)


def _forget(modules: dict[str, ModuleType]) -> None:
    for name, module in modules.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
