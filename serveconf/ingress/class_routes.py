"""``@serve.ingress(app)``: a class whose methods are routes of a FastAPI app, served with the replica's instance as ``self``.

Decoration takes the routes of the class's methods out of the app (and out of routers included in it) and keeps them on
the class, so that neither the app nor another class on it serves them. Each replica then gets a copy of the app as it is
by then, with those routes back in their places and bound to its instance.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp

from serveconf.errors import AuthorError
from serveconf.ingress.app_copy import Choice, copy_app, routers_of, set_routes
from serveconf.ingress.kinds import INGRESS, shape_of

C = TypeVar("C", bound=type)

_ROUTES = "__serveconf_routes__"  # on each class whose methods were routes: those routes


@dataclass(frozen=True)
class MethodRoute:
    """A route taken out of ``router``, where it stood behind ``after`` (None: at the front)."""

    route: BaseRoute
    router: Router
    after: BaseRoute | None


@dataclass(frozen=True)
class Ingress:
    """What the decorator leaves on a class."""

    app: Any
    routes: tuple[MethodRoute, ...]


def ingress(app: Any) -> Callable[[C], C]:
    """Serve ``app`` (FastAPI, an APIRouter, or any ASGI app) from the decorated class; an empty class serves it whole."""
    if isinstance(app, type) or shape_of(app) != "asgi3":
        raise TypeError(f"serve.ingress takes an ASGI app, such as FastAPI(), not {app!r}")

    def decorate(cls: C) -> C:
        if not isinstance(cls, type):
            raise TypeError("serve.ingress decorates a class; write @serve.deployment above it, not below")
        if any("__call__" in vars(owner) for owner in cls.__mro__):
            raise AuthorError(
                f"class {cls.__qualname__} has both @serve.ingress and __call__: which of the two should answer?",
                hint="make __call__ a route of the app, or take @serve.ingress away",
            )
        served = _around(app) if isinstance(app, APIRouter) else app
        if isinstance(served, Starlette):
            _take_routes(served, cls)
        kept = [taken for owner in cls.__mro__ for taken in vars(owner).get(_ROUTES, ())]
        setattr(cls, INGRESS, Ingress(app=served, routes=tuple(kept)))
        return cls

    return decorate


def _around(router: APIRouter) -> FastAPI:
    app = FastAPI()
    app.include_router(router)
    return app


def is_ingress(target: object) -> bool:
    """Whether ``target`` is a class that carries ``@serve.ingress``, its own or inherited."""
    return isinstance(target, type) and hasattr(target, INGRESS)


def routed_app(instance: object) -> ASGIApp:
    """The app of one replica: a copy whose method routes are bound to ``instance``."""
    cls = type(instance)
    record: Ingress = getattr(cls, INGRESS)
    if not isinstance(record.app, Starlette):
        return record.app  # type: ignore[no-any-return]

    def choose(router: Router) -> Iterator[Choice]:
        routes = _put_back(router, record.routes)
        overridden = _overridden(routes, cls)
        for route in routes:
            owner = _owner(route, cls)
            if owner is not None:
                if id(route) not in overridden:
                    yield route, _bound(_endpoint(route), owner, instance)
            elif not _is_unbound_method(_endpoint(route)):
                yield route, None

    return copy_app(record.app, choose)


def _take_routes(app: Starlette, cls: type) -> None:
    for router in routers_of(app.router):
        kept: list[BaseRoute] = []
        taken: dict[type, list[MethodRoute]] = {}
        for route in router.routes:
            owner = _owner(route, cls)
            if owner is None:
                kept.append(route)
            else:
                after = kept[-1] if kept else None
                taken.setdefault(owner, []).append(MethodRoute(route, router, after))
        if taken:
            set_routes(router, kept)
        for owner, routes in taken.items():
            setattr(owner, _ROUTES, (*vars(owner).get(_ROUTES, ()), *routes))


def _put_back(router: Router, taken: tuple[MethodRoute, ...]) -> list[BaseRoute]:
    """The router's routes as they were declared, with the taken ones in their places."""
    mine = [item for item in taken if item.router is router]
    routes = [item.route for item in mine if item.after is None]
    for route in router.routes:
        routes.append(route)
        routes += [item.route for item in mine if item.after is route]
    return routes + [item.route for item in mine if not any(item.route is placed for placed in routes)]


def _endpoint(route: BaseRoute) -> Any:
    return getattr(route, "endpoint", None)


def _plain(value: Any) -> Any:
    return value.__func__ if isinstance(value, staticmethod | classmethod) else value


def _owner(route: BaseRoute, cls: type) -> type | None:
    """The class, ``cls`` or a base of it, in whose body the route's endpoint was defined.

    Told by qualified name too: where two methods have one name, the class only holds the last one.
    """
    endpoint = _endpoint(route)
    if endpoint is None:
        return None
    plain = _plain(endpoint)
    place = (getattr(plain, "__module__", None), str(getattr(plain, "__qualname__", "")))
    for owner in cls.__mro__[:-1]:
        if place == (owner.__module__, f"{owner.__qualname__}.{getattr(plain, '__name__', '')}"):
            return owner
        if "." in place[1] and any(_plain(value) is plain for value in vars(owner).values()):
            return owner  # a decorator hid its name; a function of the module that a class only refers to stays one
    return None


def _bound(endpoint: Any, owner: type, instance: object) -> Callable[..., Any]:
    """The endpoint as a method of ``instance``. A subclass that redefines the method is asked instead, as everywhere in Python."""
    own = ((name, value) for name, value in vars(owner).items() if _plain(value) is _plain(endpoint))
    name, defined = next(own, ("", endpoint))
    for cls in type(instance).__mro__ if name else ():
        if name in vars(cls):
            defined = vars(cls)[name]
            break
    method: Callable[..., Any] = defined.__get__(instance, type(instance))
    return method


def _overridden(routes: list[BaseRoute], cls: type) -> set[int]:
    """Routes of a base class whose very path and methods a subclass declares again: the subclass's answers, as methods do."""
    first: dict[tuple[str, frozenset[str]], type] = {}
    order = list(cls.__mro__)
    owned = [(route, owner) for route in routes if (owner := _owner(route, cls)) is not None]
    for route, owner in owned:
        key = _key(route)
        if key not in first or order.index(owner) < order.index(first[key]):
            first[key] = owner
    return {id(route) for route, owner in owned if first[_key(route)] is not owner}


def _key(route: BaseRoute) -> tuple[str, frozenset[str]]:
    return str(getattr(route, "path", "")), frozenset(getattr(route, "methods", None) or {type(route).__name__})


def _is_unbound_method(endpoint: Any) -> bool:
    """Whether it is a method of some class: without that class's instance it can answer nothing."""
    if not inspect.isfunction(endpoint):
        return False
    in_class = "." in endpoint.__qualname__.rpartition("<locals>.")[2]
    return in_class and next(iter(inspect.signature(endpoint).parameters), None) == "self"
