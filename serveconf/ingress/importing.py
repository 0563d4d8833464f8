"""From ``module:attribute`` and the folder where import paths start to the object that it names.

Called by the replica and by the preflight, each in a process of its own: ``sys.path`` is this process's to change.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType

from serveconf.code.by_value import by_value_file, read_by_value
from serveconf.errors import AuthorError, CodeFailed
from serveconf.ingress.beforehand import make_way
from serveconf.ingress.failures import code_failed


def import_target(import_path: str, code_dir: Path | None) -> object:
    """The object that ``import_path`` names, imported with ``code_dir`` first on ``sys.path``.

    ``__main__:name`` is what was deployed by value.
    Raises ``CodeFailed``: no such module or attribute, or the module raised (or exited) while it was imported.
    """
    module_name, _, attribute = import_path.partition(":")
    if not module_name or not attribute:
        raise AuthorError(f"{import_path!r} is no import path", hint="write it as module:attribute")
    put_first(code_dir)
    importing = _importing.set(True)
    try:
        if (file := by_value_file(import_path)) is not None:
            return _read(file, import_path, code_dir)
        module = _import_module(module_name, code_dir)
        return _attribute_of(module, attribute, code_dir)
    finally:
        _importing.reset(importing)


def is_importing() -> bool:
    """Whether the code that asks runs because it is imported to be served."""
    return _importing.get()


_importing = ContextVar("importing", default=False)


def _read(file: str, import_path: str, code_dir: Path | None) -> object:
    if code_dir is None or not (code_dir / file).is_file():
        raise CodeFailed(
            f"{import_path} names what a script deployed by value, and is not in the code package",
            hint="in a spec, name the module as it is imported: main:app",
        )
    try:
        return read_by_value(code_dir, file)
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # unpickling runs user code and imports its modules
        raise code_failed(f"unpickling {import_path}", exc) from exc


def put_first(code_dir: Path | None) -> None:
    """Imports look in ``code_dir`` first, and never in whatever the working directory happens to be."""
    here = None if code_dir is None else str(code_dir)
    sys.path[:] = [entry for entry in sys.path if entry not in ("", here)]
    if here is not None:
        sys.path.insert(0, here)
        make_way(Path(here))
    importlib.invalidate_caches()


def _import_module(name: str, code_dir: Path | None) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        missing = exc.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise _no_module(missing, code_dir) from exc
        raise code_failed(f"importing {name}", exc) from exc
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # user code: it may raise anything, SystemExit too
        raise code_failed(f"importing {name}", exc, hint=getattr(exc, "hint", None)) from exc


def _no_module(missing: str, code_dir: Path | None) -> CodeFailed:
    parent, _, leaf = missing.rpartition(".")
    if parent:
        package = sys.modules.get(parent)
        paths = list(getattr(package, "__path__", []))
        if package is not None and not paths:
            return CodeFailed(f"{parent} is a module, not a package: there is no {missing}")
    else:
        paths = [str(code_dir)] if code_dir is not None else []
    near = _near(leaf, (found.name for found in pkgutil.iter_modules(paths)))
    where = f" below {code_dir}" if code_dir is not None else ""
    suggestion = f"; did you mean {f'{parent}.{near}' if parent else near!r}?" if near else ""
    return CodeFailed(f"no module {missing}{where}{suggestion}")


def _attribute_of(module: ModuleType, dotted: str, code_dir: Path | None) -> object:
    found: object = module
    seen = f"module {module.__name__}"
    for name in dotted.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            near = _near(name, dir(found))
            suggestion = f"; did you mean {near!r}?" if near else ""
            raise CodeFailed(
                f"{seen} has no attribute {name!r}{suggestion}", hint=_shadowed(module, code_dir)
            ) from None
        except BaseException as exc:  # a property, or a module's __getattr__, is user code too
            raise code_failed(f"{seen}: attribute {name!r}", exc) from exc
        seen = f"{module.__name__}:{name}" if found is not module else seen
    return found


def _shadowed(module: ModuleType, code_dir: Path | None) -> str | None:
    """A module of another place that carries the name of one in ``code_dir`` explains a missing attribute."""
    file = getattr(module, "__file__", None)
    if code_dir is None or (file and os.path.realpath(file).startswith(os.path.realpath(code_dir) + os.sep)):
        return None
    return f"{module.__name__} was imported from {file or 'the interpreter'}, not from below {code_dir}: rename your module"


def _near(name: str, names: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, [n for n in names if not n.startswith("__")], n=1)), None)
