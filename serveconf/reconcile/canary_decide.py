"""What is next for a stack whose target is being tried on a share of the requests: pure.

What serves is kept as if there were no target; beside it stand the replicas of the new versions that the step's share
needs. When they are ready the table may give them that share; what they had before stays until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from msgspec.structs import replace as with_fields

from serveconf.plan.state import DesiredDeployment, ReplicaPhase, ReplicaState
from serveconf.reconcile.canary import CanaryPlan, replicas_for
from serveconf.reconcile.decide import Decision, StackView, decide, target_failure
from serveconf.reconcile.generation import Canary
from serveconf.reconcile.records import CanaryState
from serveconf.routing import Generation, Route


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The target's canaries: their rules, their step, and the routes that they have in the live table."""

    plan: CanaryPlan
    state: CanaryState
    routes: Mapping[str, Route]

    @property
    def replicas(self) -> frozenset[str]:
        """Ids of the replicas that have a share in the live table."""
        return frozenset(replica.id for route in self.routes.values() for replica in route.replicas)


def canary_routes(generation: Generation, stack: str) -> dict[str, Route]:
    """The routes of a stack's canaries, by deployment."""
    return {r.deployment: r for r in generation.routes if r.stack == stack and r.share is not None}


def decide_trial(view: StackView, trial: Trial) -> Decision:
    """What is next for the stack of this view, whose target is being tried."""
    if trial.plan.is_over(trial.state):
        return _promote(view, trial)
    new = {name: _new_replicas(view, trial, name) for name in trial.plan.rules}
    failed = tuple(r for replicas in new.values() for r in replicas if r.phase is ReplicaPhase.FAILED)
    failure = target_failure(view, failed)
    if failure is not None:
        every = frozenset(r.id for r in view.observed.of_stack(view.name))
        return Decision(failed=failed, failure=failure, wanted=every)
    of_new = {replica.id for replicas in new.values() for replica in replicas}
    others = tuple(r for r in view.observed.replicas if r.id not in of_new)
    steady = decide(replace(view, target=None, bakes=False, observed=with_fields(view.observed, replicas=others)))
    start, canaries, complete = [], [], True
    for name, replicas in new.items():
        deployment = _wanted(view, name)
        alive = [r for r in replicas if r.phase in (ReplicaPhase.STARTING, ReplicaPhase.READY)]
        missing = replicas_for(trial.plan.share(name, trial.state.step), deployment) - len(alive)
        if missing > 0:
            start.append((deployment, missing))
        complete &= missing <= 0 and all(r.phase is ReplicaPhase.READY for r in alive)
    begun = trial.state.until is not None
    for name, replicas in new.items():
        ready = tuple(r for r in replicas if r.phase is ReplicaPhase.READY)
        share = trial.plan.share(name, trial.state.step) if complete or begun else _share_now(trial, name)
        if ready and share:
            rule = trial.plan.rules[name]
            canaries.append(Canary(deployment=_wanted(view, name), replicas=ready, share=share, sticky=rule.sticky))
    return replace(
        steady,
        start=(*steady.start, *start),
        canaries=tuple(canaries),
        step_begins=complete and not begun,
        wanted=steady.wanted | of_new,
        failed=(*steady.failed, *failed),
    )


def _promote(view: StackView, trial: Trial) -> Decision:
    """The target is reached as ever; until the table moves, its canaries keep the share that they have."""
    decision = decide(replace(view, sharing=trial.replicas))
    if decision.ready or decision.failure is not None:
        return decision
    kept = []
    for name, route in sorted(trial.routes.items()):
        named = {replica.id for replica in route.replicas}
        ready = [r for r in _new_replicas(view, trial, name) if r.phase is ReplicaPhase.READY and r.id in named]
        if ready and route.share:
            deployment = _wanted(view, name)
            kept.append(Canary(deployment=deployment, replicas=tuple(ready), share=route.share, sticky=route.sticky))
    return replace(decision, canaries=tuple(kept))


def _wanted(view: StackView, name: str) -> DesiredDeployment:
    deployment = view.target.deployment(name) if view.target else None
    assert deployment is not None
    return deployment


def _new_replicas(view: StackView, trial: Trial, name: str) -> tuple[ReplicaState, ...]:
    if name not in trial.plan.versions:
        return ()
    _, version = trial.plan.versions[name]
    return tuple(r for r in view.observed.of(view.name, name) if r.version == version)


def _share_now(trial: Trial, name: str) -> float | None:
    route = trial.routes.get(name)
    return route.share if route is not None else None
