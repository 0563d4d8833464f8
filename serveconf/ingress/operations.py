"""What an app answers, from its route table: ``["GET /items/{id}", "WS /chat", …]``. Nothing is called, no schema is built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fastapi import routing as fastapi_routing
from starlette.routing import BaseRoute, Mount, WebSocketRoute


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
