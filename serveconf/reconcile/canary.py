"""A canary's way: which deployments try a change first, on what share, and what one look at their answers comes to.

No clock and no cluster: a pass hands in whether a step's time is up, and what every proxy has counted of both sides.
``plan.canary`` judges; here a stack's canaries are led through their steps together, since a stack moves as one. What has no
canary of its own moves with the promotion, so that taking a canary back changes nothing for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any

import msgspec
from msgspec.structs import replace

from serveconf.figures import Side
from serveconf.plan.actions import Action, Plan
from serveconf.plan.canary import CanaryRule, Evidence, look, p95, rule_of, why_worse
from serveconf.plan.kinds import ActionKind
from serveconf.plan.moving import moves_of, with_names
from serveconf.plan.state import DesiredDeployment, DesiredStack
from serveconf.reconcile.placement import DoesNotFit
from serveconf.reconcile.records import CanaryState, Failure
from serveconf.reconcile.rollout import limits

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

    def is_over(self, state: CanaryState) -> bool:
        """Whether the last step is past: the new versions are on their way to get everything."""
        return state.step >= self.steps

    def share(self, deployment: str, step: int) -> float:
        """The percentage that its new version gets in a step; who has fewer steps stays at the last one."""
        steps = self.rules[deployment].steps
        return steps[min(step, len(steps) - 1)]


class Stay(msgspec.Struct, frozen=True, kw_only=True):
    """The step goes on."""

    message: str


class NextStep(msgspec.Struct, frozen=True, kw_only=True):
    """The next step is to begin; past the last one that is the promotion."""

    step: int


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


def with_canaries(plan: Plan, current: DesiredStack | None, target: DesiredStack) -> Plan:
    """The plan with what is tried before it serves: the shares that a rolled deployment's new version goes through.

    Raises DoesNotFit where there is no room for a replica of it beside the old ones.
    """
    canary = canary_of(current, target)
    rules = canary.rules if canary is not None else {}
    for deployment in target.deployments:
        if deployment.name in rules and limits(deployment)[0] == 0:
            raise DoesNotFit(
                f"deployment '{deployment.name}' has a canary, and there is no room for a replica beside the old ones",
                deployment=deployment.name,
                hint="make room, or leave rollout.canary out of this change",
            )

    def told(action: Action) -> Action:
        rule = rules.get(action.deployment or "") if action.action is ActionKind.ROLL else None
        if rule is None:
            return action
        return replace(action, after={**(action.after or {}), "canary": {"steps": rule.steps, "step_s": rule.step_s}})

    return replace(plan, actions=tuple(map(told, plan.actions)))


def untried(current: DesiredStack | None, target: DesiredStack) -> tuple[str, ...]:
    """A line for each deployment that would be tried on a share of the requests, were it not renamed in the same change."""
    moved = with_names(current, moves_of(current, target))
    rules = canary_of(moved, target)
    names = rules.rules.keys() - {d.name for d in current.deployments} if rules and current else ()
    why = "a canary needs the version before it under the same name; apply the new name by itself first"
    return tuple(f"'{name}' is rolled at once: {why}" for name in sorted(names))


def replicas_for(share: float, deployment: DesiredDeployment) -> int:
    """How many replicas of the new version a share needs, within max_surge; the old one keeps all of its own."""
    surge, _ = limits(deployment)
    return max(1, min(ceil(deployment.num_replicas * share / 100), surge))


def told_by(plan: CanaryPlan, state: CanaryState) -> str:
    """In which step they are, in words."""
    if plan.is_over(state):
        return "all of the requests go to the new version as soon as its replicas are ready"
    shares = ", ".join(f"{name} {plan.share(name, state.step):g} %" for name in sorted(plan.rules))
    return f"step {state.step + 1} of {plan.steps}: {shares}"


class Watch:
    """What is known of the canaries of one apply. A controller that comes back begins a new one, and goes on with the step."""

    def __init__(self, plan: CanaryPlan) -> None:
        self._plan = plan
        self._last: Reading = {}
        self._begun = False
        self._step = -1
        self._answered: dict[str, int] = {}  # by the new version in this step
        self.evidence = {name: Evidence() for name in plan.rules}

    def look(self, state: CanaryState, reading: Reading, *, is_over: bool) -> Verdict:
        """What this reading comes to. ``is_over``: the step's time is up."""
        if state.step != self._step:
            self._step = state.step
            self._answered = dict.fromkeys(self._plan.rules, 0)
        last, self._last = self._last, {**self._last, **reading}  # one that did not answer is read on from where it was
        begun, self._begun = self._begun, True
        if begun:
            for name, rule in self._plan.rules.items():
                old, new = (self._since(last, reading, name, version) for version in self._plan.versions[name])
                self._answered[name] += new.given
                self.evidence[name] = look(self.evidence[name], old, new, rule)
                if why := why_worse(self.evidence[name], rule):
                    hint = f"'serveconf logs {name}' shows what it wrote"
                    return TakeBack(failure=Failure(code="canary", message=why, deployment=name, hint=hint))
        if state.until is None or not is_over:
            return Stay(message=told_by(self._plan, state))
        for name, rule in self._plan.rules.items():
            if self._answered[name] < rule.min_requests:
                asked = f"{self._answered[name]} of min_requests {rule.min_requests} have been answered"
                return Stay(message=f"{told_by(self._plan, state)}; {name}: {asked}")
        return NextStep(step=state.step + 1)

    def told(self) -> list[dict[str, Any]]:
        """What both versions of each have answered, for the receipt."""
        return [
            {"deployment": name, "old": _figures(self.evidence[name].old), "new": _figures(self.evidence[name].new)}
            for name in sorted(self._plan.rules)
        ]

    def _since(self, last: Reading, now: Reading, deployment: str, version: str) -> Side:
        """What all proxies together have answered between two readings; a process that is new began with nothing."""
        key = f"{self._plan.stack}/{deployment}@{version}"
        given = failed = 0
        slowness: list[int] = []
        for before, after in _readings(last, now, key):
            given += after.given - before.given
            failed += after.failed - before.failed
            slowness += [0] * (len(after.slowness) - len(slowness))
            for index, count in enumerate(after.slowness):
                slowness[index] += count - (before.slowness[index] if index < len(before.slowness) else 0)
        return Side(given=given, failed=failed, slowness=tuple(slowness))


def _readings(last: Reading, now: Reading, key: str) -> Iterator[tuple[Side, Side]]:
    """Of each process that has counted it: before and now. What has become less was begun anew."""
    for process, counted in now.items():
        after = counted.get(key)
        if after is not None:
            before = last.get(process, {}).get(key, Side())
            yield before if before.given <= after.given else Side(), after


def _figures(side: Side) -> dict[str, Any]:
    return {"requests": side.given, "failed": side.failed, "p95_ms": round(p95(side.slowness) * 1000, 3)}
