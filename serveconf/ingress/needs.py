"""Of the files that an application imports, those that each of its deployments needs: so that a change rolls only these.

A deployment needs the file of its class and that of the application, and what they import. A file that has another
deployment's class is left out where nothing of it is used but deployments: who calls one needs nothing of its code. It is
read from the source; a file that imports by name may import all, and what the source does not tell counts for all.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from serveconf.errors import AuthorError
from serveconf.ingress.deployment import Application, Deployment
from serveconf.ingress.graph import nodes_of

_BY_NAME = frozenset({"import_module", "__import__", "run_module", "run_path"})

ANYTHING = "*"  # in the place of a file: it is not told which


@dataclass(frozen=True)
class _Import:
    """One file imports another. ``only``: the modules of the classes of the deployments that it uses of it; None: it uses more."""

    file: str
    only: frozenset[str] | None = None


def needed_files(application: str, homes: Mapping[str, str], modules: Mapping[str, ModuleType]) -> dict[str, list[str]]:
    """Of each deployment the files that it needs, in order.

    ``application``: the module that has it; ``homes``: the module of each deployment's class; ``modules``: all of the code
    package that were imported, by their files.
    """
    everything = sorted(modules)
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
    untold = set(everything).difference(*needed.values())
    return {
        name: sorted(needed[name] | untold) if name in needed and ANYTHING not in needed[name] else everything
        for name in homes
    }


def _imports(module: ModuleType, modules: Mapping[str, ModuleType]) -> Iterable[_Import]:
    """What the module's source imports of the files."""
    names = {other.__name__: file for file, other in modules.items()}
    try:
        with open(str(module.__file__), "rb") as source:
            tree = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):  # as Python has imported it, it is no source
        return
    uses = _Uses(tree)
    if uses.imports_by_name:
        yield _Import(ANYTHING)
    parts = module.__name__.split(".")
    package = module.__name__ if hasattr(module, "__path__") else ".".join(parts[:-1])
    yield from _above(module.__name__, names)
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                for alias in node.names:
                    yield from _above(alias.name, names)
                    if alias.name in names:
                        bound = alias.asname or (alias.name if "." not in alias.name else "")
                        yield _Import(names[alias.name], uses.of_module(bound, sys.modules.get(alias.name)))
            case ast.ImportFrom():
                base = _base(node, package)
                yield from _above(base, names)
                taken = [alias for alias in node.names if f"{base}.{alias.name}" not in names]
                for alias in node.names:
                    inside = f"{base}.{alias.name}"
                    if inside in names:
                        bound = alias.asname or alias.name
                        yield _Import(names[inside], uses.of_module(bound, sys.modules.get(inside)))
                if base in names:
                    yield _Import(names[base], uses.of_names(taken, sys.modules.get(base)))


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


class _Uses:
    """What a module's source does with the names that it has imported."""

    def __init__(self, tree: ast.AST) -> None:
        self.imports_by_name = False
        self._times: Counter[str] = Counter()  # that a name is used
        self._taken: defaultdict[str, list[str]] = defaultdict(
            list
        )  # the attributes that are taken of it, of those again
        for node in ast.walk(tree):
            match node:
                case ast.Name():
                    self._times[node.id] += 1
                    self.imports_by_name |= node.id in _BY_NAME
                case ast.Attribute(value=ast.Name() as of):
                    self._taken[of.id].append(node.attr)
                    self.imports_by_name |= node.attr in _BY_NAME
                case ast.Attribute(value=ast.Attribute(value=ast.Name() as of) as inner):
                    self._taken[f"{of.id}.{inner.attr}"].append(node.attr)
                    self.imports_by_name |= node.attr in _BY_NAME

    def of_module(self, bound: str, module: ModuleType | None) -> frozenset[str] | None:
        """``_Import.only`` for a module that is bound to that name."""
        names = self._taken[bound]
        alone = bool(bound) and self._times[bound] == len(names) and all(self._is_called(f"{bound}.{n}") for n in names)
        return _classes(module, names) if alone else None

    def of_names(self, taken: Sequence[ast.alias], module: ModuleType | None) -> frozenset[str] | None:
        """... and for these names of a module."""
        called = all(self._is_called(alias.asname or alias.name) for alias in taken)
        return _classes(module, [alias.name for alias in taken]) if called else None

    def _is_called(self, name: str) -> bool:
        """Whether nothing is taken of what may be a deployment but what binds it."""
        return set(self._taken[name]) <= {"bind", "options"}


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
