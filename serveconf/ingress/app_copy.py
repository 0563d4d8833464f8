"""A copy of a FastAPI (or Starlette) app with routes of its own; the original is not touched.

The copy has its own router, middleware stack and OpenAPI cache. It shares what belongs to the app as the author wrote
it: mounts, lifespan, ``state`` and ``dependency_overrides``, so that code that names the original app still means this one.
Newer FastAPI keeps included routers as nested objects, older ones copied their routes: both are walked here.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator
from types import MethodType
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route, Router, WebSocketRoute

Endpoint = Callable[..., Any]
Choice = tuple[BaseRoute, Endpoint | None]  # a route of the copy, and the endpoint it gets there; None: its own
Choose = Callable[[Router], Iterable[Choice]]


def copy_app(app: Starlette, choose: Choose) -> Starlette:
    """The app with the routes that ``choose`` gives for its router and for each included one."""
    copied = copy.copy(app)
    copied.middleware_stack = None
    copied.user_middleware = list(app.user_middleware)
    copied.exception_handlers = dict(app.exception_handlers)
    copied.router = _empty_copy(app.router)
    docs = _own_docs(app, copied)
    copied.router.routes = [
        docs.get(_docs_name(route), route) if _docs_name(route) else _copy_route(route, endpoint, copied, choose)
        for route, endpoint in choose(app.router)
    ]
    return copied


def routers_of(router: Router) -> Iterator[Router]:
    """The router and the routers included in it, each once."""
    seen: list[Router] = []
    pending = [router]
    while pending:
        found = pending.pop(0)
        if not any(found is known for known in seen):
            seen.append(found)
            yield found
            pending += [inner for route in found.routes if (inner := included_router(route)) is not None]


def included_router(route: BaseRoute) -> Router | None:
    """The router behind a route that stands for an included one."""
    inner = getattr(route, "original_router", None)
    return inner if isinstance(inner, Router) else None


def set_routes(router: Router, routes: list[BaseRoute]) -> None:
    """Change a router in place, and tell FastAPI, which caches what it made of the routes before."""
    router.routes[:] = routes
    getattr(router, "_mark_routes_changed", lambda: None)()


def _empty_copy(router: Router) -> Router:
    copied = copy.copy(router)
    copied.routes = []
    copied.middleware_stack = _rebound(router.middleware_stack, router, copied)
    return copied


def _rebound(layer: Any, old: Router, new: Router) -> Any:
    """The router's middlewares, which end in a bound method of the old router, around the new one."""
    if isinstance(layer, MethodType) and layer.__self__ is old:
        return MethodType(layer.__func__, new)
    if not hasattr(layer, "app"):
        return layer
    copied = copy.copy(layer)
    copied.app = _rebound(layer.app, old, new)
    return copied


def _copy_route(route: BaseRoute, endpoint: Endpoint | None, app: Starlette, choose: Choose) -> BaseRoute:
    if endpoint is not None:
        return _with_endpoint(route, endpoint, app)
    inner = included_router(route)
    if inner is None or not _touched(inner, choose):
        return route
    copied = _empty_copy(inner)
    copied.routes = [_copy_route(nested, bound, app, choose) for nested, bound in choose(inner)]
    return type(route)(original_router=copied, include_context=getattr(route, "include_context"))  # type: ignore[call-arg]  # noqa: B009


def _touched(router: Router, choose: Choose) -> bool:
    """Whether anything in or below the router differs in the copy; what does not is shared."""
    chosen = list(choose(router))
    if len(chosen) != len(router.routes) or any(endpoint is not None for _, endpoint in chosen):
        return True
    return any(_touched(inner, choose) for route, _ in chosen if (inner := included_router(route)) is not None)


def _with_endpoint(route: BaseRoute, endpoint: Endpoint, app: Starlette) -> BaseRoute:
    """The same route made anew for another endpoint, by the arguments that it keeps as attributes."""
    base = next(kind for kind in (APIRoute, APIWebSocketRoute, Route, WebSocketRoute) if isinstance(route, kind))
    names = set(inspect.signature(base.__init__).parameters) - {"self", "path", "endpoint"}
    arguments = {name: getattr(route, name) for name in names if hasattr(route, name)}
    if "dependency_overrides_provider" in names:
        arguments["dependency_overrides_provider"] = app
    if getattr(route, "stream_item_type", None) is not None:
        arguments.pop("response_model")  # said by the annotation; given as an argument it would not stream
    return type(route)(route.path, endpoint=endpoint, **arguments)  # type: ignore[call-arg, attr-defined]


def _docs_name(route: BaseRoute) -> str:
    """Which of FastAPI's own pages (openapi, docs, redoc) a route is; empty for any other route."""
    endpoint = getattr(route, "endpoint", None)
    qualname = getattr(endpoint, "__qualname__", "")
    if getattr(endpoint, "__module__", "") == "fastapi.applications" and qualname.startswith("FastAPI.setup."):
        return str(qualname)
    return ""


def _own_docs(app: Starlette, copied: Starlette) -> dict[str, BaseRoute]:
    """The pages of the copy: those of the original are closures over the original."""
    if not isinstance(app, FastAPI) or not isinstance(copied, FastAPI):
        return {}
    copied.openapi_schema = None
    if "openapi" in vars(app):
        copied.openapi = _openapi_as_if(app, copied)  # type: ignore[method-assign]
    copied.setup()
    docs, copied.router.routes = copied.router.routes, []
    return {_docs_name(route): route for route in docs}


def _openapi_as_if(app: FastAPI, copied: FastAPI) -> Callable[[], dict[str, Any]]:
    """An author's own ``app.openapi = custom`` names ``app.routes``: while it runs, those are the copy's."""
    custom = app.openapi
    made: list[dict[str, Any]] = []

    def openapi() -> dict[str, Any]:
        if not made:
            routes, schema = app.router.routes, app.openapi_schema
            app.router.routes, app.openapi_schema = copied.router.routes, None
            try:
                made.append(custom())
            finally:
                app.router.routes, app.openapi_schema = routes, schema
        return made[0]

    return openapi
