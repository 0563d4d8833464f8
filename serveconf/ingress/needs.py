"""Of the files that an application imports, those that each of its deployments needs: so that a change rolls only these.

A deployment needs the file of its class and that of the application, and what they import. A file that has another
deployment's class is left out where nothing of it is used but deployments: who calls one needs nothing of its code. It is
read from the source; what was imported in a way that the source does not tell counts for all.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType

from serveconf.errors import AuthorError
from serveconf.ingress.deployment import Application, Deployment
from serveconf.ingress.graph import nodes_of


@dataclass(frozen=True)
class _Import:
    """One file imports another. ``only``: the modules of the classes of the deployments that it uses of it; None: it uses more."""

    file: str
    only: frozenset[str] | None = None


def needed_files(application: str, homes: Mapping[str, str], files: Iterable[str], root: str) -> dict[str, list[str]]:
    """Of each deployment the files that it needs, in order.

    ``application``: the module that has it; ``homes``: the module of each deployment's class; ``files``: all that were
    imported, relative to ``root``.
    """
    everything = sorted(files)
    modules = _modules(everything, root)
    imports = {file: list(_imports(module, modules)) for file, module in modules.items()}
    files_of = {module.__name__: file for file, module in modules.items()}
    start = files_of.get(application)
    if start is None:
        return dict.fromkeys(homes, everything)

    def reached(home: str) -> set[str]:
        others = {files_of.get(other) for other in homes.values() if other != home}
        found, ahead = {start, files_of[home]}, [start, files_of[home]]
        while ahead:
            for one in imports.get(ahead.pop(), ()):
                is_called = one.file in others and one.only is not None and home not in one.only
                if one.file not in found and not is_called:
                    found.add(one.file)
                    ahead.append(one.file)
        return found

    needed = {name: reached(home) for name, home in homes.items() if home in files_of}
    untold = set(everything) - set().union(*needed.values()) if needed else set()
    return {name: sorted(needed[name] | untold) if name in needed else everything for name in homes}


def _modules(files: Iterable[str], root: str) -> dict[str, ModuleType]:
    """By their files, relative to ``root``."""
    wanted, found = set(files), {}
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and isinstance(module, ModuleType):
            file = os.path.relpath(os.path.realpath(path), os.path.realpath(root)).replace(os.sep, "/")
            if file in wanted:
                found[file] = module
    return found


def _imports(module: ModuleType, modules: Mapping[str, ModuleType]) -> Iterable[_Import]:
    """What the module's source imports of the files."""
    names = {other.__name__: file for file, other in modules.items()}
    try:
        with open(str(module.__file__), "rb") as source:
            tree = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):  # as Python has imported it, it is no source
        return
    parts = module.__name__.split(".")
    package = module.__name__ if hasattr(module, "__path__") else ".".join(parts[:-1])
    yield from _above(module.__name__, names)
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                for alias in node.names:
                    bound = alias.asname or (alias.name if "." not in alias.name else "")
                    yield from _above(alias.name, names)
                    if alias.name in names:
                        yield _Import(names[alias.name], _used(tree, bound, sys.modules.get(alias.name)))
            case ast.ImportFrom():
                base = _base(node, package)
                yield from _above(base, names)
                taken = [alias.name for alias in node.names if f"{base}.{alias.name}" not in names]
                for alias in node.names:
                    inside = f"{base}.{alias.name}"
                    if inside in names:
                        yield _Import(names[inside], _used(tree, alias.asname or alias.name, sys.modules.get(inside)))
                if base in names:
                    yield _Import(names[base], _classes(sys.modules.get(base), taken))


def _above(name: str, names: Mapping[str, str]) -> Iterable[_Import]:
    """The packages that a module lies in: they are imported before it."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        if (package := ".".join(parts[:end])) in names:
            yield _Import(names[package])


def _base(node: ast.ImportFrom, package: str) -> str:
    name = "." * node.level + (node.module or "")
    try:
        return importlib.util.resolve_name(name, package)
    except ImportError:  # above the outermost package: Python has not run this line
        return node.module or ""


def _used(tree: ast.AST, bound: str, module: ModuleType | None) -> frozenset[str] | None:
    """``_Import.only`` for a module that is bound to that name."""
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == bound]
    attributes = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == bound
    ]
    return _classes(module, attributes) if len(uses) == len(attributes) else None


def _classes(module: ModuleType | None, names: Iterable[str]) -> frozenset[str] | None:
    """The modules of the classes of these deployments, and of those that are bound to them; None where one is something else."""
    found: set[str] = set()
    values = [getattr(module, name, None) for name in names]
    for value in values:
        match value:
            case Deployment():
                found.add(home_of(value))
            case Application():
                try:
                    found.update(home_of(node.deployment) for node in nodes_of(value))
                except AuthorError:  # none that could be served
                    return None
            case _:
                return None
    return frozenset(found) if values else None


def home_of(deployment: Deployment) -> str:
    """The module of its class."""
    return str(getattr(deployment.func_or_class, "__module__", ""))
