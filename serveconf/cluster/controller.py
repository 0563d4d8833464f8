"""The controller: store, cluster, reconciler and control API put together on one loop.

A plain class that is hosted in an actor. After a crash it finds everything again: the ledger in the store, the actors by
their names.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable
from typing import Any, cast

import msgspec

from serveconf.admin.app import make_app
from serveconf.admin.handles import Peering
from serveconf.admin.server import AdminServer
from serveconf.background import FIRST_PAUSE_S, LONGEST_PAUSE_S, Tasks, keep
from serveconf.cluster.actors import ActorCluster
from serveconf.cluster.candidate import try_out
from serveconf.cluster.engine import Place, Surroundings
from serveconf.cluster.logs import get_logger
from serveconf.cluster.orders import FOLDER
from serveconf.cluster.preflight import EnginePreflight
from serveconf.cluster.ray_engine import RayEngine, call_actor, find_actor, kill_actor, start_actor
from serveconf.cluster.settings import (
    CONTROLLER,
    HEAD_RESOURCE,
    ClusterSettings,
    ControllerAddress,
    ControllerSettings,
    node_folder,
)
from serveconf.errors import OperatorError, ServeconfError
from serveconf.reconcile.apply import Deps
from serveconf.reconcile.control import ControlPlane
from serveconf.reconcile.events import EventLog
from serveconf.reconcile.generation import serving_ids
from serveconf.reconcile.journal import Journal
from serveconf.reconcile.kept_figures import KeptFigures
from serveconf.reconcile.loop import Reconciler
from serveconf.reconcile.packages import STORE_BYTES, Packages, clear_node
from serveconf.reconcile.policies import Policies
from serveconf.reconcile.pulse import Pulse
from serveconf.reconcile.records import Ledger
from serveconf.reconcile.stacks import Stacks

log = get_logger("controller")

LITTLE = 0.001  # of a resource of which a node has 1, to be there at all
CLEAR_S = 15.0  # for another node to take away what the cluster has left there: a process has to start
LATER_S = 5.0  # before one that comes back gets anything ready, and from then on while others have to start
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
    """Everything that runs in the controller's process. Hosted: it starts by itself."""

    def __init__(self, settings: ControllerSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._engine = RayEngine()
        self._restarted = surroundings.restarted
        self._store = surroundings.store
        self._node_id = surroundings.node_id
        self._address = ControllerAddress()
        self._ready = asyncio.Event()
        self._cluster: ActorCluster | None = None
        self._reconciler: Reconciler | None = None
        self._tasks = Tasks()
        self._writers = Tasks()  # what writes to the store by itself, and must not do so while it is emptied

    async def address(self) -> ControllerAddress:
        """Where the control API is; returns once that is known."""
        await self._ready.wait()
        return self._address

    async def run(self) -> None:
        """Start. One that can't, after a former controller did, tries again: replicas and proxies go on meanwhile."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await self._start()
                return
            except Exception as error:  # noqa: BLE001 - whoever waits for the address must hear of it
                message = error.message if isinstance(error, ServeconfError) else f"{type(error).__name__}: {error}"
                log.error("the controller could not start", reason=message)
                await self._drop_everything()
                self._address = ControllerAddress(pid=os.getpid(), error=message)
                self._ready.set()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _start(self) -> None:
        identity = await self._identity()
        token = (await self._value("token", lambda: secrets.token_urlsafe(32).encode())).decode()
        clock = WallClock()
        events, kept = EventLog(self._store, clock), KeptFigures(self._store)
        await events.load()
        await kept.load()
        journal = Journal(note=events.note, figures=kept)
        stacks = Stacks(Ledger(self._store), journal)
        await stacks.load()
        cluster = self._cluster = ActorCluster(self._engine, identity)
        cluster.kept = kept
        cluster.on_silence = lambda message: events.note(kind="controller", message=message, data={})
        await cluster.refresh(serving_ids(stacks.ledger.generation))
        reconciler = self._reconciler = Reconciler(cluster, stacks, clock, journal)
        await reconciler.scaling.load()
        folder = node_folder(identity.cluster_id) / "code"
        packages = Packages(self._store, folder, store_bytes=self._settings.code_bytes or STORE_BYTES)
        policies = Policies(packages.folder)
        reconciler.scaling.ask_policy = policies.ask
        self._tasks.start(policies.run(), name="policies")
        deps = Deps(reconciler=reconciler, cluster=cluster, stacks=stacks, clock=clock, journal=journal)
        preflight = EnginePreflight(self._engine, identity.cluster_id, packages)
        plane = ControlPlane(deps, packages=packages, preflight=preflight)
        self._tasks.start(cluster.keep_nodes_fresh(), name="nodes")
        reconciler.start()
        plane.resume_operations()
        server = await self._bound()
        pulse = Pulse(cluster, kept, clock)
        url = f"http://{self._settings.host}:{server.port}"
        app = make_app(
            plane,
            token=token,
            address=url,
            host=self._settings.host,
            on_shutdown=lambda: self._shutdown(plane),
            on_upgrade=self._make_way,
            keep_token=self._keep_token,
            events=events,
            pulse=pulse,
            peering=Peering(secret=identity.secret, node_id=self._node_id),
        )
        self._writers.start(keep("events", events.keep), name="events")
        self._writers.start(keep("figures", pulse.run), name="figures")
        said = "the controller died and has come back" if self._restarted else "the controller is ready"
        events.note(kind="controller", message=said, data={"pid": os.getpid()})
        self._tasks.start(server.serve(app), name="control API")
        self._tasks.start(self._warm_up(preflight, reconciler), name="preflight")
        self._address = ControllerAddress(url=url, token=token, pid=os.getpid())
        self._ready.set()
        log.info("controller ready", address=url, stacks=len(stacks.names()))

    async def _warm_up(self, preflight: EnginePreflight, reconciler: Reconciler) -> None:
        """One that comes back, as in an upgrade, leaves the cores to what has to start."""
        while self._restarted:
            await asyncio.sleep(LATER_S)
            if not reconciler.is_busy():
                break
        await preflight.warm_up()

    async def _bound(self) -> AdminServer:
        """The control API's server, with its port. One that comes back and finds the port taken waits for it, and reconciles."""
        pause_s = FIRST_PAUSE_S
        while True:
            server = AdminServer(self._settings.host, self._settings.port)
            try:
                server.bind()
            except ServeconfError as error:
                if not self._restarted:
                    raise
                log.error("the control API waits for its port", reason=error.message)
                self._address = ControllerAddress(pid=os.getpid(), error=error.message)
                self._ready.set()
            else:
                return server
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _drop_everything(self) -> None:
        """What a start that failed has begun; actors go on."""
        if self._reconciler is not None:
            await self._reconciler.stop()
        if self._cluster is not None:
            self._cluster.close()
        await self._tasks.close()
        await self._writers.close()
        self._tasks, self._writers = Tasks(), Tasks()

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

    async def _keep_token(self, token: str) -> None:
        await self._store.put("token", token.encode())
        self._address = msgspec.structs.replace(self._address, token=token)

    async def _shutdown(self, plane: ControlPlane) -> None:
        """Stop everything, forget everything, then end this process."""
        await plane.stop_everything()
        if self._cluster is not None:
            await self._cluster.end_what_is_adrift()
        await self._writers.close()
        identity = await self._identity()
        for key in await self._store.keys(""):
            await self._store.delete(key)
        await self._clear_nodes(identity.cluster_id)
        asyncio.get_running_loop().call_later(LAST_WORD_S, self._end)

    async def _clear_nodes(self, cluster_id: str) -> None:
        """No node keeps what only this cluster has needed; one that does not answer keeps it."""
        others = [node.id for node in self._cluster.nodes() if node.id != self._node_id] if self._cluster else []
        elsewhere = [
            self._engine.run(clear_here, cluster_id, runtime_env={}, timeout_s=CLEAR_S, node_id=node) for node in others
        ]
        here = asyncio.to_thread(clear_here, cluster_id)
        cleared = await asyncio.gather(here, *elsewhere, return_exceptions=True)
        for node, done in zip([self._node_id, *others], cleared, strict=True):
            if isinstance(done, BaseException):
                log.warning("files of the cluster are left on a node", node=node, reason=str(done))

    async def _make_way(self, version: str) -> None:
        """End, for Ray to start the controller anew from what is installed. Raises OperatorError where that would not start."""
        keys = [key for folder in ("stacks/", "generation", FOLDER) for key in await self._store.keys(folder)]
        records = {key: data for key in keys if (data := await self._store.get(key)) is not None}
        await asyncio.to_thread(try_out, records, version=version)
        asyncio.get_running_loop().call_later(LAST_WORD_S, lambda: self._end(restart=True))

    def _end(self, *, restart: bool = False) -> None:
        actor = find_actor(CONTROLLER)
        if actor is not None:
            kill_actor(actor, restart=restart)


def clear_here(cluster_id: str) -> None:
    """Called on each node when the cluster has ended."""
    clear_node(node_folder(cluster_id))


def find_controller() -> Any | None:
    """The controller of the cluster that this process is connected to."""
    return find_actor(CONTROLLER)


def start_controller(settings: ControllerSettings, *, timeout_s: float = 60.0) -> ControllerAddress:
    """The controller's address; it is started on the head node where there is none. Raises OperatorError where it can't."""
    actor = find_controller()
    ours = actor is None
    if actor is None:
        # by the head's resource, not by its id: a head that is started anew, on the GCS of the old one, is another node
        place = Place(resources={HEAD_RESOURCE: LITTLE}, restarts=True)
        actor = start_actor(CONTROLLER, "controller", (settings,), place, get_if_exists=True)
    address = cast(ControllerAddress, call_actor(actor, "address", timeout_s=timeout_s))
    if address.error:
        if ours:
            kill_actor(actor)
        raise OperatorError(address.error, code="controller_failed")
    return address
