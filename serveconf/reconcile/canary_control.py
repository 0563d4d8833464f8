"""What is asked of a canary that runs: go on at once, go back at once, make way for something newer."""

from __future__ import annotations

from msgspec.structs import replace

from serveconf.errors import Conflict, NotFound
from serveconf.plan.state import DesiredStack
from serveconf.reconcile.canary import CanaryPlan
from serveconf.reconcile.canary_pass import canaries_of
from serveconf.reconcile.journal import EventKind, Happening, Journal
from serveconf.reconcile.records import Failure, Revision
from serveconf.reconcile.requests import NOBODY, Caller
from serveconf.reconcile.stacks import Stacks


class CanaryControl:
    """Of all stacks."""

    def __init__(self, stacks: Stacks, journal: Journal) -> None:
        self._stacks = stacks
        self._journal = journal

    def runs(self, stack: str) -> bool:
        """Whether what is being applied to the stack is a canary."""
        head = self._stacks.head(stack)
        return head is not None and canaries_of(self._stacks, head) is not None

    def find(self, stack: str, deployment: str | None) -> tuple[Revision, CanaryPlan]:
        """The revision that is tried, and how. Raises NotFound, or Conflict where there is none."""
        head = self._stacks.head(stack)
        if head is None:
            raise NotFound(f"there is no stack '{stack}'", hint="'serveconf status' lists the stacks")
        plan = canaries_of(self._stacks, head)
        revision = self._stacks.ledger.revision(stack, head.target)
        if plan is None or revision is None or (deployment is not None and deployment not in plan.rules):
            raise _no_canary(stack, deployment)
        return revision, plan

    async def promote(self, revision: Revision, plan: CanaryPlan, deployment: str | None, caller: Caller) -> None:
        """All of the requests to the new version at once. Raises Conflict where it has ended just now."""
        stack = revision.stack
        if not await self._stacks.promote(stack, revision.number, steps=plan.steps):
            raise _no_canary(stack, deployment)
        message = f"promoted{str(caller) or ' by hand'}: {', '.join(sorted(plan.rules))}"
        self._tell(stack, deployment, message, caller)

    async def abort(self, revision: Revision, deployment: str | None, caller: Caller) -> None:
        """All of the requests back to the old version at once. Raises Conflict where it has ended just now."""
        stack = revision.stack
        failure = Failure(code="canary_aborted", message="the canary was aborted", deployment=deployment)
        if not await self._stacks.give_up(stack, revision.number, failure, unless_it_serves=True):
            raise _no_canary(stack, deployment)
        self._tell(stack, deployment, f"aborted{str(caller) or ' by hand'}", caller)

    async def make_way(self, stack: str, desired: DesiredStack) -> None:
        """What is newer takes the place of the stack's canary, unless it is the same."""
        tried = self._stacks.ledger.target(stack)
        if tried is None or replace(desired, revision=tried.revision, code=tried.code) == tried:
            return
        failure = Failure(code="superseded", message="a newer apply took the place of the canary")
        if await self._stacks.give_up(stack, tried.revision, failure, unless_it_serves=True):
            self._tell(stack, None, "taken back: a newer apply takes its place")

    def _tell(self, stack: str, deployment: str | None, message: str, caller: Caller = NOBODY) -> None:
        data = caller.told() if caller != NOBODY else {}
        happening = Happening(kind=EventKind.CANARY, stack=stack, deployment=deployment, message=message, data=data)
        self._journal.tell(happening)


def _no_canary(stack: str, deployment: str | None) -> Conflict:
    whose = f"deployment '{deployment}' of stack '{stack}'" if deployment else f"stack '{stack}'"
    return Conflict(
        f"{whose} has no canary that runs",
        hint="'serveconf status' shows those that do; what serves already is taken back by 'serveconf rollback'",
        code="no_canary",
    )
