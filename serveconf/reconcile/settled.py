"""What decides whether there is anything to do for a stack. As long as a pass sees the same again, looking comes to the same.

Whatever happens in the cluster wakes the passes of all stacks, and of a hundred it concerns one. A pass that had nothing to
do keeps what it has ``Seen``; while that is equal the next one is over at once. Now and then it looks at everything anyway.
"""

from __future__ import annotations

from typing import NamedTuple

from serveconf.plan.state import DesiredStack, Observed, ReplicaState
from serveconf.reconcile.decide import Decision
from serveconf.reconcile.records import StackHead
from serveconf.routing import Front, Route


class Seen(NamedTuple):
    """All of it is frozen, and as a rule the very same as before: comparing is cheap."""

    head: StackHead
    stack: DesiredStack | None  # as it is scaled
    replicas: tuple[ReplicaState, ...]
    proxies: tuple[tuple[str, str, str], ...]
    draining: frozenset[str]  # nodes
    front: Front
    routes: tuple[Route, ...]
    stacks: int  # how many there are: what one that has gone said of the front counts no more


def is_settled(seen: Seen, decision: Decision, observed: Observed, served: frozenset[str]) -> bool:
    """Whether the decision asks for nothing, and what it serves is in the table."""
    if seen.head.target is not None or seen.head.ends:
        return False
    asked = decision.start or decision.reconfigure or decision.failed or decision.canaries
    surplus = any(r.id not in decision.wanted for r in observed.of_stack(seen.head.name))
    return not asked and not surplus and all(r.id in served for _, replicas in decision.serve for r in replicas)
