"""What an app answers, from its route table: ``["GET /items/{id}", "WS /chat", …]``; and the template of one path (``/items/{id}``).

Nothing is called, no schema is built. Templates are asked for by whoever names a request: a path itself says too much, and there
is no end of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from fastapi import routing as fastapi_routing
from starlette.routing import BaseRoute, Host, Mount, WebSocketRoute, compile_path


def operations_of(app: object) -> list[str]:
    """Sorted operations that belong to the app's public face; empty where it has no route table."""
    routes = getattr(app, "routes", None)
    return sorted(set(_operations(routes, ""))) if isinstance(routes, list) else []


def _operations(routes: Iterable[BaseRoute], prefix: str) -> Iterator[str]:
    for route in flat(routes):
        path = prefix + str(getattr(route, "path_format", getattr(route, "path", "")))
        original = getattr(route, "original_route", route)
        if isinstance(original, Mount):
            yield from _operations(original.routes, prefix + str(getattr(route, "path", "")))
        elif isinstance(original, WebSocketRoute):
            yield f"WS {path}"
        elif getattr(route, "include_in_schema", False):
            methods = set(getattr(route, "methods", None) or ())
            yield from (f"{method} {path}" for method in (methods - {"HEAD"} if "GET" in methods else methods))


def flat(routes: Iterable[BaseRoute]) -> Iterator[object]:
    """Each route once with its full path; newer FastAPI keeps those of included routers behind one object."""
    contexts = getattr(fastapi_routing, "iter_route_contexts", None)
    yield from routes if contexts is None else contexts(list(routes))


class _Template(NamedTuple):
    path: str
    matches: re.Pattern[str]
    methods: frozenset[str]  # empty: any
    is_websocket: bool | None  # None: either


class Templates:
    """Of the app that ``find_app`` gives when it is first asked. Routes that it gets later are not known."""

    def __init__(self, find_app: Callable[[], Any]) -> None:
        self._find_app = find_app
        self._found: list[_Template] | None = None

    def find(self, scope: Mapping[str, Any]) -> str | None:
        """The template with the root path before it, as OpenTelemetry wants it; None where the app has none for this."""
        if self._found is None:
            routes = getattr(self._find_app(), "routes", None)
            self._found = list(_templates(routes, "")) if isinstance(routes, list) else []
        root_path: str = scope.get("root_path", "")
        path = scope["path"].removeprefix(root_path) or "/"
        is_websocket = scope["type"] == "websocket"
        method = scope.get("method", "GET")
        near: str | None = None  # only its method does not fit: that is answered by this route too, with 405
        for template in self._found:
            if template.is_websocket not in (None, is_websocket) or not template.matches.fullmatch(path):
                continue
            if not template.methods or is_websocket or method in template.methods:
                return root_path + template.path
            near = near or root_path + template.path
        return near


def _templates(routes: Iterable[BaseRoute], prefix: str) -> Iterator[_Template]:
    for route in flat(routes):
        original = getattr(route, "original_route", route)
        path = prefix + str(getattr(route, "path_format", getattr(route, "path", "")))
        if isinstance(original, Host):
            yield from _templates(original.routes, prefix)
        elif isinstance(original, Mount):
            below = prefix + str(getattr(route, "path", ""))
            yield from _templates(original.routes, below)
            yield _template(below + "/{path:path}", frozenset(), None)  # what it answers without routes of ours
        elif path:
            is_websocket = isinstance(original, WebSocketRoute)
            declared = prefix + str(getattr(route, "path", ""))
            methods = frozenset(getattr(route, "methods", None) or ())
            yield _template(declared, methods, is_websocket)


def _template(declared: str, methods: frozenset[str], is_websocket: bool | None) -> _Template:
    pattern, path, _ = compile_path(declared)
    return _Template(path, pattern, methods, is_websocket)
