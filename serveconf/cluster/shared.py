"""A process that several deployments share: a replica of each, with its own app, socket, limits and health.

Hosted like a replica; ``rooms`` is its other end. What a process has but one of (the code package on ``sys.path``, the
working directory, the caller of handles) is made once, for all of them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from serveconf.cluster.engine import Surroundings
from serveconf.cluster.gcs import Patient
from serveconf.cluster.ground import Ground, enter
from serveconf.cluster.replica import Replica, Shared, log_names
from serveconf.cluster.settings import ClusterSettings, node_folder
from serveconf.plan.hiding import secrets_of_deployment
from serveconf.proxy.pool import ReplicaPool
from serveconf.reconcile.packages import Packages
from serveconf.reconcile.ports import ProcessOrder
from serveconf.runtime.context import enter_room, the_room
from serveconf.runtime.shared_output import mark_lines
from serveconf.wire.node_tls import node_tls


class SharedProcess:
    """Starts all of them; the controller asks each by itself."""

    def __init__(self, order: ProcessOrder, settings: ClusterSettings, surroundings: Surroundings) -> None:
        self._order = order
        self._store = surroundings.store
        self._marks_lines = surroundings.own_process
        self._packages = Packages(Patient(surroundings.store), node_folder(settings.cluster_id) / "code")
        self._pool = ReplicaPool(node_id=surroundings.node_id, secret=settings.secret, tls=node_tls(os.environ))
        self._ground: asyncio.Task[Ground] | None = None
        self._drained: set[str] = set()
        secrets: dict[str, str] = {}
        for one in order.replicas:
            secrets |= secrets_of_deployment(one.deployment)
        first = order.replicas[0].id
        self._replicas = {
            one.id: Replica(
                one,
                settings,
                surroundings,
                Shared(ground=self._enter, pool=self._pool, secrets=secrets, speaks=one.id == first),
            )
            for one in order.replicas
        }

    async def run(self) -> None:
        """Start them side by side: one that waits holds up no other."""
        if self._marks_lines:
            mark_lines()
        await asyncio.gather(*(self._run(replica) for replica in self._replicas.values()))

    async def room(self, replica_id: str, method: str, args: tuple[Any, ...]) -> Any:
        """What the replica's method returns or raises."""
        replica = self._replicas[replica_id]
        enter_room(replica.room)
        answer = await getattr(replica, method)(*args)
        if method == "drain":
            self._drained.add(replica_id)
            if self._ground is not None and self._drained == self._replicas.keys():
                await (await self._ground).following.close()
        return answer

    async def _run(self, replica: Replica) -> None:
        enter_room(replica.room)
        await replica.run()

    async def _enter(self) -> Ground:
        if self._ground is None:
            first, process = self._order.replicas[0], self._order.id
            entering = enter(first, self._store, self._packages, self._pool, self._names, process=process)
            self._ground = asyncio.create_task(entering)
        return await asyncio.shield(self._ground)

    def _names(self) -> Mapping[str, str]:
        room = the_room()
        return log_names(room if room is not None else self._replicas[self._order.replicas[0].id].room)
