"""What one look at one stack comes to: pure. From what it should be and what is there, to what is done next.

The loop performs a ``Decision`` and looks again; running it twice on the same view gives the same decision.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from serveconf.plan.moving import Moves
from serveconf.plan.state import DesiredDeployment, DesiredStack, Observed, ReplicaPhase, ReplicaState
from serveconf.reconcile.generation import Canary
from serveconf.reconcile.records import Failure
from serveconf.reconcile.rollout import Wave, next_wave


@dataclass(frozen=True, kw_only=True)
class StackView:
    """One stack as the loop sees it. ``served``: ids of the replicas that the committed table names."""

    name: str
    current: DesiredStack | None
    target: DesiredStack | None
    observed: Observed
    served: frozenset[str]
    front_ready: bool = True  # every proxy that the goal needs is up
    sharing: frozenset[str] = frozenset()  # of those, the ones that have but a share of the requests, as canaries
    leaving: frozenset[str] = frozenset()  # replicas on nodes that will go soon
    bakes: bool = False  # the switch may still be taken back for a while after it was made
    baking: bool = False  # ... and it has been made: the target serves

    @property
    def goal(self) -> DesiredStack | None:
        """What the stack is being brought to."""
        return self.target or self.current


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do next for one stack."""

    start: tuple[tuple[DesiredDeployment, int], ...] = ()  # so many new replicas of each
    reconfigure: tuple[tuple[ReplicaState, DesiredDeployment], ...] = ()
    ready: bool = False  # a target's wave is complete: the table may move
    final: bool = False  # ... and with this move the target is reached
    routes: DesiredStack | None = None  # whose routes the next table has
    serve: tuple[tuple[str, tuple[ReplicaState, ...]], ...] = ()  # deployment -> replicas in the next table
    canaries: tuple[Canary, ...] = ()  # ... and what gets a share of the requests beside them
    step_begins: bool = False  # with this move a canary's step begins
    wanted: frozenset[str] = frozenset()  # replicas that stay; the others drain once the table is out
    failed: tuple[ReplicaState, ...] = ()  # ended, and to be cleared away
    failure: Failure | None = None  # the target can't be reached


def decide(view: StackView) -> Decision:
    """What to do next for the stack."""
    mine = view.observed.of_stack(view.name)
    failed = tuple(r for r in mine if r.phase is ReplicaPhase.FAILED)
    failure = target_failure(view, failed)
    if failure is not None:
        return Decision(failed=failed, failure=failure, wanted=frozenset(r.id for r in mine))
    goal = view.goal
    deployments = goal.deployments if goal else ()
    waves = {d.name: next_wave(d, view.observed.of(view.name, d.name), view.served, view.leaving) for d in deployments}
    stale = tuple((r, d) for d in deployments for r in _misconfigured(d, view.observed.of(view.name, d.name)))
    complete = view.front_ready and not stale and all(wave.complete for wave in waves.values())
    final = complete and all(wave.final for wave in waves.values())
    switching = view.target is not None and complete
    routes = view.target if view.baking or (switching and final) else view.current
    serve = _serve(view, routes, waves, moved=switching)
    return Decision(
        start=tuple((d, waves[d.name].start) for d in deployments if waves[d.name].start),
        reconfigure=stale,
        ready=switching,
        final=switching and final,
        routes=routes,
        serve=tuple(serve.items()),
        wanted=_wanted(view, deployments, serve) | _spared(view, reached=switching and final),
        failed=failed,
    )


def as_served(decision: Decision, current: DesiredStack | None, moves: Moves) -> Decision:
    """A decision that leaves the routes as they are: what is to be moved is served under the name that it still has."""
    old_names = {new: old for old, new in moves.items()}
    serve = tuple((old_names.get(name, name), replicas) for name, replicas in decision.serve)
    return replace(decision, routes=current, serve=serve)


def target_failure(view: StackView, failed: tuple[ReplicaState, ...]) -> Failure | None:
    """A replica that was started for the target and ended before it served means that the target can't be reached.

    Not so one that was cut short: whatever ended a process that had been waiting, the next one starts without it.
    """
    if view.target is None:
        return None
    for replica in sorted(failed, key=lambda r: r.goes):  # of a process the one that made the others fail
        deployment = view.target.deployment(replica.deployment)
        before = view.current.deployment(replica.deployment) if view.current else None
        new = deployment is not None and deployment.version == replica.version
        ran_before = before is not None and before.version == replica.version
        if new and not ran_before and replica.id not in view.served and not replica.cut_short:
            message, _, traceback = replica.message.partition("\n")
            return Failure(
                code=replica.code or "replica_failed",
                message=message,
                deployment=replica.deployment,
                traceback=traceback,
            )
    return None


def _misconfigured(deployment: DesiredDeployment, replicas: tuple[ReplicaState, ...]) -> list[ReplicaState]:
    return [
        r
        for r in replicas
        if r.phase is ReplicaPhase.READY and r.version == deployment.version and r.config_hash != deployment.config_hash
    ]


def _serve(
    view: StackView, routes: DesiredStack | None, waves: dict[str, Wave], *, moved: bool
) -> dict[str, tuple[ReplicaState, ...]]:
    """Which replicas answer for each routed deployment: the wave's, where the table may move, else what serves already."""
    serve = {}
    held = view.served - view.sharing
    for deployment in routes.deployments if routes else ():
        wave = waves.get(deployment.name)
        settled = view.target is None and wave is not None and wave.complete
        if wave is not None and (moved or settled):
            serve[deployment.name] = wave.serve
        else:
            replicas = view.observed.of(view.name, deployment.name)
            serve[deployment.name] = _hold(deployment, replicas, held)
    return serve


def _hold(
    deployment: DesiredDeployment, replicas: tuple[ReplicaState, ...], served: frozenset[str]
) -> tuple[ReplicaState, ...]:
    """What serves already and still lives; where that is too little, ready replicas of the same version fill up."""
    ready = [r for r in replicas if r.phase is ReplicaPhase.READY or (r.goes and r.phase is ReplicaPhase.UNHEALTHY)]
    held = [r for r in ready if r.id in served]
    spare = [r for r in ready if r.id not in served and r.version == deployment.version and not r.goes]
    return (*held, *spare[: max(0, deployment.num_replicas - len(held))])


def _spared(view: StackView, *, reached: bool) -> frozenset[str]:
    """What served before the switch, while the switch may still be taken back."""
    if view.current is None or not (view.baking or (view.bakes and reached)):
        return frozenset()
    return frozenset(
        replica.id
        for deployment in view.current.deployments
        for replica in view.observed.of(view.name, deployment.name)
        if replica.version == deployment.version and replica.phase is ReplicaPhase.READY
    )


def _wanted(
    view: StackView, deployments: tuple[DesiredDeployment, ...], serve: dict[str, tuple[ReplicaState, ...]]
) -> frozenset[str]:
    wanted = {r.id for replicas in serve.values() for r in replicas}
    for deployment in deployments:
        of_version = [
            r
            for r in view.observed.of(view.name, deployment.name)
            if r.version == deployment.version
            and r.phase in (ReplicaPhase.STARTING, ReplicaPhase.READY)
            and r.id not in view.leaving
        ]
        if len(of_version) > deployment.num_replicas:
            of_version.sort(key=lambda r: (r.id not in wanted, r.phase is not ReplicaPhase.READY, r.id))
        wanted.update(r.id for r in of_version[: deployment.num_replicas])
    return frozenset(wanted)
