"""Which deployment of a Ray Serve application answers HTTP, read from the code that its import path names.

In: folders in which the code may lie, and an import path. Out: what is to be seen there. The code is parsed and never run;
what cannot be told from it is said to be unknown, and the caller decides.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

_DEPTH = 12  # names that lead to names
_MOST_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What stands behind an import path. ``name``: the deployment that answers HTTP, None where it can't be told."""

    builder: bool = False  # a function that Ray Serve calls with the application's args
    name: str | None = None
    options: frozenset[str] = frozenset()  # what its decorator sets


@dataclass(frozen=True)
class _Place:
    """A module's code, and the names of the function that is being read."""

    tree: ast.Module
    package: tuple[str, ...]  # where its relative imports start
    inside: ast.FunctionDef | ast.AsyncFunctionDef | None = None


def see(folders: Sequence[Path], import_path: str) -> Seen | None:
    """What ``module:attribute`` is; None where its code is not in one of the folders."""
    module, _, attribute = import_path.partition(":")
    reader = _Reader(folders)
    place = reader.place(module)
    if place is None or not attribute.isidentifier():
        return None
    found = reader.lookup(attribute, place, _DEPTH)
    if found is None:
        return Seen()
    node, where = found
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _decorator(node):
        return replace(reader.returned(node, where, _DEPTH) or Seen(), builder=True)
    return reader.application(node, where, _DEPTH) or Seen()


class _Reader:
    """Follows names through assignments, definitions and imports."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._places: dict[str, _Place | None] = {}

    def place(self, module: str) -> _Place | None:
        """The module's code, where it lies in one of the folders."""
        if module not in self._places:
            self._places[module] = self._parsed(module)
        return self._places[module]

    def _parsed(self, module: str) -> _Place | None:
        names = tuple(module.split("."))
        if not all(re.fullmatch(r"[\w-]+", name) for name in names):  # nothing at all, or what leads out of the folder
            return None
        *above, last = names
        for folder in self._folders:
            below = folder.joinpath(*above)
            for file, package in ((below / f"{last}.py", tuple(above)), (below / last / "__init__.py", names)):
                try:
                    if file.is_file() and file.stat().st_size <= _MOST_BYTES:
                        return _Place(ast.parse(file.read_bytes()), package)
                except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
                    continue  # not ours to judge: what can't be read is unknown
        return None

    def lookup(self, name: str, place: _Place, depth: int) -> tuple[ast.AST, _Place] | None:
        """The definition or the value of a name, followed through imports."""
        if depth <= 0:
            return None
        scopes = [place.inside.body] if place.inside else []
        for body in (*scopes, place.tree.body):
            for node in reversed(list(_flat(body))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
                    return node, place
                if (value := _assigned(node, name)) is not None:
                    return value, place
                if isinstance(node, ast.ImportFrom):
                    for alias in node.names:
                        if (alias.asname or alias.name) == name:
                            return self._imported(node, alias.name, place, depth)
        return None

    def _imported(self, node: ast.ImportFrom, name: str, place: _Place, depth: int) -> tuple[ast.AST, _Place] | None:
        module = self.place(".".join(_module_of(node, place)))
        return self.lookup(name, module, depth - 1) if module else None

    def application(self, node: ast.AST, place: _Place, depth: int) -> Seen | None:
        """The ingress of an expression that is an application: ``X.bind(…)``, or a name or call that leads to one."""
        if depth <= 0:
            return None
        match node:
            case ast.Call(func=ast.Attribute(value=deployment, attr="bind")):
                return self.deployment(deployment, place, depth - 1)
            case ast.Call(func=ast.Name(id=name)):
                found = self.lookup(name, place, depth)
                if found and isinstance(found[0], ast.FunctionDef | ast.AsyncFunctionDef):
                    return self.returned(found[0], found[1], depth - 1)
            case ast.Name(id=name):
                found = self.lookup(name, place, depth)
                return self.application(*found, depth - 1) if found else None
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                return self.deployment(node, place, depth - 1)
        return None

    def returned(self, node: ast.FunctionDef | ast.AsyncFunctionDef, place: _Place, depth: int) -> Seen | None:
        """What all the ``return`` of a function agree on."""
        inside = replace(place, inside=node)
        found = {
            self.application(one.value, inside, depth - 1)
            for one in _flat(node.body)
            if isinstance(one, ast.Return) and one.value is not None
        }
        return found.pop() if len(found) == 1 else None

    def deployment(self, node: ast.AST, place: _Place, depth: int) -> Seen | None:
        """The name of a deployment, and the options that its decorator and ``.options(…)`` set."""
        if depth <= 0:
            return None
        match node:
            case ast.Name(id=name):
                found = self.lookup(name, place, depth)
                return self.deployment(*found, depth - 1) if found else None
            case ast.Attribute(value=ast.Name(id=module), attr=name):
                module_place = self._module_named(module, place)
                found = self.lookup(name, module_place, depth) if module_place else None
                return self.deployment(*found, depth - 1) if found else None
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                decorator = _decorator(node)
                return _with(Seen(name=node.name), decorator.keywords) if decorator else None
            case ast.Call(func=ast.Attribute(value=inner, attr="options")):
                base = self.deployment(inner, place, depth - 1)
                return _with(base, node.keywords) if base else None
            case ast.Call(func=function, args=[ast.Name(id=name), *_]) if _is_deployment(function):
                return _with(Seen(name=name), node.keywords)
            case ast.Call(func=ast.Call(func=function, keywords=keywords), args=[ast.Name(id=name)]) if _is_deployment(
                function
            ):
                return _with(Seen(name=name), keywords)
        return None

    def _module_named(self, name: str, place: _Place) -> _Place | None:
        for node in _flat(place.tree.body):
            match node:
                case ast.Import(names=names):
                    for alias in names:
                        if (alias.asname or alias.name) == name:
                            return self.place(alias.name)
                case ast.ImportFrom(names=names):
                    for alias in names:
                        if (alias.asname or alias.name) == name:
                            return self.place(".".join([*_module_of(node, place), alias.name]))
        return None


def _module_of(node: ast.ImportFrom, place: _Place) -> list[str]:
    """The module that ``from … import`` names; one dot is the package itself."""
    above = place.package[: max(len(place.package) - node.level + 1, 0)] if node.level else ()
    return [*above, *(node.module.split(".") if node.module else ())]


def _flat(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements, those below ``if``, ``with``, ``try`` and loops too; not those of inner functions and classes."""
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for below in ("body", "orelse", "finalbody"):
                yield from _flat(getattr(node, below, []))
            for handler in getattr(node, "handlers", []):
                yield from _flat(handler.body)


def _assigned(node: ast.stmt, name: str) -> ast.expr | None:
    match node:
        case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
            return value
        case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
            return value
        case _:
            return None


def _decorator(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> ast.Call | None:
    """``@serve.deployment``, bare or with options; a bare one as a call without any."""
    for one in node.decorator_list:
        if isinstance(one, ast.Call) and _is_deployment(one.func):
            return one
        if _is_deployment(one):
            return ast.Call(func=one, args=[], keywords=[])
    return None


def _is_deployment(node: ast.expr) -> bool:
    match node:
        case ast.Name(id="deployment") | ast.Attribute(attr="deployment"):
            return True
        case _:
            return False


def _with(seen: Seen, keywords: Sequence[ast.keyword]) -> Seen:
    """The deployment after options were given to it. A name that is computed is unknown."""
    options = seen.options | {keyword.arg for keyword in keywords if keyword.arg}
    for keyword in keywords:
        if keyword.arg == "name":
            value = keyword.value
            known = isinstance(value, ast.Constant) and isinstance(value.value, str)
            return replace(seen, name=value.value if known else None, options=options)  # type: ignore[attr-defined]
        if keyword.arg == "ray_actor_options" and isinstance(keyword.value, ast.Dict):
            options |= {f"ray_actor_options.{k.value!s}" for k in keyword.value.keys if isinstance(k, ast.Constant)}
    return replace(seen, options=options)
