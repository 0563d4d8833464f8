"""The Python API: deploy classes, functions and apps from a script, a notebook or a module.

``from serveconf import serve``, then ``@serve.deployment``, ``@serve.ingress(app)``, ``.deploy()``. Everything goes through
the control API, into the stack ``default``; each call changes what it names and leaves the rest of the stack as it is.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serveconf.client import Client
from serveconf.errors import NotFound
from serveconf.handles.handle import DeploymentHandle, install_default_caller
from serveconf.ingress.class_routes import ingress
from serveconf.ingress.deployment import Application, Deployment, deployment, install_deployer
from serveconf.runtime.batching import batch
from serveconf.runtime.context import ReplicaContext, get_multiplexed_model_id, get_replica_context
from serveconf.runtime.multiplexed import multiplexed
from serveconf.serve import metrics
from serveconf.serve.deploying import deploy, deployments_of, http_options_spec
from serveconf.serve.driver import disconnect, the_caller
from serveconf.serve.parcel import Parcel
from serveconf.serve.running import RunTarget, get_app_handle, get_deployment_handle, run_application
from serveconf.serve.session import STACK, change, finished, session, stop, tell
from serveconf.serve.shown import Status
from serveconf.spec.load import load_file, load_mapping
from serveconf.spec.models import Location
from serveconf.submit import submit

__all__ = [
    "Application",
    "Deployment",
    "ReplicaContext",
    "RunTarget",
    "apply",
    "batch",
    "delete",
    "deployment",
    "get_app_handle",
    "get_deployment",
    "get_deployment_handle",
    "get_multiplexed_model_id",
    "get_replica_context",
    "ingress",
    "list_deployments",
    "metrics",
    "multiplexed",
    "run",
    "run_many",
    "shutdown",
    "start",
    "status",
]


def start(*, detached: bool = False, http_options: Mapping[str, Any] | None = None) -> Client:
    """Connect to serveconf, started where it is not there, and give the HTTP front these options.

    ``detached``: what this process starts and deploys lives on after it; else it goes when the process ends.
    ``http_options``: the keys of the spec; ``middlewares`` may hold ``starlette.middleware.Middleware`` objects,
    ``location`` None means no HTTP server. Keys that are left out stay as they are.
    Raises AuthorError for a wrong option, CodeFailed for a middleware that cannot be built.
    """
    parcel = Parcel()
    said, full = http_options_spec(http_options or {}, parcel)
    wanted = None if full.location is Location.NO_SERVER else (full.host, full.port)
    known = session(wanted)
    known.detached = detached
    spec: dict[str, Any] = {"name": STACK, **({"http_options": said} if said else {})}
    package = parcel.upload(known.client)
    change("apply", {"spec": spec, "merge": True, "code": package.digest, "files": dict(package.files)})
    return known.client


def apply(spec: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Make a spec so, a YAML file or its data, as ``serveconf apply`` does; returns the result.

    Paths in data start at the working directory. Raises SpecInvalid with all problems, CodeFailed, Conflict, ….
    """
    if isinstance(spec, Mapping):
        loaded = load_mapping(spec, base_dir=Path.cwd())
    else:
        loaded = load_file(Path(spec), env=os.environ)
    http = loaded.spec.http_options
    client = session(None if http.location is Location.NO_SERVER else (http.host, http.port)).client
    submission = submit(loaded, client)
    for note in submission.notes:
        tell(f"note: {note}")
    operation = client.begin(submission.stack, "apply", submission.body)
    return finished(client, operation, loaded)


def run(
    app: Application,
    *,
    name: str = STACK,
    route_prefix: str | None = "/",
    blocking: bool = False,
    _local_testing_mode: bool = False,
) -> DeploymentHandle[Any]:
    """Run an application as the stack ``name``, in place of what that had deployed, and give a handle of its ingress.

    ``route_prefix`` None: no HTTP. ``blocking``: return only with a KeyboardInterrupt; the application lives on as
    ``serve.start(detached=)`` says. With ``_local_testing_mode`` all of its deployments are objects in this process,
    without Ray and HTTP: for tests of what they do together. Raises AuthorError, CodeFailed, Conflict.
    """
    if not isinstance(app, Application):
        raise TypeError(f"serve.run takes what Deployment.bind() gives, not {app!r}")
    from serveconf.handles.local import run_locally

    if _local_testing_mode:
        return run_locally(app, name)
    handle = run_application(app, name, route_prefix)
    where = f"at {route_prefix}" if route_prefix is not None else "without a route"
    tell(f"{name} is live {where}")
    if blocking:
        threading.Event().wait()
    return handle


def run_many(targets: Sequence[RunTarget], *, blocking: bool = False) -> list[DeploymentHandle[Any]]:
    """Run several applications, one after the other; a handle of each one's ingress. Raises as ``run``."""
    handles = [run(one.target, name=one.name, route_prefix=one.route_prefix) for one in targets]
    if blocking:
        threading.Event().wait()
    return handles


def status() -> Status:
    """Stacks, deployments, replicas and proxies: what ``serveconf status -o json`` prints, as keys and as attributes."""
    return Status(session().client.status())


def list_deployments() -> dict[str, Deployment]:
    """The deployments of the stack ``default`` by name. Each can be changed with ``.options(...).deploy()``, or deleted."""
    return deployments_of(session().client)


def get_deployment(name: str) -> Deployment:
    """One of ``list_deployments``. Raises NotFound."""
    known = list_deployments()
    if name not in known:
        raise NotFound(f"there is no deployment '{name}'", hint=f"there are: {', '.join(known) or 'none'}")
    return known[name]


def delete(name: str) -> None:
    """Take away, draining, the application of that name, or else the deployment. Raises NotFound."""
    known = session()
    if name in {stack["name"] for stack in known.client.status()["stacks"]}:
        change("delete", {}, name)
        known.applications.discard(name)
        known.deployed.discard(name)
    else:
        _delete_deployment(name)


def _delete_deployment(name: str) -> None:
    change("delete", {"deployments": [name]})
    session().deployed.discard(name)


def shutdown() -> None:
    """Stop replicas, proxies and the controller, and the Ray that serveconf started."""
    disconnect()
    stop()


class _Deployer:
    """Behind ``Deployment.deploy`` and ``.delete``."""

    def deploy(self, deployment: Deployment) -> None:
        began = time.monotonic()
        known = session()
        result = deploy(known.client, deployment)
        known.deployed.add(deployment.name)
        prefix = deployment.route_prefix
        where = f"at {prefix}" if prefix is not None else "without a route"
        how = "is live" if result["changed"] else "is as it was,"
        tell(f"{deployment.name} {how} {where} ({time.monotonic() - began:.1f} s)")

    def delete(self, deployment: Deployment) -> None:
        _delete_deployment(deployment.name)  # whatever application has its name


install_deployer(_Deployer())
install_default_caller(the_caller)
