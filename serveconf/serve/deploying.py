"""What Python gives as the data of a spec: a ``Deployment`` as a request that adds it to the stack, and ``http_options``.

And back: what the stack has as ``Deployment`` objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic_core import PydanticSerializationError
from starlette.middleware import Middleware

from serveconf.client import Client
from serveconf.errors import AuthorError
from serveconf.ingress.deployment import Deployment
from serveconf.serve.parcel import Parcel
from serveconf.serve.session import STACK, change
from serveconf.spec.load import load_mapping
from serveconf.spec.models import HttpOptions, as_wire


@dataclass(frozen=True)
class Deployed:
    """What a deployment of the stack serves; this process need not have it."""

    import_path: str
    package: dict[str, Any] = field(repr=False)  # admin.models.PackageModel


def deploy(client: Client, deployment: Deployment) -> dict[str, Any]:
    """Add it to the stack or replace it there; returns the result. Raises CodeFailed, AuthorError, Conflict."""
    target = deployment.func_or_class
    if isinstance(target, Deployed):
        if target.package["masked"]:
            raise AuthorError(
                f"deployment {deployment.name} was applied with values from variables, which are not known here",
                hint="change its file and apply that",
            )
        spec = _spec(deployment, target.import_path, dict(deployment.given))
        package = {key: target.package[key] for key in ("code", "files", "app_dir")}
    else:
        parcel = Parcel()
        spec = _packed(deployment, parcel)
        snapshot = parcel.upload(client)
        app_dir = str(parcel.app_dir) if parcel.app_dir else None
        package = {"code": snapshot.digest, "files": dict(snapshot.files), "app_dir": app_dir}
    return change("apply", {"spec": {"name": STACK, "deployments": [spec]}, "merge": True, **package})


def deployments_of(client: Client) -> dict[str, Deployment]:
    """The deployments of the stack, by name."""
    stacks = client.status()["stacks"]
    number = next((stack["revision"] for stack in stacks if stack["name"] == STACK), None)
    if number is None:
        return {}
    revision = client.revision(STACK, number)
    packages = revision["packages"]
    return {spec["name"]: _known(spec, packages[spec["name"]]) for spec in revision["spec"].get("deployments", ())}


def _known(spec: dict[str, Any], package: dict[str, Any]) -> Deployment:
    given = {key: value for key, value in spec.items() if key not in ("name", "import_path")}
    target = Deployed(spec["import_path"], package)
    return Deployment(func_or_class=target, name=spec["name"], given=MappingProxyType(given))


def _packed(deployment: Deployment, parcel: Parcel) -> dict[str, Any]:
    """Its spec, with all that it needs put into ``parcel``."""
    given = dict(deployment.given)
    arguments = given.pop("init_args", []), given.pop("init_kwargs", {})
    import_path, said = parcel.add(deployment.name, deployment.func_or_class, arguments)
    given |= {f"init_{key}": value for key, value in said.items() if value}
    if "middlewares" in given:
        given["middlewares"] = middlewares_spec(given["middlewares"], f"{deployment.name}.middlewares", parcel)
    return _spec(deployment, import_path, given)


def _spec(deployment: Deployment, import_path: str, given: dict[str, Any]) -> dict[str, Any]:
    plain = replace(deployment, given=MappingProxyType(given))
    try:
        return plain.spec(import_path).model_dump(mode="json", exclude_unset=True)
    except PydanticSerializationError as error:
        raise AuthorError(
            f"deployment {deployment.name}: its options cannot be written as JSON: {error}",
            hint="init_args, init_kwargs and the arguments of middlewares may be any objects; the rest is plain data",
        ) from error


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
