"""Modules that a warm process imports before it knows whose code it will run, and how they make way for that code.

Only installed ones. A file of the user's that bears the name of one of them comes first, as it would in a process that
had imported nothing.
"""

from __future__ import annotations

import builtins
import importlib
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

_PACKAGES = ("site-packages", "dist-packages")

_names: set[str] = set()  # of sys.modules: what is there only because it was imported beforehand


def import_beforehand(names: Iterable[str], *, failed: Callable[[str, BaseException], None]) -> None:
    """Import them one by one; what can't be imported is told, and left to who needs it."""
    before = set(sys.modules)
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException as error:  # noqa: BLE001 - a module may even exit
            failed(name, error)
    _names.update(set(sys.modules) - before)


def make_way(code_dir: Path) -> None:
    """Forget those of them that ``code_dir`` has a module or package for."""
    if not _names:
        return
    own = {name.partition(".")[0] for name in os.listdir(code_dir)} if code_dir.is_dir() else set()
    gone = {name for name in _names if name.partition(".")[0] in own}
    while more := {name for name in _names - gone if gone and (_is_below(name, gone) or _has_of(name, gone))}:
        gone |= more  # what has taken something from them would have taken it from the user's file
    for name in gone:
        _names.discard(name)
        sys.modules.pop(name, None)


def _is_below(name: str, packages: set[str]) -> bool:
    """A part of a package is bound in it when it is imported, and so goes with it."""
    parts = name.split(".")
    return any(".".join(parts[:count]) in packages for count in range(1, len(parts)))


def _has_of(name: str, names: set[str]) -> bool:
    """Whether one of the modules, or something that was defined in one of them, is bound in it."""
    module = sys.modules.get(name)
    for value in list(vars(module).values()) if module is not None else ():
        if isinstance(value, ModuleType):
            if value.__name__ in names:
                return True
        elif isinstance(value, type | FunctionType) and value.__module__ in names:
            return True
    return False


def watch_imports() -> set[str]:
    """Those of them that are asked for from now on: to whoever imports them they are no different from any other."""
    used: set[str] = set()
    if _names:
        builtins.__import__ = _watched(builtins.__import__, used)
        importlib.import_module = _watched_by_name(importlib.import_module, used)
    return used


def _watched(real: Callable[..., ModuleType], used: set[str]) -> Callable[..., ModuleType]:
    def __import__(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level == 0:
            used.update(_names.intersection([name, *(f"{name}.{part}" for part in fromlist or ())]))
        return real(name, globals, locals, fromlist, level)

    return __import__


def _watched_by_name(real: Callable[..., ModuleType], used: set[str]) -> Callable[..., ModuleType]:
    def import_module(name: str, package: str | None = None) -> ModuleType:
        used.update(_names.intersection([name]))
        return real(name, package)

    return import_module


def installed_places() -> tuple[str, ...]:
    """The folders below which modules are installed, each with its separator: not the user's own, wherever that lies."""
    found = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")}
    found |= {entry for entry in sys.path if os.path.basename(entry) in _PACKAGES}  # of whom this environment extends
    return tuple(entry + os.sep for entry in found)
