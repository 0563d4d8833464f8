"""The handles of the replicas: made, found, renamed and forgotten; one for each replica, also where several share a process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import assert_never

from msgspec.structs import replace

from serveconf.background import Tasks
from serveconf.cluster.engine import Engine, Remote
from serveconf.cluster.handle import Ends, Handle
from serveconf.cluster.logs import get_logger
from serveconf.cluster.orders import Orders, replica_care
from serveconf.cluster.rooms import Rooms
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
