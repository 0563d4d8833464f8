"""Which kept revision an earlier state is, and how the stack goes back to it."""

from __future__ import annotations

from msgspec.structs import replace

from serveconf.errors import NotFound
from serveconf.plan.desired import as_running
from serveconf.plan.moving import with_way_back
from serveconf.plan.state import DesiredStack
from serveconf.reconcile.records import Ledger, Revision, StackHead


def history_of(ledger: Ledger, stack: str) -> list[Revision]:
    """The kept revisions of a stack, the newest first. Raises NotFound."""
    if stack not in ledger.revisions:
        raise NotFound(f"there is no stack '{stack}'", hint="'serveconf status' lists the stacks")
    return sorted(ledger.revisions[stack].values(), key=lambda r: -r.number)


def earlier_revision(ledger: Ledger, stack: str, number: int | None) -> Revision:
    """The one of that number; without one the last good one before the current. Raises NotFound."""
    revisions = history_of(ledger, stack)
    if number is not None:
        found = next((r for r in revisions if r.number == number), None)
        if found is None:
            raise NotFound(f"stack '{stack}' has no revision {number}", hint="'serveconf history' lists them")
        return found
    current = ledger.heads.get(stack, StackHead(name=stack)).current or 0
    serving = next((r.desired for r in revisions if r.number == current), None)
    earlier = (r for r in revisions if r.number < current and r.outcome == "applied")
    found = next((r for r in earlier if not _is_but_upgraded(r.desired, serving)), None)
    if found is None:
        raise NotFound(f"stack '{stack}' has no earlier revision to go back to", hint="'serveconf history' lists them")
    return found


def way_back(ledger: Ledger, earlier: Revision, current: DesiredStack | None, number: int) -> DesiredStack:
    """What an earlier revision says, as the one of this number; what was moved since is moved back."""
    served = (r for r in ledger.revisions.get(earlier.stack, {}).values() if r.outcome == "applied")
    between = [r.desired for r in served if r.number > earlier.number]
    return as_running(with_way_back(replace(earlier.desired, revision=number), current, between), current)


def _is_but_upgraded(before: DesiredStack, serving: DesiredStack | None) -> bool:
    """Whether nothing but an upgrade lies between the two: that is nothing to go back from."""
    if serving is None or {d.version for d in before.deployments} == {d.version for d in serving.deployments}:
        return False
    return replace(as_running(before, serving), revision=serving.revision) == serving
