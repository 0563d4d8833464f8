"""``http_options`` as Python gives them, with Starlette's Middleware objects, as the data of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware

from serveconf.errors import AuthorError
from serveconf.serve.parcel import Parcel
from serveconf.spec.load import load_mapping
from serveconf.spec.models import HttpOptions, as_wire


def http_options_spec(options: Mapping[str, Any], parcel: Parcel) -> tuple[dict[str, Any], HttpOptions]:
    """The keys that were said as JSON data, and all of them with their defaults. What middlewares need goes to ``parcel``.

    Raises AuthorError for an unknown key or a wrong value, all of them together.
    """
    if not isinstance(options, Mapping):
        raise AuthorError(f"http_options is a dict such as {{'port': 8000}}, not {options!r}")
    data = {key: value.value if isinstance(value, Enum) else value for key, value in options.items()}
    if "middlewares" in data:
        data["middlewares"] = middlewares_spec(data["middlewares"], "http_options.middlewares", parcel)
    loaded = load_mapping({"http_options": data}, base_dir=Path.cwd())
    return as_wire(loaded.spec).get("http_options", {}), loaded.spec.http_options


def middlewares_spec(given: Any, where: str, parcel: Parcel) -> list[Any]:
    """Middleware objects and mappings in any order as the list that a spec has."""
    if not isinstance(given, list | tuple):
        raise AuthorError(f"{where} is a list of starlette.middleware.Middleware objects, not {given!r}")
    return [_one(item, index, parcel) if isinstance(item, Middleware) else item for index, item in enumerate(given)]


def _one(middleware: Middleware, index: int, parcel: Parcel) -> dict[str, Any]:
    target: Any = middleware.cls
    name = f"middleware_{index}_{getattr(target, '__name__', type(target).__name__)}"
    import_path, arguments = parcel.add(name, target, (middleware.args, middleware.kwargs))
    return {"import_path": import_path, **{key: value for key, value in arguments.items() if value}}
