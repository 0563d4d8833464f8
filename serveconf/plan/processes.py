"""Deployments that share a process: those of one stack that name the same ``process``. Pure.

A replica of such a process is one replica of each of its deployments. They are started, rolled and replaced together: each
of them has the version of the whole process, and what befalls one replica is seen on those beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from serveconf.code.versions import base_of, edition_of, in_edition
from serveconf.errors import AuthorError
from serveconf.plan.costs import same
from serveconf.plan.state import DesiredDeployment, DesiredStack, Observed, Phase, ReplicaState
from serveconf.spec.models import SHARED

_WORST = (Phase.FAILED, Phase.DRAINING, Phase.UNHEALTHY, Phase.STARTING, Phase.READY)


def process_of(deployment: DesiredDeployment) -> str | None:
    """The name of the process that it shares; None: it has one of its own."""
    name: str | None = deployment.spec.get("process")
    return name


def members(stack: DesiredStack, deployment: DesiredDeployment) -> tuple[DesiredDeployment, ...]:
    """All deployments of the process, this one among them."""
    name = process_of(deployment)
    if name is None:
        return (deployment,)
    return tuple(d for d in stack.deployments if process_of(d) == name)


def leads(stack: DesiredStack, deployment: DesiredDeployment) -> bool:
    """Whether it is the one of its process that speaks for all of it, where something is asked once per process."""
    return members(stack, deployment)[0].name == deployment.name


def with_processes(stack: DesiredStack) -> DesiredStack:
    """The stack with the versions of its processes. Raises AuthorError where deployments of one contradict each other."""
    groups: dict[str, list[DesiredDeployment]] = {}
    for deployment in stack.deployments:
        if (name := process_of(deployment)) is not None:
            groups.setdefault(name, []).append(deployment)
    if not groups:
        return stack
    versions = {}
    for name, group in groups.items():
        _check(name, group)
        base = _version(name, group)
        editions = {
            edition_of(d.version) for d in group if base_of(d.version) == base
        }  # an upgrade has rolled it as it is
        versions[name] = in_edition(base, max(editions)) if any(editions) else base
    deployments = (
        replace(d, version=versions[name]) if (name := process_of(d)) is not None else d for d in stack.deployments
    )
    return replace(stack, deployments=tuple(deployments))


def _version(process: str, group: Sequence[DesiredDeployment]) -> str:
    parts = [process, *(f"{d.name}={d.own_version}" for d in sorted(group, key=lambda d: d.name))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _check(process: str, group: Sequence[DesiredDeployment]) -> None:
    """What the file alone can't tell: options from code, and code packages."""
    first = group[0]
    for other in group[1:]:
        for key in SHARED:
            if not same(first.spec.get(key), other.spec.get(key)):
                raise AuthorError(
                    f"deployments '{first.name}' and '{other.name}' share the process '{process}' and differ in {key}",
                    hint="a process has one of it: say the same for both, or give one of them another process",
                )
        if (first.code, first.app_dir) != (other.code, other.app_dir):
            raise AuthorError(
                f"deployments '{first.name}' and '{other.name}' share the process '{process}' and come from different code",
                hint="apply them together, from one file",
            )
    if any((d.spec.get("rollout") or {}).get("canary") for d in group):
        raise AuthorError(
            f"the process '{process}' has a canary", hint="a canary needs a deployment with a process of its own"
        )


def others_changed(before: DesiredStack | None, after: DesiredStack, deployment: DesiredDeployment) -> tuple[str, ...]:
    """Of the deployments beside it in its process those that have changed, come or gone: why it is rolled too."""
    name = process_of(deployment)
    if before is None or name is None:
        return ()
    was = {d.name: d.own_version for d in before.deployments if process_of(d) == name}
    now = {d.name: d.own_version for d in after.deployments if process_of(d) == name}
    changed = {one for one in was.keys() | now.keys() if was.get(one) != now.get(one)}
    return tuple(sorted(changed - {deployment.name}))


def seen_together(observed: Observed) -> Observed:
    """What is there, as a process is to be handled: the replicas in it share the worst phase among them, and their load.

    One that is itself well, and leaves because another one is not, is marked as ``goes``.
    """
    if not observed.processes:
        return observed
    shared = {process: _shared(replicas) for process, replicas in observed.processes.items()}
    replicas = tuple(_as_one(r, shared[r.process]) if r.process else r for r in observed.replicas)
    return Observed(replicas=replicas, proxies=observed.proxies, standbys=observed.standbys)


def beside(replicas: Iterable[ReplicaState], replica: ReplicaState) -> tuple[ReplicaState, ...]:
    """All replicas of its process, this one among them."""
    if not replica.process:
        return (replica,)
    return tuple(r for r in replicas if r.process == replica.process)


def _shared(replicas: Sequence[ReplicaState]) -> dict[str, Any]:
    phase = min((r.phase for r in replicas), key=_WORST.index)
    message = next((r.message for r in replicas if r.phase is phase and r.message), "")
    return {"phase": phase, "ongoing": sum(r.ongoing for r in replicas), "message": message}


def _as_one(replica: ReplicaState, shared: dict[str, Any]) -> ReplicaState:
    goes = replica.phase is Phase.READY and shared["phase"] is Phase.UNHEALTHY
    innocent = shared["phase"] is Phase.FAILED and replica.phase is not Phase.FAILED
    return replace(replica, **shared, goes=goes or innocent)
