"""``serve.run``: a bound application as the one entry of the stack that has its name; and handles found by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serveconf.errors import NotFound
from serveconf.handles.calls import Target
from serveconf.handles.handle import DeploymentHandle
from serveconf.ingress.deployment import Application
from serveconf.ingress.graph import nodes_of
from serveconf.runtime import context
from serveconf.serve.driver import refresh
from serveconf.serve.parcel import Parcel
from serveconf.serve.session import STACK, change, session


@dataclass(frozen=True, kw_only=True)
class RunTarget:
    """One application of ``run_many``."""

    target: Application
    name: str = STACK
    route_prefix: str | None = "/"


def run_application(app: Application, name: str, route_prefix: str | None) -> DeploymentHandle[Any]:
    """Make it the stack ``name``: what else was deployed there goes. Its http_options stay."""
    ingress = nodes_of(app)[-1].name
    parcel = Parcel()
    entry = {"name": ingress, "import_path": parcel.add_application(ingress, app), "route_prefix": route_prefix}
    known = session()
    package = parcel.upload(known.client)
    body = {
        "spec": {"name": name, "deployments": [entry]},
        "merge": True,
        "alone": True,
        "code": package.digest,
        "files": dict(package.files),
        "app_dir": str(parcel.app_dir) if parcel.app_dir else None,
    }
    change("apply", body, name)
    known.applications.add(name)
    refresh()
    return _handle(name, ingress, ingress)


def get_app_handle(name: str) -> DeploymentHandle[Any]:
    """A handle of an application's ingress: of what ``serve.run`` made under that name, or of an entry of a spec.

    Raises NotFound; in a replica its calls raise DeploymentUnavailableError instead.
    """
    if context.the_replica() is not None:  # its table tells, when it calls
        return DeploymentHandle(Target(stack=name, deployment=""), deployment_name=name, app_name=name)
    stack, entry = _application(name)
    return _handle(stack, entry, entry)


def get_deployment_handle(deployment_name: str, app_name: str | None = None) -> DeploymentHandle[Any]:
    """A handle of one deployment of an application. Raises NotFound.

    Without ``app_name`` it is the replica's own application, in a script the one that ``serve.run`` calls ``default``.
    """
    replica = context.the_replica()
    if replica is not None:
        entry = app_name or replica.context.app_name
        full = deployment_name if deployment_name == entry else f"{entry}.{deployment_name}"
        return _handle(replica.context.stack, full, deployment_name)
    app_name = app_name or STACK
    stack, entry = _application(app_name)
    names = _deployments().get(stack, ())
    for full in (f"{entry}.{deployment_name}", deployment_name):
        if full in names:
            return _handle(stack, full, deployment_name)
    raise NotFound(
        f"application '{app_name}' has no deployment '{deployment_name}'", hint=f"it has: {', '.join(sorted(names))}"
    )


def _application(name: str) -> tuple[str, str]:
    """The stack and the entry that an application's name means."""
    known = _deployments()
    entries = [one for one in known.get(name, ()) if "." not in one]
    if len(entries) == 1:
        return name, entries[0]
    found = [(stack, name) for stack, names in known.items() if name in names]
    if len(found) == 1:
        return found[0]
    what = ", ".join(sorted(known)) or "none"
    raise NotFound(f"there is no application '{name}', or it is not the only one of that name", hint=f"stacks: {what}")


def _deployments() -> dict[str, list[str]]:
    stacks = session().client.status()["stacks"]
    return {stack["name"]: [one["name"] for one in stack["deployments"]] for stack in stacks}


def _handle(stack: str, deployment: str, name: str) -> DeploymentHandle[Any]:
    return DeploymentHandle(Target(stack=stack, deployment=deployment), deployment_name=name, app_name=stack)
