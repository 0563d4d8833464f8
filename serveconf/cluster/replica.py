"""One replica: the user's object, built from its code package, served behind ASGI frames on a loop of its own.

A plain class; ``actors`` puts Ray on it. It starts by itself when it is made, so that a controller that comes back
finds it starting, ready or failed and need only ask.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from serveconf.cluster.logs import get_logger
from serveconf.cluster.loopthread import LoopThread
from serveconf.cluster.settings import ClusterSettings, node_folder
from serveconf.cluster.shown import with_own_paths
from serveconf.errors import CodeFailed, ServeconfError
from serveconf.handles.answering import Answering
from serveconf.handles.calls import Target
from serveconf.handles.following import Following
from serveconf.handles.handle import DeploymentHandle, install_caller
from serveconf.ingress.app import ServedApp, build
from serveconf.ingress.health import probe_path
from serveconf.ingress.importing import import_target
from serveconf.plan.state import ReplicaPhase, ReplicaState
from serveconf.proxy.pool import ReplicaPool
from serveconf.reconcile.packages import Packages
from serveconf.reconcile.ports import ReplicaOrder, Store
from serveconf.runtime import context
from serveconf.runtime.log_lines import set_up_logging
from serveconf.wire import WireServer

log = get_logger("replica")


class Replica:
    """Import, construct, start up, listen; then answer until it is drained."""

    def __init__(
        self, order: ReplicaOrder, settings: ClusterSettings, store: Store, *, node_id: str, node_ip: str
    ) -> None:
        self._order = order
        self._settings = settings
        self._node_ip = node_ip
        folder = node_folder(settings.cluster_id)
        self._store = store
        self._following: Following | None = None
        self._packages = Packages(store, folder / "code")
        self._uds = str(folder / f"{hashlib.sha256(order.id.encode()).hexdigest()[:16]}.sock")
        self._served: ServedApp | None = None
        self._server: WireServer | None = None
        self._tcp: str | None = None
        self._ready = asyncio.Event()
        self._state = ReplicaState(
            id=order.id,
            stack=order.stack,
            deployment=order.deployment.name,
            version=order.deployment.version,
            phase=ReplicaPhase.STARTING,
            config_hash=order.deployment.config_hash,
            node_id=node_id,
            pid=os.getpid(),
            uds=self._uds,
        )
        self._thread = LoopThread("app")
        self._thread.start(self._start())

    def describe(self) -> ReplicaState:
        """What it is now."""
        return replace(self._state, ongoing=self._server.ongoing if self._server else 0, tcp=self._tcp)

    async def wait_ready(self) -> ReplicaState:
        """Return when it is ready or has failed; the message of a failed one is one line and then the user's traceback."""
        await self._thread.run(self._wait_ready())
        return self.describe()

    async def check(self) -> str:
        """Ask the served object for its health: empty where it is well, else what is wrong."""
        return await self._thread.run(self._check())

    async def reconfigure(self, user_config: Any, config_hash: str) -> tuple[str, str] | None:
        """Hand a new user_config over. None where it was taken, else (message, traceback); the old one then holds."""
        return await self._thread.run(self._reconfigure(user_config, config_hash))

    async def listen_tcp(self) -> str:
        """Be reachable from other nodes too; returns host:port."""
        return await self._thread.run(self._listen_tcp())

    async def drain(self, timeout_s: float) -> bool:
        """Finish what was begun, then shut the app down. False where something had to be cut."""
        return await self._thread.run(self._drain(timeout_s))

    # everything below runs on the app's loop

    async def _start(self) -> None:
        try:
            await self._build()
        except ServeconfError as error:
            self._fail(error.message, getattr(error, "traceback", ""))
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, SystemExit too; the controller must hear of it
            self._fail(f"{type(error).__name__}: {error}", traceback.format_exc())
        self._ready.set()

    async def _build(self) -> None:
        deployment, spec = self._order.deployment, self._order.deployment.spec
        code = await self._packages.folder(deployment.code) if deployment.code else None
        _enter(deployment.app_dir, code)
        names = {"stack": self._order.stack, "deployment": deployment.name, "replica": self._order.id}
        set_up_logging(spec.get("logging"), **names)
        self._following = Following(
            ReplicaPool(node_id=self._state.node_id, secret=self._settings.secret),
            lambda: self._store.get("generation"),
        )
        install_caller(self._following.caller)
        target = import_target(spec["import_path"], code)
        self._served = build(
            target,
            factory=spec["factory"],
            init_args=spec["init_args"],
            init_kwargs=spec["init_kwargs"],
            user_config=spec["user_config"],
            bound=deployment.bound,
            handle=self._handle,
        )
        await self._served.startup()
        served = self._served
        context.enter_replica(
            context.Replica(
                context=context.ReplicaContext(
                    app_name=deployment.entry,
                    deployment=deployment.bound or deployment.name,
                    replica_tag=self._order.id,
                    servable_object=served.servable,
                    stack=self._order.stack,
                ),
                max_ongoing=spec["max_ongoing_requests"],
                ongoing=lambda: self._server.ongoing if self._server else 0,
            )
        )
        self._server = WireServer(
            Answering(served.app, lambda: served.servable, self._following.directory.holding),
            secret=self._settings.secret,
            max_ongoing=spec["max_ongoing_requests"],
            state=self._served.state,
            offers_files=served.passes_files,
        )
        await self._server.listen_unix(self._uds)
        self._state = replace(self._state, phase=ReplicaPhase.READY)
        log.info("replica ready", replica=self._order.id, deployment=deployment.name)

    def _handle(self, node: str) -> DeploymentHandle[Any]:
        """What a constructor gets for another deployment of its application."""
        deployment = self._order.deployment
        target = Target(stack=self._order.stack, deployment=f"{deployment.entry}.{node}")
        return DeploymentHandle(target, deployment_name=node, app_name=deployment.entry)

    def _fail(self, message: str, trace: str) -> None:
        log.error("replica failed", replica=self._order.id, reason=message)
        code = self._packages.path(self._order.deployment.code) if self._order.deployment.code else None
        message, trace = (with_own_paths(text, code, self._order.deployment.app_dir) for text in (message, trace))
        if trace:
            print(trace, file=sys.stderr, flush=True)
        self._state = replace(self._state, phase=ReplicaPhase.FAILED, message=f"{message}\n{trace}".rstrip())

    async def _wait_ready(self) -> None:
        await self._ready.wait()

    async def _check(self) -> str:
        if self._served is None:
            return ""
        spec = self._order.deployment.spec
        try:
            async with asyncio.timeout(spec["health_check_timeout_s"]):
                if spec["health_check_path"] is not None:
                    return await probe_path(
                        self._served.app, spec["health_check_path"], self._order.deployment.prefix, self._served.state
                    )
                await self._served.check_health()
        except TimeoutError:
            return f"no answer to the health check within {spec['health_check_timeout_s']:g} s"
        except Exception as error:  # noqa: BLE001 - whatever the user's check raises means unhealthy
            return f"{type(error).__name__}: {error}"
        return ""

    async def _reconfigure(self, user_config: Any, config_hash: str) -> tuple[str, str] | None:
        assert self._served is not None
        try:
            await self._served.reconfigure(user_config)
        except CodeFailed as error:
            return error.message, error.traceback
        except ServeconfError as error:
            return error.message, ""
        self._state = replace(self._state, config_hash=config_hash)
        return None

    async def _listen_tcp(self) -> str:
        assert self._server is not None
        if self._tcp is None:
            host, port = await self._server.listen_tcp(self._node_ip)
            self._tcp = f"{host}:{port}"
        return self._tcp

    async def _drain(self, timeout_s: float) -> bool:
        self._state = replace(self._state, phase=ReplicaPhase.DRAINING)
        clean = True
        if self._server is not None:
            clean = await self._server.drain(timeout_s)
            await self._server.close()
        if self._served is not None:
            await self._served.shutdown()
        if self._following is not None:
            await self._following.close()
        Path(self._uds).unlink(missing_ok=True)
        return clean


def _enter(app_dir: str | None, code: Path | None) -> None:
    """Stand where the app expects to: in app_dir where this node has it, else in the package; with no arguments of Ray's."""
    place = app_dir if app_dir and Path(app_dir).is_dir() else code
    if place is not None:
        os.chdir(place)
    sys.argv = ["serveconf"]
