"""A stack's canaries, pass after pass: what the proxies have counted is read and judged, and the step goes on or back.

``StackPass`` asks at every pass. Where the canaries are is in the stack's head; here is only what has been seen of them,
which another controller begins to see anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, assert_never

from serveconf.plan.state import Observed, ReplicaPhase
from serveconf.reconcile.canary import CanaryPlan, NextStep, Reading, Stay, TakeBack, Verdict, Watch, canary_of, told_by
from serveconf.reconcile.canary_decide import Trial, canary_routes
from serveconf.reconcile.journal import EventKind, Happening, Journal
from serveconf.reconcile.ports import Clock, Cluster, Totals
from serveconf.reconcile.records import CanaryState, Failure, StackHead
from serveconf.reconcile.stacks import Stacks
from serveconf.reconcile.waits import Until
from serveconf.routing import Generation

LOOK_S = 0.5  # between two looks
MOST_ENDED = 3  # replicas of a new version that may not end one after the other


def canaries_of(stacks: Stacks, head: StackHead) -> CanaryPlan | None:
    """What of the stack's target has to be tried before it serves; None where nothing has, or it serves already."""
    revision = stacks.ledger.revision(head.name, head.target)
    if revision is None or revision.at_once or head.baking_until is not None:
        return None
    before = stacks.ledger.revision(head.name, head.current)
    return canary_of(before.desired if before is not None else None, revision.desired)


class Canaries:
    """Those of one stack."""

    def __init__(
        self, cluster: Cluster, stacks: Stacks, clock: Clock, *, say: Callable[[str, str], None], journal: Journal
    ) -> None:
        """``say`` tells who follows the apply: phase, message."""
        self._journal = journal
        self._cluster = cluster
        self._stacks = stacks
        self._clock = clock
        self._until = Until(clock)
        self._say = say
        self._number: int | None = None
        self._watch: Watch | None = None
        self._looked = 0.0
        self._said = ""
        self._ended: dict[str, str] = {}  # replicas of new versions -> how they ended

    def trial(self, head: StackHead, live: Generation) -> Trial | None:
        """The target's canaries; None where there are none, or nothing is to be tried any more."""
        plan = canaries_of(self._stacks, head)
        if plan is None:
            self._number = self._watch = None
            return None
        if self._number != head.target or self._watch is None:
            self._number, self._watch, self._ended, self._said = head.target, Watch(plan), {}, ""
        return Trial(plan=plan, state=head.canary or CanaryState(), routes=canary_routes(live, head.name))

    async def judge(self, head: StackHead, trial: Trial, observed: Observed) -> Failure | None:
        """Look at what both sides answer, if it is time, and go on to the next step. Why the target has to be taken back."""
        state, now = trial.state, self._clock.now()
        if not state.judged:
            return None
        verdict: Verdict | None = self._ends_too_often(
            head, trial, observed
        )  # at every look: they are cleared away in this pass
        if verdict is None:
            if self._looked and now - self._looked < LOOK_S:
                return None
            self._looked = now
            verdict = await self._look(state, trial.plan)
        match verdict:
            case TakeBack(failure=failure):
                await self._remember(head)
                self._tell(head, f"taken back: {failure.message}", failure.deployment)
                return failure
            case NextStep(step=step):
                assert head.target is not None
                following = CanaryState(step=step)
                await self._remember(head)
                if await self._stacks.go_on(head.name, head.target, after=state, to=following):
                    self._tell(head, told_by(trial.plan, following))
            case Stay(message=message):
                if message != self._said:
                    self._said = message
                    self._say("canary", message)
            case _:
                assert_never(verdict)
        return None

    def begun(self, head: StackHead, trial: Trial) -> CanaryState:
        """The state as it is when the table has given the step its share."""
        return CanaryState(step=trial.state.step, until=self._clock.wall() + trial.plan.step_s)

    def tell_begun(self, head: StackHead, trial: Trial) -> None:
        """A step has begun."""
        if trial.state.step == 0:
            self._tell(head, told_by(trial.plan, trial.state))

    async def _look(self, state: CanaryState, plan: CanaryPlan) -> Verdict:
        assert self._watch is not None
        is_over = state.until is not None and self._until.is_over(state.until, plan.step_s)
        return self._watch.look(state, await self._read(), is_over=is_over)

    async def _read(self) -> Reading:
        """What all proxies have counted of both sides; one that does not answer is left out."""
        proxies = self._cluster.observe().proxies
        read = await asyncio.gather(*(self._cluster.totals(p.id) for p in proxies), return_exceptions=True)
        return {(p.id, t.pid): t.figures.sides for p, t in zip(proxies, read, strict=True) if isinstance(t, Totals)}

    def _ends_too_often(self, head: StackHead, trial: Trial, observed: Observed) -> TakeBack | None:
        for name, (_, version) in trial.plan.versions.items():
            for replica in observed.of(head.name, name):
                if replica.version == version and replica.phase is ReplicaPhase.FAILED and not replica.cut_short:
                    self._ended[replica.id] = replica.message.partition("\n")[0]
                    last = self._ended[replica.id]
                    if len(self._ended) >= MOST_ENDED:
                        why = f"{len(self._ended)} replicas of the new version have ended, the last: {last}"
                        return TakeBack(failure=Failure(code="canary", message=why, deployment=name))
        return None

    async def _remember(self, head: StackHead) -> None:
        assert head.target is not None and self._watch is not None
        await self._stacks.note_canary(head.name, head.target, self._watch.told())

    def _tell(self, head: StackHead, message: str, deployment: str | None = None) -> None:
        self._said = message
        self._say("canary", message)
        data: dict[str, Any] = {"revision": head.target}
        if self._watch is not None:
            data["answers"] = self._watch.told()
        happening = Happening(kind=EventKind.CANARY, stack=head.name, deployment=deployment, message=message, data=data)
        self._journal.tell(happening)
