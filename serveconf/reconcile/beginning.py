"""What of a target already answers calls while the rest of it starts: so constructors can call what is bound to them.

A table names replicas when all of a target is ready. Until then those that are ready are told here, in the store, to who
starts beside them: the stack's pass writes it, ``handles/directory`` of a replica that starts reads it.
"""

from __future__ import annotations

from collections.abc import Iterable

from serveconf.plan.state import DesiredDeployment, DesiredStack, Observed, Phase, ReplicaState
from serveconf.reconcile.front import merge_fronts
from serveconf.reconcile.generation import make_route
from serveconf.reconcile.ports import Store
from serveconf.routing import Generation, Route, beginning_key, encode_routes

Begun = tuple[DesiredDeployment, tuple[ReplicaState, ...]]


def beginning(target: DesiredStack | None, observed: Observed, live: Generation) -> list[Begun]:
    """The deployments of bound applications that no table names in their version yet, each with its ready replicas."""
    if target is None:
        return []
    named = {(route.stack, route.deployment, route.version) for route in live.routes}
    inside = (d for d in target.deployments if d.bound or d.graph)
    return [
        (d, tuple(r for r in observed.of(target.name, d.name) if r.version == d.version and r.phase is Phase.READY))
        for d in inside
        if (target.name, d.name, d.version) not in named
    ]


def beginning_routes(target: DesiredStack | None, begun: Iterable[Begun]) -> tuple[Route, ...]:
    """The same as routes, whose replicas are reached from all nodes where the stack has some."""
    if target is None:
        return ()
    front = merge_fronts([target])
    return tuple(make_route(target.name, deployment, replicas, front) for deployment, replicas in begun)


class Beginning:
    """One stack's, as it lies in the store."""

    def __init__(self, stack: str, store: Store) -> None:
        self._key, self._store = beginning_key(stack), store
        self._told: tuple[Route, ...] | None = None  # a former controller may have left something

    async def tell(self, routes: tuple[Route, ...]) -> None:
        """These, and no others."""
        if routes == self._told:
            return
        if routes:
            await self._store.put(self._key, encode_routes(routes))
        else:
            await self._store.delete(self._key)
        self._told = routes
