"""Replicas that the engine has yet to find a place for: standbys make room for them, and what is missing is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from serveconf.background import Tasks
from serveconf.cluster.engine import EngineError
from serveconf.cluster.handle import Handle
from serveconf.cluster.orders import order_id
from serveconf.cluster.standby_pool import StandbyPool
from serveconf.plan.state import Phase, ReplicaState
from serveconf.reconcile.placement import missing
from serveconf.reconcile.ports import NodeState, ProcessOrder, ReplicaOrder


class Unplaced:
    """By the id of the (first) replica."""

    def __init__(self, replicas: Mapping[str, Handle[ReplicaState]], standbys: StandbyPool, tasks: Tasks) -> None:
        self._replicas = replicas
        self._standbys = standbys
        self._tasks = tasks
        self._orders: dict[str, ReplicaOrder | ProcessOrder] = {}
        self._asking: set[str] = set()  # whether the engine has placed it, just now

    def add(self, order: ReplicaOrder | ProcessOrder) -> None:
        """It was started, and its handle is known in the same turn of the loop."""
        self._orders[order_id(order)] = order

    def give_room(self, nodes: Sequence[NodeState], free: Sequence[NodeState]) -> None:
        """Who waits for a place, where none is free, gets what standbys hold. ``free``: the nodes as if they had given it."""
        states = ((self._replicas.get(replica_id), order) for replica_id, order in self._orders.items())
        waiting = {h.state.id: order for h, order in states if h is not None and h.state.phase is Phase.STARTING}
        for order in waiting.values():
            self._standbys.make_room(order, nodes)
            if order_id(order) not in self._asking:
                self._tasks.start(self._tell_what_is_missing(order, free), name=f"place of {order_id(order)}")
        self._orders = waiting

    async def _tell_what_is_missing(self, order: ReplicaOrder | ProcessOrder, free: Sequence[NodeState]) -> None:
        """Where the engine has not placed it yet, and has no room for it."""
        why, first = missing(order.deployment.spec, free), order_id(order)
        handle = self._replicas.get(first)
        self._asking.add(first)
        try:
            if handle is None or (not why and not handle.state.message):
                return
            if why and await handle.is_placed():  # then nothing is missing for it any more
                why = ""
                self._orders.pop(first, None)
        except EngineError:  # it has ended, or is away: its handle sees that
            return
        finally:
            self._asking.discard(first)
        if handle.state.phase is Phase.STARTING:
            handle.note(message=why)
