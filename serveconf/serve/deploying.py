"""A ``Deployment`` object as a request that adds it to the stack, and what the stack has as ``Deployment`` objects."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from pydantic_core import PydanticSerializationError

from serveconf.client import Client
from serveconf.errors import AuthorError
from serveconf.ingress.deployment import Deployment
from serveconf.serve.front import middlewares_spec
from serveconf.serve.parcel import Parcel
from serveconf.serve.session import STACK, change


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
