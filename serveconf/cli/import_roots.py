"""The folder where a file's imports start, as far as the code and the project's own files tell: nothing of it runs.

In: a folder and the Python files below it. Out: for each the folder that has to be on ``sys.path``, which is ``app_dir``.
"""

from __future__ import annotations

import ast
import os
import tomllib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any


def root_of(file: Path, folder: Path, tree: ast.Module) -> Path:
    """``folder`` or one of those between it and ``file``: the one from which most of what the file imports is found.

    Where it imports nothing of the project by full names, its neighbours are looked at. Where imports do not decide,
    what pyproject.toml and PYTHONPATH name does; then the layout: ``src``, or where the packages (``__init__.py``) begin.
    """
    candidates = [place for place in _between(folder, file.parent) if _is_importable(file.relative_to(place))]
    if not candidates:
        return file.parent
    found = _evidence(_imported(tree), candidates) or _evidence(_imported_around(file), candidates)
    most = max(found.values(), default=0)
    if most:
        candidates = [place for place in candidates if found[place] == most]
    named = [place for place in candidates if place in _named_roots(folder)]
    if named:
        return named[-1]
    if most:
        return candidates[0]
    return _by_layout(file, candidates)


def find_module(module: str, folder: Path, folders: Iterable[Path]) -> Path | None:
    """The first of the places from which ``module`` can be imported: ``folder``, those named, then ``folders``."""
    places = [folder, *sorted(_named_roots(folder)), folder / "src", *folders]
    return next((place for place in places if _resolves(module, place)), None)


def _between(folder: Path, inner: Path) -> Iterator[Path]:
    """``folder`` first, ``inner`` last."""
    place = folder
    yield place
    for part in inner.relative_to(folder).parts:
        place = place / part
        yield place


def _is_importable(path: Path) -> bool:
    parts = [*path.parts[:-1], *([] if path.stem == "__init__" else [path.stem])]
    return bool(parts) and all(part.isidentifier() and part.isascii() for part in parts)


def _evidence(names: set[str], candidates: list[Path]) -> dict[Path, int]:
    """How many of the modules lie below each of the places; empty where none lies anywhere."""
    found = {place: sum(_resolves(name, place) for name in names) for place in candidates}
    return found if any(found.values()) else {}


def _imported_around(file: Path) -> set[str]:
    names: set[str] = set()
    for number, other in enumerate(sorted(file.parent.rglob("*.py"))):
        if number >= _MOST_NEIGHBOURS:
            break
        try:
            names |= _imported(ast.parse(other.read_bytes()))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # not ours to judge
    return names


_MOST_NEIGHBOURS = 100


def _imported(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                names |= {alias.name for alias in aliases}
            case ast.ImportFrom(module=str(module), level=0):
                names.add(module)
            case _:
                pass
    return names


def _resolves(module: str, place: Path) -> bool:
    path = place.joinpath(*module.split("."))
    return path.with_name(f"{path.name}.py").is_file() or (path / "__init__.py").is_file() or _has_python(path)


def _has_python(folder: Path) -> bool:
    """Whether it can be a package without ``__init__.py``."""
    try:
        return any(entry.name.endswith(".py") for entry in os.scandir(folder))
    except OSError:
        return False


def _by_layout(file: Path, candidates: list[Path]) -> Path:
    beside_src = [place for place in candidates if place.name == "src" and not (place / "__init__.py").exists()]
    if beside_src:
        return beside_src[0]
    top = file.parent  # the folder above the topmost package is where its imports start
    while (top / "__init__.py").is_file() and top != candidates[0]:
        top = top.parent
    return top if top != file.parent and top in candidates else candidates[0]


@lru_cache(maxsize=8)
def _named_roots(folder: Path) -> frozenset[Path]:
    """Folders that pyproject.toml files (of ``folder`` and of those right below it) and PYTHONPATH name."""
    entries = [Path(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    found = {Path(os.path.abspath(entry)) for entry in entries}
    for file in [folder / "pyproject.toml", *sorted(folder.glob("*/pyproject.toml"))]:
        try:
            data = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # another tool's file: what cannot be read says nothing
            continue
        found |= {file.parent / name for name in _package_folders(data.get("tool", {}))}
    return frozenset(Path(os.path.abspath(place)) for place in found if place.is_dir())


def _package_folders(tools: Any) -> set[str]:
    """Folders that packages lie in, in the words of setuptools, Poetry, Hatch, PDM, uv, Flit, maturin and pytest."""
    said = [
        _at(tools, "setuptools", "packages", "find", "where"),
        _at(tools, "setuptools", "package-dir", ""),
        _at(tools, "pdm", "build", "package-dir"),
        _at(tools, "maturin", "python-source"),
        _at(tools, "uv", "build-backend", "module-root"),
        _at(tools, "pytest", "ini_options", "pythonpath"),
        *(one.get("from") for one in _each(_at(tools, "poetry", "packages")) if isinstance(one, dict)),
    ]
    wheel = _at(tools, "hatch", "build", "targets", "wheel", "packages")
    said += [str(PurePosixPath(one).parent) for one in _each(wheel) if isinstance(one, str)]
    return {name for one in said for name in _each(one) if isinstance(name, str) and name}


def _at(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _each(value: Any) -> list[Any]:
    if isinstance(value, str):
        return value.split()
    return value if isinstance(value, list) else []
