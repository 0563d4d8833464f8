"""A bound application as the deployments that it is made of: each with a name of its own, and handles for who it calls.

The application that was bound last is the ingress: it is the one that answers HTTP. Two that would have one name get a
number, in the order in which they are found (``Model``, ``Model_1``), as in Ray Serve.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from serveconf.errors import AuthorError
from serveconf.ingress.deployment import Application, Deployment


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """One bound deployment. ``calls``: the names of those that are among its arguments, directly or inside of others."""

    name: str
    deployment: Deployment
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    calls: tuple[str, ...]

    def arguments(self, handle: Callable[[str], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What it is constructed with, where ``handle`` gives what stands for another deployment, by name."""
        names = self._names
        put = _replacing(lambda app: handle(names[id(app)]))
        return tuple(map(put, self.args)), {key: put(value) for key, value in self.kwargs.items()}

    _names: Mapping[int, str] = dataclasses.field(default_factory=dict, repr=False)


def nodes_of(app: Application) -> tuple[Node, ...]:
    """All deployments of the graph: who is called stands before who calls, the ingress last."""
    names: dict[int, str] = {}
    nodes: list[Node] = []
    _visit(app, names, nodes, ())
    return tuple(nodes)


def node_of(app: Application, name: str) -> Node:
    """One of ``nodes_of``; the ingress where ``name`` is empty. Raises AuthorError."""
    nodes = nodes_of(app)
    if not name:
        return nodes[-1]
    for node in nodes:
        if node.name == name:
            return node
    raise AuthorError(f"the application has no deployment '{name}'", hint=f"it has: {', '.join(n.name for n in nodes)}")


def _visit(app: Application, names: dict[int, str], nodes: list[Node], path: tuple[Application, ...]) -> None:
    if id(app) in names:
        return
    if any(app is one for one in path):
        raise AuthorError(f"the application {app.deployment.name} is among its own arguments")
    inner = [one for value in (*app.args, *app.kwargs.values()) for one in _applications_in(value)]
    for one in inner:
        _visit(one, names, nodes, (*path, app))
    names[id(app)] = _unique(app.deployment.name, set(names.values()))
    calls = dict.fromkeys(names[id(one)] for one in inner)
    nodes.append(
        Node(
            name=names[id(app)],
            deployment=app.deployment,
            args=app.args,
            kwargs=app.kwargs,
            calls=tuple(calls),
            _names=names,
        )
    )


def _unique(name: str, taken: set[str]) -> str:
    number, found = 1, name
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    return found


def _applications_in(value: Any) -> Iterator[Application]:
    """Those that stand in lists, tuples, sets, mappings and dataclasses, however deep."""
    match value:
        case Application():
            yield value
        case Deployment():
            raise AuthorError(
                f"deployment {value.name} is given as an argument and is not bound",
                hint=f"write {value.name}.bind(...)",
            )
        case list() | tuple() | set() | frozenset():
            for item in value:
                yield from _applications_in(item)
        case dict():
            for item in value.values():
                yield from _applications_in(item)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            for field in dataclasses.fields(value):
                yield from _applications_in(getattr(value, field.name, None))


def _replacing(handle: Callable[[Application], Any]) -> Callable[[Any], Any]:
    """The same walk, which makes anew only what holds an application."""

    def put(value: Any) -> Any:
        if isinstance(value, Application):
            return handle(value)
        if next(_applications_in(value), None) is None:
            return value
        if isinstance(value, dict):
            return type(value)((key, put(item)) for key, item in value.items())
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(put, value))
        if isinstance(value, list | tuple | set | frozenset):
            return type(value)(map(put, value))
        return dataclasses.replace(
            value, **{field.name: put(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
        )

    return put
