"""FastAPI apps below a folder, found by reading the code: nothing of it runs."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

_SKIPPED = {"node_modules", "__pycache__", "site-packages", "venv", "env", "build", "dist", "tests", "test"}
_MOST_FILES = 2000
_MOST_BYTES = 1024 * 1024


def find_apps(folder: Path) -> Iterator[str]:
    """The import path of every module-level FastAPI or Starlette app, sub-apps that another one mounts left out."""
    for number, file in enumerate(_python_files(folder)):
        if number >= _MOST_FILES:
            return
        module = _module(file.relative_to(folder))
        tree = _parsed(file)
        if module and tree:
            yield from (f"{module}:{name}" for name in _apps(tree))


def _python_files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED)
        yield from (Path(root, name) for name in sorted(names) if name.endswith(".py"))


def _module(path: Path) -> str | None:
    """``shop/main.py`` is ``shop.main``; None where a part of the path cannot be imported."""
    parts = [*path.parts[:-1], path.stem]
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts) if parts and all(part.isidentifier() and part.isascii() for part in parts) else None


def _parsed(file: Path) -> ast.Module | None:
    try:
        if file.stat().st_size > _MOST_BYTES:
            return None
        source = file.read_bytes()
        if not re.search(rb"FastAPI|Starlette", source):
            return None
        return ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # not ours to judge: the file is passed over


def _apps(tree: ast.Module) -> Iterator[str]:
    """Names that are set to ``FastAPI(…)`` or ``Starlette(…)`` at the module's level."""
    mounted = {
        argument.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "mount"
        for argument in [*node.args, *(keyword.value for keyword in node.keywords)]
        if isinstance(argument, ast.Name)
    }
    for node in tree.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=value)
            ):
                if isinstance(value, ast.Call) and _called(value) in ("FastAPI", "Starlette") and name not in mounted:
                    yield name
            case _:
                pass


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""
