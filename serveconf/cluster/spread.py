"""On which node a new replica is best: by its labels, then where its deployment has fewest, then where fewest replicas are. Pure.

A wish, not an order: the engine takes another node where that one has no room by then.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from serveconf.plan.state import DesiredDeployment, Phase, ReplicaState
from serveconf.reconcile.asked import asked_resources, group_of, has, rank, selectors_of
from serveconf.reconcile.ports import NodeState

THERE = (Phase.STARTING, Phase.READY)


def best_node(
    stack: str, deployment: DesiredDeployment, replicas: Iterable[ReplicaState], nodes: Sequence[NodeState]
) -> str:
    """Its id; empty where none has room just now."""
    options = deployment.spec.get("ray_actor_options", {})
    asked, selectors = asked_resources(options), selectors_of(deployment.spec)
    ranks = {node.id: rank(selectors, node.labels) for node in nodes}
    if group_of(deployment.spec) is not None:
        return ""  # the engine finds nodes for all of its bundles together
    replicas = list(replicas)
    there = [r for r in replicas if r.phase in THERE]
    mine = Counter(r.node_id for r in there if (r.stack, r.deployment, r.version) == key_of(stack, deployment))
    all_of_it = Counter(r.node_id for r in there)
    counted = _counted(stack, deployment, replicas)
    most = deployment.spec.get("max_replicas_per_node") or math.inf
    fitting = [
        node
        for node in nodes
        if not node.drains and ranks[node.id] is not None and has(node.available, asked) and counted[node.id] < most
    ]
    best = min(
        fitting,
        key=lambda node: (
            ranks[node.id] or 0,
            mine[node.id],
            all_of_it[node.id] / max(1.0, node.total.get("CPU", 0)),
            node.id,
        ),
        default=None,
    )
    return best.id if best is not None else ""


def _counted(stack: str, deployment: DesiredDeployment, replicas: Iterable[ReplicaState]) -> Counter[str]:
    """How many processes of its replicas there are on each node, of whatever version."""
    mine = (r for r in replicas if (r.stack, r.deployment) == (stack, deployment.name) and r.phase is not Phase.FAILED)
    return Counter(r.node_id for r in mine)


def key_of(stack: str, deployment: DesiredDeployment) -> tuple[str, str, str]:
    """What makes replicas interchangeable."""
    return stack, deployment.name, deployment.version
