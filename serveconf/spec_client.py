"""One spec served in the test process, for users' own tests: no Ray, no sockets, the same routing and middlewares.

``with serve_spec("serve.yaml") as client:`` gives Starlette's ``TestClient``: ``client.get("/catalog/items")``,
``client.websocket_connect("/chat")``. What each deployment serves is built as a replica builds it, the routing table, the
middlewares and the prefixes are the proxy's own. Not there: several replicas, queues, time limits, TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from serveconf.errors import CodeFailed
from serveconf.handles.calls import Target
from serveconf.handles.handle import DeploymentHandle
from serveconf.handles.local import LocalCaller
from serveconf.ingress.app import ServedApp, build, call_factory
from serveconf.ingress.deployment import Application, Deployment, deployment_options
from serveconf.ingress.graph import nodes_of
from serveconf.ingress.health import probe_path
from serveconf.ingress.importing import import_target, put_first
from serveconf.plan.desired import make_desired
from serveconf.proxy.app import ProxyApp
from serveconf.proxy.middleware import Imported, MiddlewareImporter
from serveconf.reconcile.front import merge_fronts
from serveconf.reconcile.generation import with_stack
from serveconf.routing import Generation, Middleware, Route
from serveconf.runtime import context
from serveconf.spec.load import Loaded, load_file, load_mapping
from serveconf.spec.models import DeploymentSpec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it asks for another HTTP library than the one this project depends on
    from starlette.testclient import TestClient

__all__ = ["SpecClient", "serve_spec"]


class SpecClient(TestClient):
    """A client of a served spec. ``served``: by name, the instance of each class, or the function."""

    def __init__(self, app: SpecApp, **options: Any) -> None:
        super().__init__(app, **options)
        self._spec_app = app

    @property
    def served(self) -> dict[str, object]:
        """What answers, by the deployment's name: ``ENTRY.NAME`` inside of a bound application."""
        return {name: served.servable for name, served in self._spec_app.served.items()}

    def reconfigure(self, deployment: str, user_config: Any) -> None:
        """Hand a new user_config over, as a change of the spec would."""
        assert self.portal is not None, "only inside of the with block"
        self.portal.call(self._spec_app.served[deployment].reconfigure, user_config)


@contextlib.contextmanager
def serve_spec(
    spec: str | os.PathLike[str] | Mapping[str, Any],
    *,
    env: Mapping[str, str] | None = None,
    env_files: Sequence[str | os.PathLike[str]] = (),
    raise_server_exceptions: bool = True,
) -> Iterator[SpecClient]:
    """Serve a spec file (or its data, with import paths from the working directory) for the time of a ``with`` block.

    ``env``: variables for ``${NAME}`` and for the code, over those of the process. Meanwhile the working directory is
    app_dir, and env_vars of the runtime environments are set; afterwards modules that the code brought are forgotten.
    ``raise_server_exceptions=False``: what an app raises is answered with 500, as it is when served.
    Raises SpecInvalid, AuthorError and CodeFailed as an apply would tell of them.
    """
    variables = {**os.environ, **(env or {})}
    if isinstance(spec, Mapping):
        loaded = load_mapping(spec, base_dir=Path.cwd())
    else:
        loaded = load_file(Path(spec), env=variables, env_files=[Path(file) for file in env_files])
    with (
        _as_in_a_replica(loaded, {**(env or {})}),
        SpecClient(SpecApp(loaded), raise_server_exceptions=raise_server_exceptions) as client,
    ):
        yield client


@contextlib.contextmanager
def _as_in_a_replica(loaded: Loaded, env: dict[str, str]) -> Iterator[None]:
    """Environment, working directory and sys.path as replicas have them; afterwards as they were."""
    for deployment in loaded.spec.deployments:
        env |= deployment.ray_actor_options.runtime_env.get("env_vars") or {}
    before = {name: os.environ.get(name) for name in env}
    path, modules = list(sys.path), set(sys.modules)
    os.environ.update(env)
    try:
        with contextlib.chdir(loaded.app_dir):
            put_first(loaded.app_dir)
            yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if _is_below(getattr(sys.modules[name], "__file__", None), loaded.app_dir):
                del sys.modules[name]
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def _is_below(file: str | None, folder: Path) -> bool:
    return file is not None and "site-packages" not in file and Path(file).is_relative_to(folder)


class SpecApp:
    """A spec as one ASGI app, with its start and end as lifespan."""

    def __init__(self, loaded: Loaded) -> None:
        self.served: dict[str, ServedApp] = {}
        self._loaded = loaded
        self._rooms: dict[str, context.Replica] = {}
        self._proxy = ProxyApp(pool=_NoPool(), backend_factory=self._backend, import_middleware=_import_middleware)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lifespan here, everything else through the routing table."""
        if scope["type"] != "lifespan":
            await self._proxy(scope, receive, send)
            return
        await receive()
        try:
            await self._start()
            await send({"type": "lifespan.startup.complete"})
            await receive()
        finally:
            for served in reversed(self.served.values()):
                await served.shutdown()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> None:
        spec = self._loaded.spec
        deployments = [await self._start_deployment(deployment) for deployment in spec.deployments]
        desired = make_desired(
            spec.model_copy(update={"deployments": deployments}), revision=1, code="", files_for=lambda name: {}
        )
        generation = with_stack(Generation(number=1), merge_fronts([desired]), [desired], desired.name, {})
        await self._proxy.stage(generation)
        self._proxy.commit(1)

    async def _start_deployment(self, spec: DeploymentSpec) -> DeploymentSpec:
        """Start it and what it is bound to; its options with those that the code brings."""
        target = import_target(spec.import_path, self._loaded.app_dir)
        options = deployment_options(target)
        said = spec.model_dump(mode="json", exclude_unset=True)
        spec = DeploymentSpec.model_validate_json(msgspec.json.encode({**options, **said}))
        init_args, init_kwargs = spec.init_args, spec.init_kwargs
        if spec.factory:
            target, init_args, init_kwargs = call_factory(target, init_args, init_kwargs), [], {}
        if isinstance(target, Deployment) and spec.factory:
            init_args, init_kwargs = target.spec().init_args, target.spec().init_kwargs
        inner: dict[str, ServedApp] = {}
        stack = self._loaded.spec.name
        caller = LocalCaller(inner, asyncio.get_running_loop(), app_name=spec.name, stack=stack)

        def handle(node: str) -> DeploymentHandle[Any]:
            return DeploymentHandle(Target(stack=stack, deployment=node), app_name=spec.name, caller=caller)

        if isinstance(target, Application):
            for node in nodes_of(target)[:-1]:
                own = node.deployment.spec()
                context.enter_room(caller.room(node.name))
                inner[node.name] = await self._started(
                    f"{spec.name}.{node.name}",
                    build(target, bound=node.name, handle=handle, user_config=own.user_config),
                )
        entry = nodes_of(target)[-1].name if isinstance(target, Application) else spec.name
        room = self._rooms[spec.name] = caller.room(entry)
        context.enter_room(room)
        served = build(
            target,
            init_args=init_args,
            init_kwargs=init_kwargs,
            user_config=spec.user_config,
            handle=handle,
            routed=spec.prefix is not None,
        )
        await self._started(spec.name, served)
        room.context = replace(room.context, servable_object=served.servable)
        await _check_health(spec, served)
        return spec

    async def _started(self, name: str, served: ServedApp) -> ServedApp:
        self.served[name] = served
        await served.startup()
        return served

    def _backend(self, route: Route) -> ASGIApp:
        served = self.served[route.deployment]

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] in ("http", "websocket"):
                context.request.set(context.Request(list(scope["headers"])))  # whose model id the code may ask for
                context.enter_room(self._rooms[route.deployment])
            await served.app({**scope, "state": dict(served.state)}, receive, send)

        return serve


async def _check_health(spec: DeploymentSpec, served: ServedApp) -> None:
    """The first health check, which a replica must pass before it is sent requests."""
    if spec.health_check_path is not None:
        if wrong := await probe_path(served.app, spec.health_check_path, spec.prefix, served.state):
            raise CodeFailed(f"deployment '{spec.name}': {wrong}", hint="see health_check_path")
    else:
        await served.check_health()


class _NoPool:
    """There are no connections to replicas."""

    async def open(self, addresses: Any, /) -> None:
        """Nothing to connect to."""

    async def open_behind(self, addresses: Any, /) -> None:
        """Nothing to connect to."""

    def release(self, ids: Any, /) -> None:
        """Nothing to let go."""

    def lead(self, leaders: Any, former: Any = ..., generation: int = ..., /) -> None:
        """Nobody waits."""


def _import_middleware(middleware: Middleware) -> Imported:
    """Middlewares are imported as everything else is: by the test process itself, from app_dir."""
    return MiddlewareImporter(lambda digest: "")(msgspec.structs.replace(middleware, code=None))
