"""What of a stack is not as it was applied: the plan from what is there to the revision that serves. Pure; changes nothing."""

from __future__ import annotations

from msgspec.structs import replace

from serveconf.errors import NotFound
from serveconf.plan.actions import Plan
from serveconf.plan.diff import make_plan
from serveconf.plan.state import Observed
from serveconf.reconcile.front import listener_of, merge_fronts, said_by
from serveconf.reconcile.records import Ledger
from serveconf.spec.models import Location


def find_drift(ledger: Ledger, observed: Observed, stack: str) -> Plan:
    """Replicas that are missing, too many or not what they should be, and proxies that are gone or listen elsewhere.

    Raises NotFound where nothing of the stack was ever applied.
    """
    current = ledger.current(stack)
    if current is None:
        raise NotFound(f"there is no stack '{stack}'", hint="'serveconf status' lists the stacks")
    goals = [goal for name in ledger.heads if (goal := ledger.target(name) or ledger.current(name)) is not None]
    front = merge_fronts(goals)
    plan = make_plan(
        current,
        current,
        observed,
        listener=None if front.location is Location.NO_SERVER else listener_of(front.options),
        shared=said_by(goal for goal in goals if goal.name != stack),
    )
    head = ledger.heads[stack]
    pinned = (f"revision {head.current} was rolled back to, and is pinned",) if head.pinned else ()
    return replace(plan, warnings=pinned)
