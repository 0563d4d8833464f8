"""The standbys of a cluster: started, and taken by a replica of their kind; what they hold is a replica's for the asking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from serveconf import __version__
from serveconf.cluster.engine import Engine, EngineError, Refused, Remote
from serveconf.cluster.handle import ANSWER_S, Care, Handle
from serveconf.cluster.logs import get_logger
from serveconf.cluster.orders import Orders, kind_of_order, place_of
from serveconf.cluster.settings import STANDBY_PREFIX
from serveconf.plan.state import Phase, ReplicaState, StandbyState
from serveconf.reconcile.asked import asked_resources, standby_kind
from serveconf.reconcile.placement import missing
from serveconf.reconcile.ports import NodeState, ProcessOrder, ReplicaOrder, StandbyOrder

log = get_logger("cluster")

READY_S = 120.0
BECOME_S = 5.0


class StandbyPool:
    """One handle each, by id."""

    def __init__(self, engine: Engine, orders: Orders, changed: Callable[[], None]) -> None:
        self.handles: dict[str, Handle[StandbyState]] = {}
        self._held: dict[str, StandbyOrder] = {}
        self._engine = engine
        self._orders = orders
        self._changed = changed

    async def start(self, order: StandbyOrder) -> None:
        """Start a process on a node, and have it import."""
        name = STANDBY_PREFIX + order.id
        await self._orders.keep(name, order)
        place = replace(place_of(order.options), node_id=order.node_id)
        try:
            handle = self.handle(order, await self._engine.start(name, "standby", (order,), place))
        except Refused as refused:
            handle = self.handle(order, None)
            handle.state = replace(handle.state, phase=Phase.FAILED, message=str(refused))
        self.handles[order.id] = handle
        handle.watch()
        self._changed()

    def stop(self, standby_id: str) -> None:
        """End it; nothing runs in it."""
        handle = self.handles.get(standby_id)
        if handle is not None:
            handle.stop(0)

    def fitting(
        self, order: ReplicaOrder | ProcessOrder, replicas: Iterable[ReplicaState], nodes: Iterable[NodeState]
    ) -> Handle[StandbyState] | None:
        """One of the replica's kind, where its deployment has no more replicas than elsewhere."""
        kind = standby_kind(order.deployment.spec)
        mine = (order.stack, order.deployment.name, order.deployment.version)
        there = Counter(r.node_id for r in replicas if (r.stack, r.deployment, r.version) == mine)
        fewest = min((there[node.id] for node in nodes), default=0)
        for handle in self.handles.values():
            state = handle.state
            fits = state.kind == kind and state.serveconf == __version__
            if state.phase is Phase.READY and fits and there[state.node_id] <= fewest:
                return handle
        return None

    async def take(
        self, standby: Handle[StandbyState], order: ReplicaOrder | ProcessOrder, *args: Any
    ) -> tuple[str, Remote] | None:
        """Have it become the replica, or the process of several: the actor's name, and the actor.

        None where it can't any more; the log has why.
        """
        standby_id, name, remote = standby.state.id, STANDBY_PREFIX + standby.state.id, standby.remote
        self.handles.pop(standby_id, None)
        self._held.pop(standby_id, None)
        standby.let_go()
        self._changed()
        assert remote is not None
        try:
            await self._orders.keep(name, order)
            await remote.call("become", kind_of_order(order), (order, *args), timeout_s=BECOME_S)
        except BaseException as error:  # a cancel too: nobody knows it any more, so it must not stay
            log.warning("a standby could not be taken", standby=standby_id, reason=repr(error))
            await self._engine.kill(remote)
            self._orders.forget(name)
            if not isinstance(error, EngineError):
                raise
            return None
        return name, remote

    def make_room(self, order: ReplicaOrder | ProcessOrder, nodes: Sequence[NodeState]) -> None:
        """They never stand in the way of a replica: where no node has room for it beside them, they go."""
        if missing(order.deployment.spec, nodes):
            for standby_id in list(self.handles):
                self.stop(standby_id)

    def given_back(self, node: NodeState) -> NodeState:
        """The node as if what standbys hold there were free."""
        free = dict(node.available)
        for standby_id, order in self._held.items():
            handle = self.handles.get(standby_id)
            if order.node_id == node.id and handle is not None and handle.state.pid:
                for name, amount in asked_resources(order.options).items():
                    free[name] = free.get(name, 0.0) + amount
        return replace(node, available=free)

    def handle(self, order: StandbyOrder, remote: Remote | None) -> Handle[StandbyState]:
        """A handle of one that is started, or adopted."""
        self._held[order.id] = order
        return Handle(
            self._engine,
            remote,
            StandbyState(id=order.id, kind=order.kind, node_id=order.node_id, phase=Phase.STARTING),
            Care(ready_s=READY_S, period_s=5.0, question=("check",), answer_s=ANSWER_S, unhealthy_after=3),
            changed=self._changed,
            gone=self._forget,
        )

    def _forget(self, standby_id: str) -> None:
        self.handles.pop(standby_id, None)
        self._held.pop(standby_id, None)
        self._orders.forget(STANDBY_PREFIX + standby_id)
