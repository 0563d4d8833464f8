"""The lines that a deployment's replicas write, as they come, each with the replica that wrote it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from serveconf.errors import NotFound, OperatorError
from serveconf.plan.state import ReplicaPhase
from serveconf.reconcile.ports import Clock, Cluster
from serveconf.reconcile.records import Ledger

LOOK_S = 0.5

READABLE = (ReplicaPhase.STARTING, ReplicaPhase.READY, ReplicaPhase.UNHEALTHY, ReplicaPhase.DRAINING)


def check_deployment(ledger: Ledger, stack: str, deployment: str) -> None:
    """Raises NotFound where the stack has no such deployment."""
    known = {d.name for found in (ledger.current(stack), ledger.target(stack)) if found for d in found.deployments}
    if deployment not in known:
        hint = f"it has: {', '.join(sorted(known))}" if known else "'serveconf status' lists the stacks"
        raise NotFound(f"stack '{stack}' has no deployment '{deployment}'", hint=hint)


async def read_logs(
    cluster: Cluster, clock: Clock, stack: str, deployment: str, *, tail: int, follow: bool
) -> AsyncIterator[dict[str, Any]]:
    """``{"replica", "line"}``: the last ``tail`` lines of each replica, then, where asked, what comes after them."""
    positions: dict[str, dict[str, int]] = {}
    first = True
    while first or follow:
        for replica in cluster.observe().of(stack, deployment):
            if replica.phase not in READABLE:
                continue
            try:
                before = positions.get(replica.id) if replica.id in positions else (None if first else {})
                part = await cluster.read_log(replica.id, before, tail)
            except OperatorError:  # it has just ended
                continue
            positions[replica.id] = part.position
            for line in part.lines:
                yield {"replica": replica.id, "line": line}
        first = False
        if follow:
            await clock.sleep(LOOK_S)
