"""What a served object is, told from its type and signature alone: nothing of it is called here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, get_type_hints

from starlette.applications import Starlette

from serveconf.errors import AuthorError

Kind = Literal["asgi", "class", "function", "deployment"]
Shape = Literal["asgi3", "asgi2", "class", "callable"]

INGRESS = "__serveconf_ingress__"  # the attribute that @serve.ingress leaves on a class


def shape_of(target: object) -> Shape:
    """How ``target`` is called: as an ASGI app (3 or 2), as a class to construct, or as ``f(request)``/``f()``.

    Raises ``AuthorError`` for what cannot be served.
    """
    if isinstance(target, type):
        return _shape_of_class(target)
    if not callable(target):
        raise AuthorError(
            f"{_name(target)} cannot be served: it is neither an ASGI app nor callable",
            hint="name an ASGI app, a @serve.deployment, a class with __call__, or a function f(request)",
        )
    if hasattr(target, "wsgi_app"):
        raise _wsgi(target)
    if _returns_app(target):
        raise AuthorError(
            f"{_name(target)} returns an app and is not one itself", hint="set factory: true to serve what it returns"
        )
    return _shape_of_call(target, required_parameters(target))


def required_parameters(func: Callable[..., Any]) -> list[str] | None:
    """Names of the positional parameters that must be given; None where the signature cannot be told."""
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in positional and p.default is p.empty]


def takes_request(func: Callable[..., Any]) -> bool:
    """False for a function without any positional parameter."""
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.kind not in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD) for p in parameters)


def _shape_of_class(target: type) -> Shape:
    if hasattr(target, "__await__"):
        return "asgi3"  # Starlette's endpoints: awaiting Class(scope, receive, send) answers
    if hasattr(target, INGRESS):
        return "class"
    call = next((vars(owner)["__call__"] for owner in target.__mro__ if "__call__" in vars(owner)), None)
    if call is None:
        raise AuthorError(
            f"class {target.__qualname__} cannot be served: it has no __call__",
            hint="define __call__(self, request), put @serve.ingress(app) on it, or, where handles alone call it, "
            "set route_prefix: null",
        )
    required = required_parameters(call)
    if _bare(required_parameters(target)) == ["scope"] and _bare(required) == ["self", "receive", "send"]:
        return "asgi2"
    if inspect.isfunction(call) and required:
        _shape_of_call(target, required[1:])  # what cannot be called is known before it is constructed
    return "class"


def _shape_of_call(target: Callable[..., Any], required: list[str] | None) -> Shape:
    match _bare(required):
        case None | []:
            return "callable"
        case ["scope"] if inspect.isfunction(target) and not inspect.iscoroutinefunction(target):
            return "asgi2"
        case [_]:
            return "callable"
        case ["environ" | "env", _]:
            raise _wsgi(target)
        case [_, _, _]:
            return "asgi3"
    raise AuthorError(
        f"{_name(target)} cannot be served: it takes {len(required or [])} parameters ({', '.join(required or [])})",
        hint="a function takes the request or nothing; an ASGI app takes scope, receive, send",
    )


def _returns_app(target: Callable[..., Any]) -> bool:
    """Whether its annotation says so; what is not annotated shows only when it is called."""
    try:
        returned = get_type_hints(target).get("return") if inspect.isfunction(target) else None
    except Exception:  # noqa: BLE001 - annotations are any code, and only a hint is lost
        return False
    return isinstance(returned, type) and issubclass(returned, Starlette)


def _bare(names: list[str] | None) -> list[str] | None:
    return None if names is None else [name.lstrip("_") for name in names]


def _name(target: object) -> str:
    name = getattr(target, "__qualname__", None)
    return name if isinstance(name, str) else f"an object of type {type(target).__qualname__}"


def _wsgi(target: object) -> AuthorError:
    return AuthorError(
        f"{_name(target)} is a WSGI app; serveconf serves ASGI",
        hint="wrap it: pip install a2wsgi, then app = a2wsgi.WSGIMiddleware(wsgi_app)",
    )
