"""The contract's status, routes and history as JSON data: pure, from the ledger and what is observed."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from serveconf import __version__
from serveconf.matching import rule_texts
from serveconf.plan.moving import moves_of, seen_on_the_way, with_names
from serveconf.plan.state import (
    DesiredDeployment,
    DesiredStack,
    Observed,
    ProxyState,
    ReplicaPhase,
    ReplicaState,
    StandbyState,
)
from serveconf.reconcile.canary import canary_of, told_by
from serveconf.reconcile.origin import origin_of
from serveconf.reconcile.records import Ledger, Revision, StackHead
from serveconf.routing import Generation

Autoscaling = Callable[[str, str], dict[str, Any] | None]  # (stack, deployment): the contract's ``autoscaling``


def make_status(
    ledger: Ledger,
    observed: Observed,
    *,
    pid: int,
    address: str,
    silent_s: float | None = None,
    autoscaling: Autoscaling = lambda *_: None,
    warnings: Mapping[str, list[str]] = {},
    data: Mapping[str, list[str]] = {},
) -> dict[str, Any]:
    """Stacks, deployments, replicas, proxies, their states and the generation. ``silent_s``: for so long the engine has not
    answered. ``warnings`` and ``data`` (what its replicas
    were seen to write below app_dir): by stack."""
    waiting: list[ProxyState | StandbyState] = [p for p in observed.proxies if p.stands_by]
    waiting += sorted(observed.standbys, key=lambda s: s.id)
    return {
        "generation": ledger.generation.number,
        "controller": {"pid": pid, "address": address, "serveconf": __version__, "silent_s": silent_s},
        "proxies": [
            {
                "id": p.id,
                "node_id": p.node_id,
                "pid": p.pid,
                "state": p.phase.value,
                "generation": p.generation,
                "address": p.address,
                "serveconf": p.serveconf,
            }
            for p in sorted(observed.proxies, key=lambda p: p.id)
            if not p.stands_by
        ],
        "standbys": [
            {
                "id": s.id,
                "node_id": s.node_id,
                "pid": s.pid,
                "kind": s.kind if isinstance(s, StandbyState) else "proxy",
                "state": s.phase.value,
                "serveconf": s.serveconf,
            }
            for s in waiting
        ],
        "stacks": [
            {
                **_stack(ledger, head, observed, autoscaling),
                "data": data.get(name, []),
                "warnings": warnings.get(name, []),
            }
            for name, head in sorted(ledger.heads.items())
        ],
    }


def make_routes(generation: Generation) -> dict[str, str]:
    """The live table."""
    return {
        text: route.deployment
        for route in generation.routes
        if route.prefix and route.share is None
        for text in rule_texts(route.prefix, route.match)
    }


def make_history(revisions: Sequence[Revision]) -> list[dict[str, Any]]:
    """One line per revision."""
    return [
        {
            "revision": r.number,
            "stack": r.stack,
            "time": _time(r.time),
            "author": r.author,
            "token": r.token,
            "automatic": r.automatic,
            "source": r.source,
            "commit": r.commit,
            "outcome": r.outcome,
            "summary": r.summary,
        }
        for r in revisions
    ]


def _stack(ledger: Ledger, head: StackHead, observed: Observed, autoscaling: Autoscaling) -> dict[str, Any]:
    current, target = ledger.current(head.name), ledger.target(head.name)
    observed = seen_on_the_way(observed, head.name, current, target)
    current = with_names(current, moves_of(current, target)) if target is not None else current
    shown = {d.name: d for stack in (target, current) if stack is not None for d in stack.deployments}
    failed = _last_failure(head, ledger)
    canaries = _canaries(head, current, target)
    deployments = [
        {
            **_deployment(d, current, target, observed.of(head.name, d.name), failed.get(name, "")),
            "autoscaling": autoscaling(head.name, name),
            "canary": canaries.get(name),
        }
        for name, d in sorted(shown.items())
    ]
    return {
        "name": head.name,
        "state": _stack_state(head, ledger, [d["state"] for d in deployments]),
        "revision": head.current if head.current is not None else head.target,
        "source": origin_of(ledger, head),
        "deployments": deployments,
    }


def _canaries(head: StackHead, current: DesiredStack | None, target: DesiredStack | None) -> dict[str, dict[str, Any]]:
    """Where the deployments of a target that tries itself are: the step, the share, and until when at least."""
    plan = canary_of(current, target) if target is not None and head.canary is not None else None
    if plan is None or head.canary is None:
        return {}
    state = head.canary
    return {
        name: {
            "step": min(state.step + 1, plan.steps),
            "percent": plan.share(name, state.step),
            "until": _time(state.until) if state.until is not None else None,
            "message": told_by(plan, state),
        }
        for name in plan.rules
    }


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _last_failure(head: StackHead, ledger: Ledger) -> dict[str, str]:
    """Deployment -> what the last apply failed of, until another one begins."""
    last = ledger.revision(head.name, head.last)
    if head.target is not None or last is None or last.failure is None or last.failure.deployment is None:
        return {}
    if _serves_what_was_said_last(head):
        return {}
    return {last.failure.deployment: f"revision {last.number} was not applied: {last.failure.message}"}


def _stack_state(head: StackHead, ledger: Ledger, states: list[str]) -> str:
    if head.deleting:
        return "Deleting"
    if head.target is not None:
        return "Progressing"
    for state in ("Failed", "Degraded", "Progressing", "Pending"):
        if state in states:
            return state
    if head.invalid:
        return "Invalid"
    if head.pinned:
        return "Pinned"
    last = ledger.revision(head.name, head.last)
    if last is not None and last.outcome in ("rolled_back", "timeout") and not _serves_what_was_said_last(head):
        return "RolledBack"
    return "Healthy"


def _serves_what_was_said_last(head: StackHead) -> bool:
    """A file that was set right after a failure asks for what serves: nothing is left of the failure but its record."""
    return head.confirmed is not None and head.confirmed.last == head.last


def _deployment(
    deployment: DesiredDeployment,
    current: DesiredStack | None,
    target: DesiredStack | None,
    replicas: tuple[ReplicaState, ...],
    failed: str,
) -> dict[str, Any]:
    goal = target or current
    wanted = goal.deployment(deployment.name) if goal else None
    return {
        "name": deployment.name,
        "state": _deployment_state(wanted, replicas, moving=target is not None),
        "route_prefix": deployment.prefix,
        "version": deployment.version,
        "message": next((r.message.partition("\n")[0] for r in replicas if r.message), failed),
        "replicas": [
            {
                "id": r.id,
                "state": r.phase.value,
                "pid": r.pid,
                "node_id": r.node_id,
                "version": r.version,
                "ongoing": r.ongoing,
                "started": _time(r.started) if r.started else None,
                "node": r.host or None,
                "serveconf": r.serveconf,
            }
            for r in sorted(replicas, key=lambda r: r.id)
        ],
    }


def _deployment_state(wanted: DesiredDeployment | None, replicas: tuple[ReplicaState, ...], *, moving: bool) -> str:
    if wanted is None:
        return "Deleting"
    ready = [r for r in replicas if r.phase is ReplicaPhase.READY and r.version == wanted.version]
    if len(ready) >= wanted.num_replicas:
        return "Healthy"
    if moving:
        return "Progressing"
    if ready:
        return "Degraded"
    if any(r.phase in (ReplicaPhase.FAILED, ReplicaPhase.UNHEALTHY) for r in replicas):
        return "Failed"
    return "Degraded" if replicas else "Pending"
