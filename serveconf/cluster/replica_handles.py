"""The handles of the replicas: made, found, renamed and forgotten; one for each replica, also where several share a process.

Each of those in a ``Room`` is seen as if it were an actor of its own; the process ends with the last of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, assert_never

from msgspec.structs import replace

from serveconf.background import Tasks
from serveconf.cluster.engine import Engine, Remote
from serveconf.cluster.handle import Ends, Handle
from serveconf.cluster.logs import get_logger
from serveconf.cluster.orders import Orders, replica_care
from serveconf.errors import OperatorError
from serveconf.plan.moving import named
from serveconf.plan.state import Phase, ReplicaState
from serveconf.reconcile.ports import ProcessOrder, ReplicaOrder

log = get_logger("cluster")

RENAME_AGAIN_S = 1.0


class ReplicaHandles:
    """By the ids of their replicas."""

    def __init__(
        self,
        engine: Engine,
        orders: Orders,
        tasks: Tasks,
        *,
        changed: Callable[[], None],
        last_words: Callable[[ReplicaState], Awaitable[None]],
    ) -> None:
        self.handles: dict[str, Handle[ReplicaState]] = {}
        self._engine = engine
        self._orders = orders
        self._tasks = tasks
        self._changed = changed
        self._last_words = last_words
        self._names: dict[str, str] = {}  # of each replica that is alone in its process: its actor's

    def of_order(
        self, name: str, order: ReplicaOrder | ProcessOrder, remote: Remote | None
    ) -> list[Handle[ReplicaState]]:
        """One for each replica of the order."""
        match order:
            case ReplicaOrder():
                return [self.alone(name, order, remote)]
            case ProcessOrder():
                rooms = Rooms(self._engine, remote, order) if remote is not None else None
                return [self.in_process(name, order, one, rooms) for one in order.replicas]
            case _:
                assert_never(order)

    def find(self, replica_id: str) -> Handle[ReplicaState]:
        """That of a replica. Raises OperatorError where it is gone."""
        handle = self.handles.get(replica_id)
        if handle is None:
            raise OperatorError(f"replica {replica_id} is gone", code="no_answer")
        return handle

    def in_process(
        self, name: str, order: ProcessOrder, one: ReplicaOrder, rooms: Rooms | None
    ) -> Handle[ReplicaState]:
        """The process and its order are forgotten with the last of its replicas."""

        def gone(replica_id: str) -> None:
            self.handles.pop(replica_id, None)
            if rooms is None or rooms.leave(replica_id):
                self._orders.forget(name, order.id)

        handle = self.alone(name, one, rooms.room(one.id) if rooms else None, rooms, gone)
        handle.state = replace(handle.state, process=order.id)
        return handle

    def alone(
        self,
        name: str,
        order: ReplicaOrder,
        remote: Remote | None,
        ends: Ends | None = None,
        gone: Callable[[str], None] | None = None,
    ) -> Handle[ReplicaState]:
        """That of a replica whose actor has this name. ``remote``: None where the engine has refused it."""
        if ends is None:
            self._names[order.id] = name
        state = ReplicaState(
            id=order.id,
            stack=order.stack,
            deployment=order.deployment.name,
            version=order.deployment.version,
            phase=Phase.STARTING,
            config_hash=order.deployment.config_hash,
        )
        care = replica_care(order.deployment.spec, order.ready_timeout_s)
        return Handle(
            ends or self._engine,
            remote,
            state,
            care,
            changed=self._changed,
            gone=gone or (lambda replica_id: self._forget(name, replica_id)),
            last_words=self._last_words,
        )

    async def rename(self, replica_id: str, deployment: str) -> None:
        """See the port. Its order first: a controller that comes back knows it by that name, or sees that it was not told."""
        handle, name = self.handles.get(replica_id), self._names.get(replica_id)
        order = await self._orders.find(name) if name is not None else None
        if handle is None or name is None or not isinstance(order, ReplicaOrder):
            return
        await self._orders.keep(name, replace(order, deployment=named(order.deployment, deployment)))
        handle.note(deployment=deployment)
        self._tasks.start(self._tell_name(handle, deployment), name=f"rename {replica_id}")

    async def _tell_name(self, handle: Handle[ReplicaState], deployment: str) -> None:
        """Again and again, where user code keeps it from answering just now."""
        while handle.state.deployment == deployment and handle.state.phase not in (Phase.DRAINING, Phase.FAILED):
            try:
                await handle.ask("rename", deployment)
                return
            except OperatorError:
                await asyncio.sleep(RENAME_AGAIN_S)
            except Exception as error:  # noqa: BLE001 - one of another version, say: it serves on, and logs as before
                log.warning("a replica did not take its new name", actor=handle.state.id, reason=repr(error))
                return

    def _forget(self, name: str, replica_id: str) -> None:
        self.handles.pop(replica_id, None)
        self._names.pop(replica_id, None)
        self._orders.forget(name, replica_id)


class Room:
    """Implements ``engine.Remote`` for one replica of a process."""

    def __init__(self, actor: Remote, order: ReplicaOrder) -> None:
        self._actor = actor
        self._replica, self._deployment = order.id, order.deployment.name

    async def call(self, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        """See the port."""
        if method == "read_log":  # answered beside the loop that the user's code may block
            return await self._actor.call(method, *args, self._deployment, timeout_s=timeout_s)
        return await self._actor.call("room", self._replica, method, args, timeout_s=timeout_s)

    async def closed(self) -> None:
        """See the port."""
        await self._actor.closed()


class Rooms:
    """Those of one process. Implements ``handle.Ends``: a room that ends leaves the process to the others."""

    def __init__(self, engine: Engine, actor: Remote, order: ProcessOrder) -> None:
        self._engine, self._actor = engine, actor
        self._of = {replica.id: Room(actor, replica) for replica in order.replicas}
        self._left = set(self._of)

    def room(self, replica_id: str) -> Room:
        """The one of a replica."""
        return self._of[replica_id]

    def leave(self, replica_id: str) -> bool:
        """The replica is gone. Whether it was the last one."""
        self._left.discard(replica_id)
        return not self._left

    async def kill(self, remote: Remote, *, restart: bool = False) -> None:
        """End the process when no other replica is in it any more."""
        replica_id = next(one for one, room in self._of.items() if room is remote)
        if self.leave(replica_id):
            await self._engine.kill(self._actor, restart=restart)
