"""One replica: the user's object, built from its code package, served behind ASGI frames on a loop of its own.

A plain class that is hosted: everything runs on its loop. It starts by itself, so that a controller that comes back finds
it starting, ready or failed and need only ask.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace
from starlette.types import ASGIApp, Receive, Scope, Send

from serveconf import __version__
from serveconf.cluster.engine import Surroundings
from serveconf.cluster.gcs import Patient
from serveconf.cluster.ground import Ground, enter
from serveconf.cluster.logs import get_logger
from serveconf.cluster.settings import ClusterSettings, node_folder
from serveconf.code.versions import edition_of
from serveconf.disk import DiskFull, is_full
from serveconf.errors import CodeFailed, OperatorError, ServeconfError
from serveconf.figures import LoadReport, ReplicaFigures, use_of_this_process
from serveconf.handles.answering import Answering
from serveconf.handles.calls import Target
from serveconf.handles.following import Following
from serveconf.handles.handle import DeploymentHandle
from serveconf.handles.traced import Tracing
from serveconf.ingress.app import ServedApp, build
from serveconf.ingress.failures import with_own_paths
from serveconf.ingress.health import probe_path
from serveconf.ingress.importing import import_target
from serveconf.own_metrics import own_families
from serveconf.plan.hiding import hide, secrets_of_deployment
from serveconf.plan.moving import named
from serveconf.plan.state import Phase, ReplicaState
from serveconf.proxy.pool import ReplicaPool
from serveconf.reconcile.packages import Packages
from serveconf.reconcile.ports import ReplicaOrder
from serveconf.routing import decode
from serveconf.runtime import context, multiplexed
from serveconf.tracing import Outlet
from serveconf.versions import is_older
from serveconf.wire import HeldModels, WireServer
from serveconf.wire.node_tls import TLS, node_tls

log = get_logger("replica")

FIRST_CHECKS_S = 0.25  # between two of them while it starts
LAST_SPANS_S = 1.0  # that may be waiting for a collector when it ends


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What a replica that is not alone in its process takes from there."""

    ground: Callable[[], Awaitable[Ground]]
    pool: ReplicaPool
    secrets: Mapping[str, str]  # of all of them
    speaks: bool  # it tells what can be told but once: what the process uses, and has counted


class Replica:
    """Import, construct, start up, listen; then answer until it is drained."""

    def __init__(
        self, order: ReplicaOrder, settings: ClusterSettings, surroundings: Surroundings, shared: Shared | None = None
    ) -> None:
        self._shared = shared
        self._secrets = shared.secrets if shared else secrets_of_deployment(order.deployment)
        self._order = order
        self._settings = settings
        self._node_ip = surroundings.node_ip
        folder = node_folder(settings.cluster_id)
        self._store = surroundings.store
        self._following: Following | None = None
        self._tls = node_tls(os.environ)
        self._pool = (  # of those that it calls
            shared.pool if shared else ReplicaPool(node_id=surroundings.node_id, secret=settings.secret, tls=self._tls)
        )
        self._packages = Packages(Patient(self._store), folder / "code")
        self._uds = str(folder / f"{hashlib.sha256(order.id.encode()).hexdigest()[:16]}.sock")
        self._served: ServedApp | None = None
        self._server: WireServer | None = None
        self._tcp: str | None = None
        self._ready = asyncio.Event()
        self._draining: asyncio.Task[bool] | None = None
        self._may_return = False  # its drain only waits yet
        self._spans = Outlet(
            {
                "service.name": order.deployment.name,
                "service.namespace": order.stack,
                "service.version": order.deployment.version,
                "service.instance.id": order.id,
                "host.name": socket.gethostname(),
            }
        )
        self.room = context.Replica(
            context=self._context(None),
            max_ongoing=order.deployment.spec["max_ongoing_requests"],
            ongoing=lambda: self._server.ongoing if self._server else 0,
            name=order.deployment.name,
        )
        self._state = ReplicaState(
            id=order.id,
            stack=order.stack,
            deployment=order.deployment.name,
            version=order.deployment.version,
            phase=Phase.STARTING,
            config_hash=order.deployment.config_hash,
            node_id=surroundings.node_id,
            bundle_nodes=surroundings.bundle_nodes,
            pid=os.getpid(),
            uds=self._uds,
            started=time.time(),
            host=socket.gethostname(),
            was_standby=surroundings.was_standby,
            serveconf=__version__,
        )

    async def run(self) -> None:
        """Start; what becomes of it is in the state."""
        try:
            self._check_edition()
            await self._build()
        except DiskFull as error:
            self._fail(f"{error.message}: {error.hint}", "", code=error.code)
        except ServeconfError as error:
            self._fail(error.message, getattr(error, "traceback", ""))
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, SystemExit too; the controller must hear of it
            code = DiskFull.code if is_full(error) else ""
            self._fail(f"{type(error).__name__}: {error}", traceback.format_exc(), code=code)
        self._ready.set()

    def _check_edition(self) -> None:
        """An upgrade is no success where the node still has the old version installed. Raises OperatorError."""
        wanted = edition_of(self._order.deployment.version)
        if wanted and is_older(__version__, wanted):
            host = socket.gethostname()
            raise OperatorError(
                f"serveconf {__version__} is installed on node {host}, and this replica is to run {wanted}: "
                f"pip install 'serveconf=={wanted}' there",
                code="not_installed",
            )

    async def describe(self) -> ReplicaState:
        """What it is now."""
        state = self._state
        waits_for = self._following.directory.waits_for if self._following is not None else ""
        if waits_for and state.phase is Phase.STARTING:
            state = replace(state, message=f"it calls deployment '{waits_for}', which is not ready")
        return replace(state, ongoing=self._server.ongoing if self._server else 0, tcp=self._tcp)

    async def figures(self) -> bytes:
        """What was counted here: ``ReplicaFigures`` as msgpack, as they go on changing."""
        if self._shared and not self._shared.speaks:
            return msgspec.msgpack.encode(ReplicaFigures())
        calls = self._following.durations if self._following is not None else {}
        figures = ReplicaFigures(calls=calls, families=list(own_families()), process=use_of_this_process())
        return msgspec.msgpack.encode(figures)

    async def wait_ready(self) -> ReplicaState:
        """Return when it is ready or has failed; the message of a failed one is one line and then the user's traceback."""
        await self._ready.wait()
        return await self.describe()

    async def drain(self, timeout_s: float) -> bool:
        """Finish what was begun, then shut the app down. False where something had to be cut. Who asks again waits too."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(timeout_s))
        draining = self._draining
        await asyncio.wait([draining])
        return not draining.cancelled() and draining.result()

    async def take_back(self) -> bool:
        """Serve on, where a drain has cut nothing and closed nothing yet. False where it has come too far."""
        if self._draining is None:
            return self._state.phase is Phase.READY
        if not self._may_return or self._server is None or self._server.closing:
            return False
        self._draining.cancel()
        await asyncio.wait([self._draining])
        self._draining = None
        self._state = replace(self._state, phase=Phase.READY)
        return True

    async def rename(self, name: str) -> None:
        """Its deployment has another name from now on. What was handed out under the old one leads there still."""
        before = self._order.deployment
        self._order = replace(self._order, deployment=named(before, name))
        self._state = replace(self._state, deployment=name)
        self.room.name = name
        self.room.context = self._context(self.room.context.servable_object)
        if self._following is not None:
            self._following.directory.rename_application(self._order.stack, before.entry, self._order.deployment.entry)

    async def stage(self, data: bytes) -> None:
        """Have a table for its calls by handle beside the one that they go by, connected to whom it calls."""
        if self._following is not None:
            await self._following.directory.stage(decode(data))

    async def commit(self, number: int) -> None:
        """Call by the staged table from now on; requests that began with another one end with that."""
        if self._following is not None:
            self._following.directory.commit(number)

    async def abort(self, number: int) -> None:
        """Forget the staged table."""
        if self._following is not None:
            self._following.directory.abort(number)

    async def load_report(self, seen: int, slower: float) -> LoadReport:
        """What its calls ask of other deployments, when there is something new since report ``seen``."""
        return await self._pool.reporter.report(seen, slower=slower)

    async def _build(self) -> None:
        if self._shared:
            ground = await self._shared.ground()
        else:
            names = log_names(self.room)
            ground = await enter(
                self._order, self._store, self._packages, self._pool, lambda: names, process=self._order.id
            )
        self._following = ground.following
        with ground.following.directory.starting():
            await self._start_up(ground)

    async def _start_up(self, ground: Ground) -> None:
        deployment, spec = self._order.deployment, self._order.deployment.spec
        models = self.room.models = HeldModels()
        target = import_target(spec["import_path"], ground.code)
        self._enter_context(None)
        self._served = build(
            target,
            factory=spec["factory"],
            init_args=spec["init_args"],
            init_kwargs=spec["init_kwargs"],
            user_config=spec["user_config"],
            bound=deployment.bound,
            handle=self._handle,
            routed=spec["route_prefix"] is not None,
        )
        await self._served.startup()
        await ground.following.joined()
        served = self._served
        self._enter_context(served.servable)
        answering = Answering(
            served.app,
            lambda: served.servable,
            ground.following.directory.holding,
            Tracing(lambda: served.app.app, self._spans, name=deployment.name),
        )
        self._server = WireServer(
            InRoom(answering, self.room) if self._shared else answering,
            secret=self._settings.secret,
            max_ongoing=spec["max_ongoing_requests"],
            state=self._served.state,
            offers_files=served.passes_files,
            models=models,
        )
        if multiplexed.is_used():
            models.begin()
        await self._server.listen_unix(self._uds)
        await self._pass_first_check(spec)
        self._state = replace(self._state, phase=Phase.READY, message="", start_cpu_s=time.process_time())
        log.info("replica ready", replica=self._order.id, deployment=deployment.name)

    def _enter_context(self, servable: object | None) -> None:
        """Constructors may ask who they are, and for handles."""
        self.room.context = self._context(servable)
        if not self._shared:
            context.enter_replica(self.room)

    async def _pass_first_check(self, spec: Mapping[str, Any]) -> None:
        """It is not ready before its health check has passed once; the controller says when that takes too long."""
        while wrong := await self.check(spec["health_check_path"], spec["health_check_timeout_s"]):
            self._state = replace(self._state, message=f"its health check fails: {wrong}")
            await asyncio.sleep(FIRST_CHECKS_S)

    def _context(self, servable: object | None) -> context.ReplicaContext:
        deployment = self._order.deployment
        return context.ReplicaContext(
            app_name=deployment.entry,
            deployment=deployment.bound or deployment.name,
            replica_tag=self._order.id,
            servable_object=servable,
            stack=self._order.stack,
        )

    def _handle(self, node: str) -> DeploymentHandle[Any]:
        """What a constructor gets for another deployment of its application."""
        if self._following is not None:
            self._following.begin()
        deployment = self._order.deployment
        target = Target(stack=self._order.stack, deployment=f"{deployment.entry}.{node}")
        return DeploymentHandle(target, deployment_name=node, app_name=deployment.entry)

    def _hide(self, text: str) -> str:
        """Text of the user's code, without the values from variables that it was given."""
        return hide(text, self._secrets)

    def _fail(self, message: str, trace: str, *, code: str = "") -> None:
        message, trace = self._hide(message), self._hide(trace)
        log.error("replica failed", replica=self._order.id, reason=message)
        package = self._packages.path(self._order.deployment.code) if self._order.deployment.code else None
        message, trace = (with_own_paths(text, package, self._order.deployment.app_dir) for text in (message, trace))
        self._state = replace(self._state, phase=Phase.FAILED, message=f"{message}\n{trace}".rstrip(), code=code)
        if trace:
            with suppress(OSError):  # a disk that is full, say: the state has it too
                print(trace, file=sys.stderr, flush=True)

    async def check(self, path: str | None, timeout_s: float) -> str:
        """Ask the served object for its health: empty where it is well, else what is wrong."""
        served = self._served
        if served is None:
            return ""
        try:
            async with asyncio.timeout(timeout_s):
                if path is not None:
                    return await probe_path(served.app, path, self._order.deployment.prefix, served.state)
                await served.check_health()
        except TimeoutError:
            return f"no answer to the health check within {timeout_s:g} s"
        except Exception as error:  # noqa: BLE001 - whatever the user's check raises means unhealthy
            return self._hide(f"{type(error).__name__}: {error}")
        return ""

    async def reconfigure(self, user_config: Any, config_hash: str) -> tuple[str, str] | None:
        """Hand a new user_config over. None where it was taken, else (message, traceback); the old one then holds."""
        assert self._served is not None
        try:
            await self._served.reconfigure(user_config)
        except CodeFailed as error:
            return self._hide(error.message), self._hide(error.traceback)
        except ServeconfError as error:
            return self._hide(error.message), ""
        self._state = replace(self._state, config_hash=config_hash)
        return None

    async def listen_tcp(self) -> str:
        """Be reachable from other nodes too; returns host:port."""
        assert self._server is not None
        if self._tcp is None:
            host, port = await self._server.listen_tcp(self._node_ip, tls=self._tls)
            self._tcp = f"{TLS if self._tls is not None else ''}{host}:{port}"
        return self._tcp

    async def _drain(self, timeout_s: float) -> bool:
        self._may_return = self._state.phase is Phase.READY
        self._state = replace(self._state, phase=Phase.DRAINING)
        clean = True
        if self._server is not None:
            clean = await self._server.drain(timeout_s)
            self._may_return = False
            await self._server.close()
        if self._served is not None:
            await self._served.shutdown()
        if self._following is not None and not self._shared:
            await self._following.close()
        await asyncio.to_thread(self._spans.close, LAST_SPANS_S)
        Path(self._uds).unlink(missing_ok=True)
        return clean


class InRoom:
    """The ASGI application of a replica that is not alone in its process: what runs for a request knows whose it is."""

    def __init__(self, app: ASGIApp, room: context.Replica) -> None:
        self._app = app
        self._room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context.enter_room(self._room)
        await self._app(scope, receive, send)


def log_names(room: context.Replica) -> dict[str, str]:
    """What a structured log line says of who has written it."""
    return {"stack": room.context.stack, "deployment": room.name, "replica": room.context.replica_tag}
