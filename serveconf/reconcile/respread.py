"""Deployments that have come to stand on one node alone, though another has room: one of their replicas moves there.

That is what is left when a node was lost, its replicas were replaced on the others, and it is back: the next loss would take
all of them. Whoever moves ``leaves`` its node, as if that drained: another one is started first, and the wave sees to the rest.
One moves at a time, and only when it could for a while: a node that comes and goes moves nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from serveconf.plan.processes import beside, leads
from serveconf.plan.state import DesiredDeployment, DesiredStack, Observed, ReplicaPhase, ReplicaState
from serveconf.reconcile.asked import asked_resources, group_of, has, rank, selectors_of
from serveconf.reconcile.journal import EventKind, Happening, Journal
from serveconf.reconcile.ports import Clock, NodeState
from serveconf.reconcile.rollout import limits

STEADY_S = 30.0  # for so long it has stood on one node, and another has had room
MOVE_S = 60.0  # for one to have moved, beyond the time that a start may take; past it, it stays where it is
AGAIN_S = 600.0  # after a move that has not changed it, as where the room was taken meanwhile


@dataclass(frozen=True, kw_only=True)
class Move:
    """One that is under way: of a deployment, or of all in its process."""

    deployment: DesiredDeployment
    replicas: frozenset[str]  # those that leave
    ends_at: float


class Respread:
    """The moves of one stack."""

    def __init__(self, stack: str, clock: Clock, journal: Journal) -> None:
        self._stack = stack
        self._clock = clock
        self._journal = journal
        self._move: Move | None = None
        self._since: dict[str, float] = {}  # deployments that could be better spread
        self._not_before: dict[str, float] = {}

    def leaving(self, goal: DesiredStack | None, observed: Observed, nodes: Sequence[NodeState]) -> frozenset[str]:
        """Ids of replicas that leave their node now. ``goal``: None where something else goes on that must not be disturbed."""
        now, self._move = self._clock.now(), self._still(goal, observed)
        if goal is None:
            self._since.clear()
            return frozenset()
        if self._move is not None:
            return self._move.replicas
        better = {
            d.name: (d, room)
            for d in goal.deployments
            if leads(goal, d) and (room := elsewhere(d, observed.of(self._stack, d.name), nodes)) is not None
        }
        self._not_before = {name: at for name, at in self._not_before.items() if at > now}
        self._since = {name: self._since.get(name, now) for name in better}
        for name, (deployment, room) in better.items():
            if now - self._since[name] >= STEADY_S and name not in self._not_before:
                self._move = self._begun(deployment, observed.of_stack(self._stack), room)
                return self._move.replicas
        return frozenset()

    def _still(self, goal: DesiredStack | None, observed: Observed) -> Move | None:
        """The move that is under way, until it has come to its end or can't."""
        move = self._move
        if move is None or goal is None or goal.deployment(move.deployment.name) != move.deployment:
            return None
        replicas = observed.of(self._stack, move.deployment.name)
        there = any(r.id in move.replicas and r.phase is ReplicaPhase.READY for r in replicas)
        failed = any(r.phase is ReplicaPhase.FAILED for r in replicas)
        return move if there and not failed and self._clock.now() < move.ends_at else None

    def _begun(self, deployment: DesiredDeployment, mine: Sequence[ReplicaState], room: NodeState) -> Move:
        now, name = self._clock.now(), deployment.name
        self._not_before[name] = now + AGAIN_S
        goes = max((r for r in mine if r.deployment == name), key=lambda r: (-r.ongoing, r.id))
        self._journal.tell(
            Happening(
                kind=EventKind.HEAL,
                stack=self._stack,
                deployment=name,
                message=f"replica {goes.id} moves: all of its deployment are on node {goes.node_id}, and {room.id} has room",
                data={"replica": goes.id, "node": goes.node_id, "to": room.id},
                like="moves",
            )
        )
        start_s: float = deployment.spec.get("rollout", {}).get("ready_timeout_s", 60.0)
        return Move(
            deployment=deployment,
            replicas=frozenset(r.id for r in beside(mine, goes)),
            ends_at=now + start_s + MOVE_S,
        )


def elsewhere(
    deployment: DesiredDeployment, replicas: Iterable[ReplicaState], nodes: Sequence[NodeState]
) -> NodeState | None:
    """A node with room for one of several replicas that are all on another; None where they are well where they are.

    It has no worse labels than theirs. Placement groups stay, and what may not be more for a moment (``max_surge: 0``).
    """
    there = list(replicas)
    settled = all(r.phase is ReplicaPhase.READY and r.version == deployment.version for r in there)
    if not settled or not 2 <= len(there) == deployment.num_replicas or len({r.node_id for r in there}) > 1:
        return None
    home = next((node for node in nodes if node.id == there[0].node_id), None)
    if home is None or home.drains or group_of(deployment.spec) is not None or limits(deployment)[0] < 1:
        return None
    asked = asked_resources(deployment.spec.get("ray_actor_options") or {})
    fits = _fits(deployment, home)
    return next((n for n in nodes if n is not home and n.available and has(n.available, asked) and fits(n)), None)


def _fits(deployment: DesiredDeployment, home: NodeState) -> Callable[[NodeState], bool]:
    selectors = selectors_of(deployment.spec)
    at_home = rank(selectors, home.labels)

    def fits(node: NodeState) -> bool:
        there = rank(selectors, node.labels)
        return not node.drains and there is not None and (at_home is None or there <= at_home)

    return fits
