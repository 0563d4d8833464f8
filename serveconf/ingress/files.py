"""Whether an app's ``FileResponse`` may leave as ``http.response.pathsend``: where nothing that wraps its ``send`` minds.

A middleware that does not know the message would drop it or never see the body that it is there for. So this is offered
only to apps that are known to pass it on: Starlette's and FastAPI's own parts, less those that look at bodies.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute

_PASSING = frozenset(  # they look at the head of an answer at most
    {
        "starlette.middleware.authentication.AuthenticationMiddleware",
        "starlette.middleware.cors.CORSMiddleware",
        "starlette.middleware.errors.ServerErrorMiddleware",
        "starlette.middleware.exceptions.ExceptionMiddleware",
        "starlette.middleware.httpsredirect.HTTPSRedirectMiddleware",
        "starlette.middleware.sessions.SessionMiddleware",
        "starlette.middleware.trustedhost.TrustedHostMiddleware",
        "fastapi.middleware.asyncexitstack.AsyncExitStackMiddleware",
    }
)
_FUNCTIONS_OF = ("starlette.", "fastapi.", "serveconf.ingress.")


def passes_files(app: Any) -> bool:
    """Whether the answer of any of its routes reaches the server as it was sent."""
    if isinstance(app, Starlette):
        return _is_as_it_was(app) and _all_pass(app.user_middleware) and all(map(_route_passes, app.routes))
    if isinstance(app, Router):
        as_it_was = app.middleware_stack == app.app and _name(type(app).__call__).startswith(_FUNCTIONS_OF)
        return as_it_was and all(map(_route_passes, app.routes))
    if _name(type(app)) == "starlette.staticfiles.StaticFiles":
        return True
    if _name(type(app)) in _PASSING:
        return passes_files(app.app)
    if isinstance(app, type):
        return issubclass(app, HTTPEndpoint)
    return isinstance(app, FunctionType) and _name(app).startswith(_FUNCTIONS_OF)


def _is_as_it_was(app: Starlette) -> bool:
    """Whether nobody has changed how it is called or what is built around it, as instrumentations do."""
    kind = FastAPI if isinstance(app, FastAPI) else Starlette
    return (
        type(app).__call__ is kind.__call__
        and type(app).build_middleware_stack is kind.build_middleware_stack
        and "build_middleware_stack" not in vars(app)
    )


def _all_pass(middlewares: Any) -> bool:
    return all(_name(middleware.cls) in _PASSING for middleware in middlewares)


def _route_passes(route: Any) -> bool:
    if isinstance(route, WebSocketRoute):
        return True
    if isinstance(route, Route | Mount | Host):
        return passes_files(route.app)
    if hasattr(route, "original_router"):  # FastAPI's include_router
        return passes_files(route.original_router)
    return False


def _name(what: Any) -> str:
    return f"{getattr(what, '__module__', '')}.{getattr(what, '__qualname__', '')}"
