"""Whether a stack has room: what its replicas ask for against what the nodes have. Pure.

It fits (all new replicas beside the old ones), fits in waves (``DesiredDeployment.room`` says how large they may be),
or does not fit, and then ``DoesNotFit`` says what is missing where.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from msgspec.structs import replace

from serveconf.errors import AuthorError
from serveconf.plan.processes import leads, members
from serveconf.plan.state import DesiredDeployment, DesiredStack, Observed, ReplicaPhase, ReplicaState
from serveconf.reconcile.asked import (
    CRUMB,
    SHARE,
    Group,
    Resources,
    asked_by,
    asked_resources,
    group_of,
    has,
    rank,
    selectors_of,
    summed,
    unmet,
)
from serveconf.reconcile.bundles import how_many, places, take
from serveconf.reconcile.ports import NodeState
from serveconf.reconcile.rollout import limits
from serveconf.spec.models import GroupStrategy

LIVE = (ReplicaPhase.STARTING, ReplicaPhase.READY, ReplicaPhase.UNHEALTHY)


class DoesNotFit(AuthorError):
    """The cluster can't take the replicas of this deployment."""

    code = "does_not_fit"

    def __init__(self, message: str, *, deployment: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.deployment = deployment


def check_placement(desired: DesiredStack, nodes: Sequence[NodeState]) -> None:
    """Raises DoesNotFit for the first deployment of which no node could hold even one replica, saying what is missing where.

    A node that drains counts: what runs there fits in the cluster that there is, and may be moved.
    """
    for deployment in desired.deployments:
        asked, selectors = asked_resources(_actor_options(deployment.spec)), selectors_of(deployment.spec)
        fitting = [node for node in nodes if rank(selectors, node.labels) is not None]
        group = group_of(deployment.spec)
        if not nodes or (group is None and any(has(node.total, asked) for node in fitting)):
            continue
        if not fitting:
            unmets = (unmet(selector, [node.labels for node in nodes]) for selector in selectors)
            why = f": no node has the labels that it asks for: {'; nor '.join(unmets)}"
            hint = "correct ray_actor_options.label_selector, or add a node with these labels"
        elif group is not None:
            if not (why := _group_lacks(group, fitting)):
                continue
            hint = "lower placement_group_bundles, or add nodes that have what is asked for"
        else:
            of = "fits on no node that has its labels" if selectors[0] else "fits on no node"
            why = f" {of}: each replica asks for {_lacking(asked, fitting)}"
            hint = "lower ray_actor_options, or add a node that has what is asked for"
        raise DoesNotFit(f"deployment '{deployment.name}'{why}", deployment=deployment.name, hint=hint)


def _group_lacks(group: Group, nodes: Sequence[NodeState]) -> str:
    """Why a placement group would not fit on these nodes if they were empty; nothing where it would."""
    totals = [node.total for node in nodes]
    if places(group, totals) is not None:
        return ""
    for number, bundle in enumerate(group.bundles, 1):
        if not any(has(total, bundle) for total in totals):
            return f" fits on no node: bundle {number} of its placement group asks for {_lacking(bundle, nodes)}"
    many, fit = len(group.bundles), how_many(group, totals)
    match group.strategy:
        case GroupStrategy.STRICT_PACK:
            together = _lacking(summed(group.bundles), nodes)
            return (
                f" fits on no node: the {many} bundles of its placement group ask together (STRICT_PACK) for {together}"
            )
        case GroupStrategy.STRICT_SPREAD:
            return f" fits on no {many} nodes: each bundle of its placement group takes one (STRICT_SPREAD), and {fit} find one"
        case GroupStrategy.PACK | GroupStrategy.SPREAD:
            return f" fits on no nodes: of the {many} bundles of its placement group {fit} have room at a time"
        case _:
            assert_never(group.strategy)


def missing(spec: Mapping[str, Any], nodes: Sequence[NodeState]) -> str:
    """What one more replica lacks just now, and where; nothing where there is room. Empty too where nobody knows."""
    selectors, group = selectors_of(spec), group_of(spec)
    asked = summed(group.bundles) if group is not None else asked_resources(_actor_options(spec))
    nodes = [node for node in nodes if not node.drains and rank(selectors, node.labels) is not None]
    if group is None and any(has(node.available, asked) for node in nodes):
        return ""
    free = [node.available for node in nodes]
    if not any(free) or (group is not None and places(group, free) is not None):
        return ""
    left = "; ".join(
        f"node {node.id[:8]}: " + ", ".join(f"{name} {max(0, node.available.get(name, 0)):g}" for name in asked)
        for node in sorted(nodes, key=lambda node: node.id)[:8]
    )
    return f"no room just now for a replica that asks for {said_of(spec)} (left: {left})"


def said_of(spec: Mapping[str, Any]) -> str:
    """What one replica asks for, for people."""
    group = group_of(spec)
    if group is not None:
        bundles = " + ".join(_amounts(bundle) for bundle in group.bundles)
        return f"a placement group ({group.strategy}) of {bundles}"
    return _amounts(asked_resources(_actor_options(spec))) or "no resources"


def _amounts(resources: Resources) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in resources.items())


def _lacking(asked: Resources, nodes: Sequence[NodeState]) -> str:
    """What is asked for, with the most that a node has; where each is somewhere and all are nowhere, what is missing where."""
    most = {name: max(node.total.get(name, 0) for node in nodes) for name in asked}
    said = ", ".join(_told(name, asked[name], most[name]) for name in asked)
    if not has(most, asked):
        return said
    missing = (
        f"node {node.ip or node.id[:8]} lacks "
        + ", ".join(name for name in asked if node.total.get(name, 0) < asked[name] - CRUMB)
        for node in nodes[:8]
    )
    return f"{said}, and no node has all of it: {'; '.join(missing)}"


def _told(name: str, asked: float, most: float) -> str:
    kind = name.removeprefix("accelerator_type:")
    if kind != name:
        return f"accelerator_type {kind} ({'a node has it' if most else 'no node has it'})"
    return f"{name} {asked:g} (a node has at most {most:g})"


@dataclass(frozen=True)
class Need:
    """What one deployment needs while it is brought to what it should be."""

    deployment: DesiredDeployment
    new: int  # replicas of the wanted version that are missing
    old: int  # live replicas that go in the end


def fit_in(
    desired: DesiredStack, current: DesiredStack | None, observed: Observed, nodes: Sequence[NodeState]
) -> tuple[DesiredStack, tuple[str, ...]]:
    """The stack as it can be rolled out, and a line for each deployment that has to go in waves. Raises DoesNotFit."""
    check_placement(desired, nodes)
    if not any(node.available for node in nodes):  # nobody knows what is free
        return desired, ()
    nodes = [node for node in nodes if not node.drains]
    live = [r for r in observed.of_stack(desired.name) if r.phase in LIVE]
    needs = [_need(desired, d, observed) for d in desired.deployments if leads(desired, d)]
    if not any(need.new for need in needs):
        return desired, ()
    draining = [r for r in observed.replicas if r.phase is ReplicaPhase.DRAINING]
    shares = _shares([*live, *(r for r in draining if r.stack == desired.name)], desired, current)
    free = _Free(nodes, _held(draining, current), shares)
    _check_in_the_end(needs, _Free(nodes, _held([*draining, *live], current), shares), desired)
    for need in needs:
        if need.new and not need.old and (placed := free.take(need.deployment, need.new)) < need.new:
            raise _no_room(need, placed, free, "lower num_replicas, or take away what is to be replaced first")
    return _waves(desired, [need for need in needs if need.new and need.old], free)


def _need(desired: DesiredStack, deployment: DesiredDeployment, observed: Observed) -> Need:
    """Of one deployment, or of all those in its process."""
    all_live = [r for d in members(desired, deployment) for r in observed.of(desired.name, d.name) if r.phase in LIVE]
    live = _one_each(all_live)
    same = sum(r.version == deployment.version for r in live)
    return Need(deployment, max(0, deployment.num_replicas - same), len(live) - same)


def _one_each(replicas: Sequence[ReplicaState]) -> list[ReplicaState]:
    """One replica for each process that there is."""
    return list({r.process or r.id: r for r in replicas}.values())


def _check_in_the_end(needs: Sequence[Need], free: _Free, desired: DesiredStack) -> None:
    """Raises DoesNotFit where there would be no room even with everything gone that is to go."""
    for need in needs:
        placed = free.take(need.deployment, need.deployment.num_replicas)
        if need.new and placed < need.deployment.num_replicas:
            more = ", raise max_replicas_per_node" if _most(need.deployment) else ""
            new = placed - (need.deployment.num_replicas - need.new)  # those that stay have their places
            raise _no_room(need, max(0, new), free, f"lower num_replicas or ray_actor_options{more}, or add a node")


def _waves(desired: DesiredStack, rolled: Sequence[Need], free: _Free) -> tuple[DesiredStack, tuple[str, ...]]:
    """Deal out what is free, one replica to each in turn, until each has its surge or nothing is left."""
    wanted = {need.deployment.name: min(need.new, max(1, limits(need.deployment)[0])) for need in rolled}
    room = dict.fromkeys(wanted, 0)
    hungry = list(rolled)
    while hungry:
        hungry = [n for n in hungry if room[n.deployment.name] < wanted[n.deployment.name] and free.take(n.deployment)]
        for need in hungry:
            room[need.deployment.name] += 1
    lines, short = [], {}
    for need in rolled:
        name = need.deployment.name
        surge, unavailable = limits(need.deployment)
        if room[name] >= min(need.new, surge):
            continue
        if not room[name] and not unavailable:
            hint = "say rollout.max_unavailable: 1 to let it replace them one by one, or add a node"
            raise _no_room(need, 0, free, hint)
        short[name] = room[name]
        how = f"{room[name]} at a time" if room[name] else "replacing before starting"
        lines.append(f"'{name}' goes in waves, {how}: the cluster has no room for {min(need.new, surge)} new replicas")
    room_of = {d.name: short.get(members(desired, d)[0].name) for d in desired.deployments}
    deployments = (d if room_of[d.name] is None else replace(d, room=room_of[d.name]) for d in desired.deployments)
    return replace(desired, deployments=tuple(deployments)), tuple(lines)


class _Free:
    """What is free on each node. ``take`` uses it up."""

    def __init__(
        self,
        nodes: Sequence[NodeState],
        given_back: Mapping[str, Sequence[Resources]],
        shares: Mapping[str, Mapping[str, float]],
    ) -> None:
        """``shares``: what of a node's whole is taken already, by share and node."""
        self.nodes = {
            node.id: {**node.available, **{name: 1 - taken.get(node.id, 0) for name, taken in shares.items()}}
            for node in nodes
        }
        self._labels = {node.id: node.labels for node in nodes}
        for node_id, released in given_back.items():
            for resources in released if node_id in self.nodes else ():
                for name, amount in resources.items():
                    most = 1.0 if name.startswith(SHARE) else math.inf
                    self.nodes[node_id][name] = min(most, self.nodes[node_id].get(name, 0) + amount)

    def take(self, deployment: DesiredDeployment, count: int = 1) -> int:
        """Place so many replicas, each on the first node that has room, best labels first; returns how many found one."""
        asked, selectors, placed = _asked(deployment), selectors_of(deployment.spec), 0
        ranks = {node_id: rank(selectors, self._labels[node_id]) for node_id in self.nodes}
        best_first = sorted((one for one in ranks if ranks[one] is not None), key=lambda one: ranks[one] or 0)
        if (group := group_of(deployment.spec)) is not None:
            return self._take_groups(group, [self.nodes[node_id] for node_id in best_first], count)
        for node_id in best_first:
            free = self.nodes[node_id]
            while placed < count and has(free, asked):
                for name, amount in asked.items():
                    free[name] -= amount
                placed += 1
        return placed

    def _take_groups(self, group: Group, nodes: list[Resources], count: int) -> int:
        placed = 0
        while placed < count and (where := places(group, nodes)) is not None:
            for node, bundle in zip(where, group.bundles, strict=True):
                take(nodes[node], bundle)
            placed += 1
        return placed

    def left(self, asked: Resources) -> str:
        """What is left of CPUs, GPUs and whatever else is asked for, by node; and how many replicas are there of so many."""
        names = dict.fromkeys(("CPU", "GPU", *(name for name in asked if not name.startswith(SHARE))))
        lines = []
        for node_id, free in sorted(self.nodes.items())[:8]:
            said = [f"{name} {max(0, free.get(name, 0)):g}" for name in names]
            for name in asked.keys() - names.keys():
                said.append(f"{(1 - free[name]) / asked[name]:.0f} of {1 / asked[name]:.0f} replicas")
            lines.append(f"node {node_id[:8]}: {', '.join(said)}")
        return "; ".join(lines)


def _held(replicas: Sequence[ReplicaState], current: DesiredStack | None) -> dict[str, list[Resources]]:
    """What replicas hold, by node; those of other stacks count as nothing."""
    held: dict[str, list[Resources]] = {}
    for replica in _one_each(replicas):
        deployment = current.deployment(replica.deployment) if current and current.name == replica.stack else None
        if deployment is not None:
            group = group_of(deployment.spec)
            if group is None or len(replica.bundle_nodes) != len(group.bundles):
                held.setdefault(replica.node_id, []).append(_asked(deployment))
            else:
                for node_id, bundle in zip(replica.bundle_nodes, group.bundles, strict=True):
                    held.setdefault(node_id, []).append(bundle)
    return held


def _shares(
    replicas: Sequence[ReplicaState], desired: DesiredStack, current: DesiredStack | None
) -> dict[str, dict[str, float]]:
    """Of each share that a deployment asks for: what replicas have taken of it on each node."""
    shares: dict[str, dict[str, float]] = {
        name: {} for d in desired.deployments for name in _asked(d) if name.startswith(SHARE)
    }
    for replica in _one_each(replicas):
        there = [stack.deployment(replica.deployment) for stack in (desired, current) if stack is not None]
        of_it = next((d for d in there if d is not None and d.version == replica.version), None)
        for name, amount in (_asked(of_it) if of_it is not None else {}).items():
            if name in shares:
                shares[name][replica.node_id] = shares[name].get(replica.node_id, 0) + amount
    return shares


def _no_room(need: Need, placed: int, free: _Free, hint: str) -> DoesNotFit:
    asked = _asked(need.deployment)
    most, wanted = _most(need.deployment), need.new
    at_most = f", at most {most} of them on a node" if most else ""
    return DoesNotFit(
        f"there is room for {min(placed, wanted)} of {wanted} new replicas of deployment '{need.deployment.name}', "
        f"each of which asks for {said_of(need.deployment.spec)}{at_most} (left: {free.left(asked)})",
        deployment=need.deployment.name,
        hint=hint,
    )


def _asked(deployment: DesiredDeployment) -> Resources:
    return asked_by(deployment.name, deployment.spec)


def _most(deployment: DesiredDeployment) -> int | None:
    most: int | None = deployment.spec.get("max_replicas_per_node")
    return most


def _actor_options(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    return spec.get("ray_actor_options") or {}
