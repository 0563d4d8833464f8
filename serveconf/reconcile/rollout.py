"""How one deployment gets from the replicas that it has to those that it should have: pure, one wave at a time.

A wave starts as many new replicas as the surge allows. When all of them are ready it is complete, and says which
replicas the next generation of the table serves from. With the default surge of 100% the first wave is the last.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from serveconf.plan.state import DesiredDeployment, DesiredStack, Observed, ReplicaPhase, ReplicaState

ALIVE = (ReplicaPhase.STARTING, ReplicaPhase.READY)  # an unhealthy one is on its way out: it is replaced, not counted


@dataclass(frozen=True, kw_only=True)
class Wave:
    """What to do next for one deployment."""

    start: int  # replicas of the wanted version to start now
    complete: bool  # nothing of it is starting any more: ``serve`` may be switched to
    final: bool  # after this switch the deployment is what it should be
    serve: tuple[ReplicaState, ...]  # ready replicas to serve from once the wave is complete


def resolve_count(value: int | str, of: int, *, up: bool) -> int:
    """A count, or a percentage of ``of``, rounded up (surge) or down (unavailable)."""
    if isinstance(value, int):
        return value
    share = of * int(value.rstrip("%")) / 100
    return math.ceil(share) if up else math.floor(share)


def limits(deployment: DesiredDeployment) -> tuple[int, int]:
    """(max_surge, max_unavailable) as counts; never both 0, or nothing could ever move."""
    rollout = deployment.spec.get("rollout", {})
    n = deployment.num_replicas
    surge = resolve_count(rollout.get("max_surge", "100%"), n, up=True)
    if deployment.room is not None:
        surge = min(surge, deployment.room)
    unavailable = min(n, resolve_count(rollout.get("max_unavailable", 0), n, up=False))
    return surge, max(unavailable, 1) if surge == 0 else unavailable


def next_wave(
    deployment: DesiredDeployment,
    replicas: Sequence[ReplicaState],
    served: frozenset[str] = frozenset(),
    leaving: frozenset[str] = frozenset(),
) -> Wave:
    """What to do next to have ``num_replicas`` ready replicas of the wanted version and no other.

    ``served``: ids of the replicas that the table names; where there are too many the others go first. ``leaving``: those
    whose node will go soon, which are replaced like old ones, new before old.
    """
    n = deployment.num_replicas
    if len(replicas) == n and all(
        r.phase is ReplicaPhase.READY and r.version == deployment.version and r.id not in leaving for r in replicas
    ):  # as nearly all are at nearly every look
        return Wave(start=0, complete=True, final=True, serve=tuple(sorted(replicas, key=_ID)))
    surge, unavailable = limits(deployment)
    alive = [r for r in replicas if r.phase in ALIVE]
    goes = {r.id for r in alive if r.version != deployment.version or r.id in leaving}
    new = staying([r for r in alive if r.id not in goes], n, served)
    old = sorted((r for r in alive if r.id in goes), key=_preference)
    draining = sum(r.phase is ReplicaPhase.DRAINING and r.version != deployment.version for r in replicas)
    ready_new = [r for r in new if r.phase is ReplicaPhase.READY]
    ready_old = [r for r in old if r.phase is ReplicaPhase.READY]
    room = max(n, len(old)) + surge - len(new) - len(old)
    if surge < n:
        room -= draining  # what drains still holds its place on the node
    start = max(0, min(n - len(new), room))
    keep = 0 if len(ready_new) >= n else max(0, n - unavailable - len(ready_new))
    return Wave(
        start=start,
        complete=start == 0 and len(ready_new) == len(new),
        final=len(ready_new) >= n,
        serve=(*ready_new, *ready_old[:keep]),
    )


def staying(replicas: Sequence[ReplicaState], count: int, served: frozenset[str]) -> list[ReplicaState]:
    """Which of them stay where there are too many: those that are ready, spread over the nodes, the busiest.

    Once the table names only those that stay it is they who stay at the next look too, however busy the others are.
    """
    left = sorted(replicas, key=_preference)
    nodes = Counter(r.node_id for r in left)
    while len(left) > count:
        goes = max(
            left,
            key=lambda r: (
                r.phase is not ReplicaPhase.READY,
                r.id not in served,
                nodes[r.node_id],
                -r.ongoing,
                r.id,
            ),
        )
        left.remove(goes)
        nodes[goes.node_id] -= 1
    return left


_ID = attrgetter("id")


def _preference(replica: ReplicaState) -> tuple[bool, str]:
    """Who stays when there are too many: ready before starting, then by id so that it is stable."""
    return replica.phase is not ReplicaPhase.READY, replica.id


def has_too_many(goal: DesiredStack, observed: Observed) -> bool:
    """Whether a deployment has more replicas of its version than it should have."""
    return any(
        sum(r.version == d.version and r.phase in ALIVE for r in replicas) > d.num_replicas
        for d in goal.deployments
        if len(replicas := observed.of(goal.name, d.name)) > d.num_replicas
    )
