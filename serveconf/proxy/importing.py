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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


class CodeFolders:
    """Which modules each code folder brought into this process. One per process; safe to call from threads."""

    def __init__(self) -> None:
        self._modules: dict[str, dict[str, ModuleType]] = {}
        self._lock = threading.Lock()

    def run(self, folder: str, action: Callable[[], T]) -> T:
        """``action()`` with ``folder`` first on ``sys.path`` and none of another folder's modules in ``sys.modules``."""
        with self._lock, self._active(os.path.realpath(folder)):
            return action()

    @contextmanager
    def _active(self, folder: str) -> Iterator[None]:
        for other, modules in self._modules.items():
            if other != folder:
                modules.update(_loaded_below(other))  # also what was imported later, inside functions
                _forget(modules)
        known = self._modules.setdefault(folder, {})
        sys.modules.update(known)
        self._put_last(folder, present=False)
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(folder)
            self._put_last(folder, present=True)
            known.update(_loaded_below(folder))

    def _put_last(self, folder: str, *, present: bool) -> None:
        """Imports inside functions run later: they find the folder at the end of the path, where it shadows nothing."""
        sys.path[:] = [entry for entry in sys.path if entry not in self._modules]
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
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    prefix = folder + os.sep
    return any(isinstance(place, str) and os.path.realpath(place).startswith(prefix) for place in places)


def _forget(modules: dict[str, ModuleType]) -> None:
    for name, module in modules.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
