"""The controller: store, cluster, reconciler and control API put together on one loop.

A plain class; ``start_controller`` puts Ray on it. It starts by itself when it is made, and after a crash finds
everything again: the ledger in the store, the actors by their names.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import Callable
from typing import Any, cast

import msgspec
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from serveconf.admin.app import make_app
from serveconf.admin.server import AdminServer
from serveconf.cluster.actors import kill
from serveconf.cluster.kv import RayStore
from serveconf.cluster.logs import get_logger
from serveconf.cluster.loopthread import LoopThread
from serveconf.cluster.preflight import RayPreflight
from serveconf.cluster.process import set_up_process
from serveconf.cluster.ray_cluster import RayCluster
from serveconf.cluster.settings import (
    CONTROLLER,
    HEAD_RESOURCE,
    NAMESPACE,
    ClusterSettings,
    ControllerAddress,
    ControllerSettings,
    node_folder,
)
from serveconf.errors import OperatorError, ServeconfError
from serveconf.reconcile.apply import Deps
from serveconf.reconcile.control import ControlPlane
from serveconf.reconcile.events import EventLog
from serveconf.reconcile.journal import Journal
from serveconf.reconcile.kept_figures import KeptFigures
from serveconf.reconcile.loop import Reconciler
from serveconf.reconcile.packages import Packages
from serveconf.reconcile.pulse import Pulse
from serveconf.reconcile.records import Ledger
from serveconf.reconcile.stacks import Stacks

log = get_logger("controller")

LAST_WORD_S = 0.2  # for the answer to a shutdown to be sent


class WallClock:
    """The real time."""

    def now(self) -> float:
        """Seconds on a clock that only grows."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class Controller:
    """Everything that runs in the controller's process."""

    def __init__(self, settings: ControllerSettings) -> None:
        self._settings = settings
        self._store = RayStore()
        self._address = ControllerAddress()
        self._ready = asyncio.Event()
        self._thread = LoopThread("controller")
        self._thread.start(self._start())

    async def address(self) -> ControllerAddress:
        """Where the control API is; returns once that is known."""
        await self._thread.run(self._ready.wait())
        return self._address

    async def _start(self) -> None:
        try:
            await self._run()
        except ServeconfError as error:
            self._address = ControllerAddress(pid=os.getpid(), error=error.message)
        except Exception as error:  # noqa: BLE001 - whoever waits for the address must hear of it
            log.error("the controller could not start", reason=repr(error))
            self._address = ControllerAddress(pid=os.getpid(), error=f"{type(error).__name__}: {error}")
        self._ready.set()

    async def _run(self) -> None:
        identity = await self._identity()
        token = (await self._value("token", lambda: secrets.token_urlsafe(32).encode())).decode()
        server = AdminServer(self._settings.host, self._settings.port)
        server.bind()
        clock = WallClock()
        events, kept = EventLog(self._store, clock), KeptFigures(self._store)
        await events.load()
        await kept.load()
        journal = Journal(note=events.note, figures=kept)
        stacks = Stacks(Ledger(self._store), journal)
        await stacks.load()
        cluster = RayCluster(identity)
        await cluster.refresh()
        self._background = [asyncio.create_task(cluster.keep_nodes_fresh())]
        reconciler = Reconciler(cluster, stacks, clock, journal)
        packages = Packages(self._store, node_folder(identity.cluster_id) / "code")
        deps = Deps(reconciler=reconciler, cluster=cluster, stacks=stacks, clock=clock, journal=journal)
        plane = ControlPlane(deps, packages=packages, preflight=RayPreflight(identity.cluster_id, packages))
        self._background.append(asyncio.create_task(reconciler.run()))
        plane.resume_operations()
        url = f"http://{self._settings.host}:{server.port}"
        self._address = ControllerAddress(url=url, token=token, pid=os.getpid())
        pulse = Pulse(cluster, kept, clock)
        app = make_app(
            plane,
            token=token,
            address=url,
            host=self._settings.host,
            on_shutdown=lambda: self._shutdown(plane),
            events=events,
            pulse=pulse,
        )
        self._background += [asyncio.create_task(events.keep()), asyncio.create_task(pulse.run())]
        events.note(kind="controller", message="the controller is ready", data={"pid": os.getpid()})
        self._background.append(asyncio.create_task(server.serve(app)))
        log.info("controller ready", address=url, stacks=len(stacks.names()))

    async def _identity(self) -> ClusterSettings:
        """The cluster's id and secret: made once, then found in the store."""
        fresh = ClusterSettings(cluster_id=secrets.token_hex(6), secret=secrets.token_bytes(32))
        return msgspec.json.decode(
            await self._value("identity", lambda: msgspec.json.encode(fresh)), type=ClusterSettings
        )

    async def _value(self, key: str, make: Callable[[], bytes]) -> bytes:
        found = await self._store.get(key)
        if found is None:
            found = make()
            await self._store.put(key, found)
        return found

    async def _shutdown(self, plane: ControlPlane) -> None:
        """Stop everything, forget everything, then end this process."""
        await plane.stop_everything()
        identity = await self._identity()
        for key in await self._store.keys(""):
            await self._store.delete(key)
        shutil.rmtree(node_folder(identity.cluster_id), ignore_errors=True)
        asyncio.get_running_loop().call_later(LAST_WORD_S, kill, CONTROLLER)


class ControllerActor:
    """``Controller`` as an actor."""

    def __init__(self, settings: ControllerSettings) -> None:
        set_up_process()
        self._controller = Controller(settings)

    async def address(self) -> ControllerAddress:
        """See Controller."""
        return await self._controller.address()


def find_controller() -> Any | None:
    """The controller of the cluster that this process is connected to."""
    try:
        return ray.get_actor(CONTROLLER, namespace=NAMESPACE)
    except ValueError:
        return None


def start_controller(settings: ControllerSettings, *, timeout_s: float = 60.0) -> ControllerAddress:
    """The controller's address; it is started on the head node where there is none. Raises OperatorError where it can't."""
    actor: Any = (
        ray.remote(ControllerActor)
        .options(
            name=CONTROLLER,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(_head_node(), soft=False),
        )
        .remote(settings)
    )
    address = cast(ControllerAddress, ray.get(actor.address.remote(), timeout=timeout_s))
    if address.error:
        ray.kill(actor, no_restart=True)
        raise OperatorError(address.error, code="controller_failed")
    return address


def _head_node() -> str:
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["Alive"] and HEAD_RESOURCE in node["Resources"]:
            return str(node["NodeID"])
    raise OperatorError("the Ray cluster has no head node")
