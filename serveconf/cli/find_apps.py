"""FastAPI apps below a folder, found by reading the code: nothing of it runs."""

from __future__ import annotations

import ast
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from serveconf.cli.import_roots import root_of

_KINDS = ("FastAPI", "Starlette")
_SKIPPED = {"node_modules", "__pycache__", "site-packages", "venv", "env", "build", "dist", "tests", "test"}
_SAYS_APP = re.compile(rb"FastAPI|Starlette")
_MOST_FILES = 2000
_MOST_BYTES = 1024 * 1024


class App(NamedTuple):
    """What can be served, and from where it is imported."""

    root: Path  # the folder where its imports start
    import_path: str
    factory: bool = False


def find_apps(folder: Path) -> list[App]:
    """Every module-level FastAPI or Starlette app, sub-apps that another one mounts left out. ``folder`` is absolute.

    Where there is no such app, functions that make one count, if they can be called without arguments.
    """
    apps: list[App] = []
    makers: list[App] = []
    for file in itertools.islice(files_below(folder, ".py"), _MOST_FILES):
        more, by_call = _looked_at(file, folder)
        apps += more
        makers += by_call
    return apps or makers


def apps_of(file: Path, folder: Path) -> list[App]:
    """The same of one file; its imports start in ``folder`` or below it."""
    apps, makers = _looked_at(file, folder)
    return apps or makers


def _looked_at(file: Path, folder: Path) -> tuple[list[App], list[App]]:
    """The apps that a file defines, and the functions that make one."""
    tree = parsed_if(file, _SAYS_APP)
    if tree is None:
        return [], []
    root = root_of(file, folder, tree)
    module = module_of(file.relative_to(root))
    if not module:
        return [], []
    makers = [name for name in _makers(tree) if _is_callable_bare(name, tree)]
    return (
        [App(root, f"{module}:{name}") for name in _apps(tree)],
        [App(root, f"{module}:{name}", factory=True) for name in makers],
    )


def files_below(folder: Path, *suffixes: str) -> Iterator[Path]:
    """Those whose names end so, but for what is hidden, installed, built or a test."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED)
        yield from (Path(root, name) for name in sorted(names) if name.endswith(suffixes))


def python_folders(folder: Path) -> list[Path]:
    """The folders below with Python files, those near the top first."""
    found = {place for file in itertools.islice(files_below(folder, ".py"), _MOST_FILES) for place in file.parents}
    return sorted(
        (place for place in found if place.is_relative_to(folder)), key=lambda place: (len(place.parts), place)
    )


def module_of(path: Path) -> str | None:
    """``shop/main.py`` is ``shop.main``; None where a part of the path cannot be imported."""
    parts = [*path.parts[:-1], path.stem]
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts) if parts and all(part.isidentifier() and part.isascii() for part in parts) else None


def parsed_if(file: Path, said: re.Pattern[bytes]) -> ast.Module | None:
    """The file's code where that is in it."""
    try:
        if file.stat().st_size > _MOST_BYTES:
            return None
        source = file.read_bytes()
        if not said.search(source):
            return None
        return ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # not ours to judge: the file is passed over


def _apps(tree: ast.Module) -> Iterator[str]:
    """Names that are set to ``FastAPI(…)``, ``Starlette(…)``, or what a function of the module makes so, at its level."""
    mounted = {
        argument.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "mount"
        for argument in [*node.args, *(keyword.value for keyword in node.keywords)]
        if isinstance(argument, ast.Name)
    }
    makers = {*_KINDS, *_makers(tree)}
    for node in tree.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Call() as call)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.Call() as call)
            ):
                if _called(call) in makers and name not in mounted:
                    yield name
            case _:
                pass


def _makers(tree: ast.Module) -> Iterator[str]:
    """Functions at the module's level that say, or show, that they return an app."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            said = node.returns
            if said is not None:
                if _last_name(said) in _KINDS:
                    yield node.name
            elif _returns_app(node):
                yield node.name


def _returns_app(function: ast.FunctionDef) -> bool:
    made = {
        target.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _called(node.value) in _KINDS
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
    return any(
        (isinstance(value, ast.Name) and value.id in made) or (isinstance(value, ast.Call) and _called(value) in _KINDS)
        for value in returned
    )


def _is_callable_bare(name: str, tree: ast.Module) -> bool:
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    arguments = function.args
    positional = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return positional <= 0 and all(default is not None for default in arguments.kw_defaults)


def _called(call: ast.Call) -> str:
    return _last_name(call.func)


def _last_name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Constant(value=str(text)):  # an annotation in quotes
            return text.rpartition(".")[2]
        case _:
            return ""
