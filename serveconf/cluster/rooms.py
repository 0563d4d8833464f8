"""The replicas of one process, each seen as if it were an actor of its own: the process ends with the last of them."""

from __future__ import annotations

from typing import Any

from serveconf.cluster.engine import Engine, Remote
from serveconf.reconcile.ports import ProcessOrder, ReplicaOrder


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
