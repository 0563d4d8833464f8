"""Standbys: as many warm processes per node and kind of replica as the stacks ask for, made when nothing else is going on."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from serveconf import __version__
from serveconf.plan.state import DesiredStack, Observed, Phase, StandbyState
from serveconf.reconcile.asked import KIND, asked_resources, has, standby_kind
from serveconf.reconcile.ports import Clock, Cluster, NodeState, StandbyOrder
from serveconf.reconcile.stacks import Stacks
from serveconf.reconcile.waits import Backoff

IDLE_S = 5.0
BUSY_S = 0.5
MOST_MODULES = 1000


@dataclass(kw_only=True)
class Kind:
    """One kind of replica: its options, how many standbys of it, what they import."""

    options: dict[str, Any]
    number: int = 0
    modules: dict[str, None] = field(default_factory=dict)


class Standbys:
    """Keeps them: one is started at a time on a node, and none while others must have the cores (``must_wait``)."""

    def __init__(self, cluster: Cluster, stacks: Stacks, must_wait: Callable[[], bool], clock: Clock) -> None:
        self._cluster = cluster
        self._stacks = stacks
        self._must_wait = must_wait
        self._backoff: Backoff[tuple[str, str]] = Backoff(clock)

    async def once(self) -> float:
        """One look. Returns the seconds until the next one that nobody asks for."""
        names = self._stacks.names()
        goals = [goal for name in names if (goal := self._stacks.goal(name)) is not None]
        kinds = kinds_of(goals)
        observed, nodes = self._cluster.observe(), [node for node in self._cluster.nodes() if not node.drains]
        await self._end_surplus(kinds, observed, nodes)
        if self._must_wait():
            return BUSY_S
        there = _by_node(observed.standbys)
        return min([IDLE_S, *[await self._look_at(node, there.get(node.id, []), kinds) for node in nodes]])

    async def _look_at(self, node: NodeState, there: list[StandbyState], kinds: dict[str, Kind]) -> float:
        """One node: one standby after the other; a kind that fails there holds up no other."""
        if any(standby.phase in (Phase.STARTING, Phase.DRAINING) for standby in there):
            return BUSY_S
        pause_s = IDLE_S
        for name, kind in kinds.items():
            missing = sum(standby.kind == name for standby in there) < kind.number
            if not missing or not _has_room(node, kind, there, kinds):
                continue
            wait_s = self._backoff.wait_s((node.id, name))
            if wait_s <= 0:
                await self._start(node, name, kind)
                return BUSY_S
            pause_s = min(pause_s, wait_s)
        return pause_s

    async def _start(self, node: NodeState, name: str, kind: Kind) -> None:
        order = StandbyOrder(
            id=secrets.token_hex(4),
            node_id=node.id,
            kind=name,
            options=kind.options,
            modules=tuple(kind.modules)[:MOST_MODULES],
        )
        await self._cluster.start_standby(order)

    async def _end_surplus(self, kinds: dict[str, Kind], observed: Observed, nodes: Iterable[NodeState]) -> None:
        """Those that failed, are of no kind that is asked for, or one too many."""
        kept: Counter[tuple[str, str]] = Counter()
        live = {node.id for node in nodes}
        for standby in sorted(observed.standbys, key=lambda s: (s.phase is not Phase.READY, s.id)):
            key = (standby.node_id, standby.kind)
            kept[key] += 1
            wanted = kinds[standby.kind].number if standby.kind in kinds and standby.node_id in live else 0
            if standby.phase in (Phase.FAILED, Phase.UNHEALTHY):
                self._backoff.failed(key)
            elif (
                standby.phase is Phase.READY and standby.serveconf != __version__
            ):  # an upgrade: no new replica may be old
                kept[key] -= 1
            elif standby.phase is Phase.DRAINING or kept[key] <= wanted:
                continue
            await self._cluster.stop_standby(standby.id)


def kinds_of(stacks: Iterable[DesiredStack]) -> dict[str, Kind]:
    """The kinds that stacks ask standbys of: the largest number counts, and each imports what any of its replicas imports."""
    kinds: dict[str, Kind] = {}
    for stack in stacks:
        for deployment in stack.deployments if stack.standbys else ():
            options = deployment.spec.get("ray_actor_options", {})
            name = standby_kind(deployment.spec)
            if name is None:
                continue
            kind = kinds.setdefault(name, Kind(options={key: options[key] for key in KIND if options.get(key)}))
            kind.number = max(kind.number, stack.standbys)
            kind.modules |= dict.fromkeys(deployment.installed)
    return kinds


def _by_node(standbys: Iterable[StandbyState]) -> dict[str, list[StandbyState]]:
    nodes: dict[str, list[StandbyState]] = {}
    for standby in standbys:
        nodes.setdefault(standby.node_id, []).append(standby)
    return nodes


def _has_room(node: NodeState, kind: Kind, standbys: Iterable[StandbyState], kinds: dict[str, Kind]) -> bool:
    """Whether it fits beside the other standbys of the node; what they hold counts as free for replicas alone."""
    free = dict(node.available)
    for standby in standbys:
        if standby.kind in kinds:
            for name, amount in asked_resources(kinds[standby.kind].options).items():
                free[name] = free.get(name, 0.0) - amount
    return has(free, asked_resources(kind.options))
