"""A canary's way: which deployments try a change first, on what share, and what one look at their answers comes to.

No clock and no cluster: a pass hands in the time and what every proxy has counted of both sides. ``plan.canary`` judges;
here a stack's canaries are led through their steps together, since a stack moves as one. What has no canary of its own
moves with the promotion, so that taking a canary back changes nothing for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

import msgspec
from msgspec.structs import replace

from serveconf.plan.canary import CanaryRule, Evidence, Side, look, rule_of, why_worse
from serveconf.plan.state import DesiredDeployment, DesiredStack
from serveconf.reconcile.records import Failure
from serveconf.routing import Route

LOOK_S = 0.5  # between two looks

# (proxy, pid) -> "stack/deployment@version" -> what that process has counted since it began
Reading = Mapping[tuple[str, int], Mapping[str, Side]]


class CanaryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The canaries of one apply, by deployment: the rule, the old version and the new one."""

    stack: str
    rules: dict[str, CanaryRule]
    versions: dict[str, tuple[str, str]]

    @property
    def steps(self) -> int:
        """How many steps the longest of them has."""
        return max(len(rule.steps) for rule in self.rules.values())

    @property
    def step_s(self) -> float:
        """How long a step lasts at least."""
        return max(rule.step_s for rule in self.rules.values())

    def share(self, deployment: str, step: int) -> float:
        """The percentage that its new version gets in a step; who has fewer steps stays at the last one."""
        steps = self.rules[deployment].steps
        return steps[min(step, len(steps) - 1)]


class CanaryState(msgspec.Struct, frozen=True, kw_only=True):
    """Where the canaries are: kept in the stack's head, so that another controller goes on there."""

    step: int
    until: float  # seconds since the epoch; the step lasts longer where too few have asked


class Stay(msgspec.Struct, frozen=True, kw_only=True):
    """The step goes on."""

    message: str


class NextStep(msgspec.Struct, frozen=True, kw_only=True):
    """The next step begins; past the last one that is the promotion."""

    state: CanaryState


class TakeBack(msgspec.Struct, frozen=True, kw_only=True):
    """The new version is worse."""

    failure: Failure


Verdict = Stay | NextStep | TakeBack


def canary_of(current: DesiredStack | None, target: DesiredStack) -> CanaryPlan | None:
    """What tries itself before the target serves: every deployment of another version that has a canary; None: nothing."""
    rules, versions = {}, {}
    for deployment in target.deployments:
        before = current.deployment(deployment.name) if current else None
        rule = rule_of(deployment.spec.get("rollout", {}))
        if rule is None or before is None or before.version == deployment.version:
            continue
        if before.prefix is None or deployment.prefix is None:
            continue  # no request has two versions to choose from
        rules[deployment.name] = rule
        versions[deployment.name] = (before.version, deployment.version)
    return CanaryPlan(stack=target.name, rules=rules, versions=versions) if rules else None


def replicas_for(share: float, deployment: DesiredDeployment) -> int:
    """How many replicas of the new version a share needs; the old one keeps all of its own."""
    return max(1, ceil(deployment.num_replicas * share / 100))


def canary_route(old: Route, new: Route, share: float, sticky: str | None) -> Route:
    """The new version's route: it stands where the old one stands until it is promoted."""
    return replace(new, prefix=old.prefix, match=old.match, mirror=None, share=share, sticky=sticky)


def begin(plan: CanaryPlan, now: float) -> CanaryState:
    """The first step."""
    return CanaryState(step=0, until=now + plan.step_s)


class Watch:
    """What is known of the canaries of one apply. A controller that comes back begins a new one, and goes on with the step."""

    def __init__(self, plan: CanaryPlan) -> None:
        self._plan = plan
        self._last: Reading | None = None
        self._step = -1
        self._answered: dict[str, int] = {}  # by the new version in this step
        self.evidence = {name: Evidence() for name in plan.rules}

    def look(self, state: CanaryState, reading: Reading, now: float) -> Verdict:
        """What this reading comes to."""
        if state.step != self._step:
            self._step = state.step
            self._answered = dict.fromkeys(self._plan.rules, 0)
        last, self._last = self._last, reading
        if last is not None:
            for name, rule in self._plan.rules.items():
                old, new = (self._since(last, reading, name, version) for version in self._plan.versions[name])
                self._answered[name] += new.given
                self.evidence[name] = look(self.evidence[name], old, new, rule)
                if why := why_worse(self.evidence[name], rule):
                    hint = f"'serveconf logs {name}' shows what it wrote"
                    return TakeBack(failure=Failure(code="canary", message=why, deployment=name, hint=hint))
        if now < state.until:
            return Stay(message=self._shares(state.step))
        for name, rule in self._plan.rules.items():
            if self._answered[name] < rule.min_requests:
                asked = f"{self._answered[name]} of min_requests {rule.min_requests} have been answered"
                return Stay(message=f"{self._shares(state.step)}; {asked}")
        return NextStep(state=CanaryState(step=state.step + 1, until=now + self._plan.step_s))

    def _shares(self, step: int) -> str:
        shares = ", ".join(f"{name} {self._plan.share(name, step):g} %" for name in sorted(self._plan.rules))
        return f"step {step + 1} of {self._plan.steps}: {shares}"

    def _since(self, last: Reading, now: Reading, deployment: str, version: str) -> Side:
        """What all proxies together have answered between two readings; a process that is new began with nothing."""
        key = f"{self._plan.stack}/{deployment}@{version}"
        given = failed = 0
        slowness: list[int] = []
        for process, counted in now.items():
            after = counted.get(key)
            if after is None:
                continue
            before = last.get(process, {}).get(key, Side())
            given += after.given - before.given
            failed += after.failed - before.failed
            slowness += [0] * (len(after.slowness) - len(slowness))
            for index, count in enumerate(after.slowness):
                slowness[index] += count - (before.slowness[index] if index < len(before.slowness) else 0)
        return Side(given=given, failed=failed, slowness=tuple(slowness))
