"""The plan: from what a stack is and what it should be to the actions in between. Pure; the controller calls it.

Besides what changed in the spec and the code it finds drift: replicas that are missing, too many, or not what they
should be, and proxies that are gone or listen elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from math import ceil
from typing import Any

from serveconf.code.versions import base_of, edition_of
from serveconf.plan.actions import Action, Plan, Reason, Why
from serveconf.plan.costs import ABSENT, Change, canonical, changes, field_costs
from serveconf.plan.desired import same_http_middlewares, same_middlewares, same_policy
from serveconf.plan.fields import Masks, field_action, fields_changed, files_changed, shown, values_after, values_before
from serveconf.plan.kinds import ActionKind
from serveconf.plan.moving import moves_of, seen_with_names, with_names
from serveconf.plan.processes import others_changed
from serveconf.plan.scaling import rule_of
from serveconf.plan.state import (
    DesiredDeployment,
    DesiredStack,
    Observed,
    ProxyPhase,
    ProxyState,
    ReplicaPhase,
    ReplicaState,
)
from serveconf.spec.models import Cost, DeploymentSpec, HttpOptions, Location

Replicas = Sequence[ReplicaState]


_CHEAPER_THAN_ROLL = (
    (ActionKind.SCALE, Cost.SCALE),
    (ActionKind.RECONFIGURE, Cost.RECONFIGURE),
    (ActionKind.ROUTE, Cost.ROUTE),
    (ActionKind.UPDATE, Cost.NONE),
)
Drift = tuple[Why, dict[str, Any] | None, dict[str, Any] | None]
_ACTION_OF = {Cost.PROXY: ActionKind.PROXY, Cost.ROUTE: ActionKind.ROUTE}
_DEFAULTS: dict[str, Any] = HttpOptions().model_dump(mode="json")
_LIVE = (ProxyPhase.STARTING, ProxyPhase.READY, ProxyPhase.UNHEALTHY)


def make_plan(
    current: DesiredStack | None,
    desired: DesiredStack,
    observed: Observed,
    *,
    listener: str | None = None,
    shared: Mapping[str, Any] | None = None,
) -> Plan:
    """What has to be done so that the stack, which is ``current`` and ``observed``, becomes ``desired``.

    ``listener``: what the cluster's proxies should listen on (``ProxyState.listener``), to find those that do not;
    None: nobody asks. ``shared``: the http_options that the cluster's other stacks set, which hold for this one too.
    """
    moves, as_it_was = moves_of(current, desired), current
    current, observed = with_names(current, moves), seen_with_names(observed, desired.name, moves)
    old_names = {new: old for old, new in moves.items()}
    before = {deployment.name: deployment for deployment in current.deployments} if current else {}
    after = {deployment.name: deployment for deployment in desired.deployments}
    moved = current is not None and current.said_app_dir != desired.said_app_dir
    live = _live_replicas(desired.name, observed)
    actions = list(diff_front(current, desired, observed.proxies, listener, shared or {}))
    for name in sorted(after):
        known = before.get(name)
        if known is None:
            actions.append(_create(after[name]))
        else:
            if (old := old_names.get(name)) is not None:
                actions.append(_move(old, name))
            beside = others_changed(as_it_was, desired, after[name])
            actions += _change(known, after[name], live.get(name, ()), moved=moved, beside=beside)
    if current is not None and current.standbys != desired.standbys:
        actions.append(_standbys(current, desired))
    gone = sorted((before.keys() | live.keys()) - after.keys())
    actions += [_remove(name, before.get(name), live.get(name, ())) for name in gone]
    return Plan(stack=desired.name, base_revision=current.revision if current else 0, actions=tuple(actions))


def _standbys(before: DesiredStack, after: DesiredStack) -> Action:
    change = Change(path="standbys", cost=Cost.NONE, before=before.standbys, after=after.standbys)
    return field_action(ActionKind.UPDATE, None, Cost.NONE, [change], masks=({}, {}))


def _live_replicas(stack: str, observed: Observed) -> Mapping[str, Replicas]:
    live: defaultdict[str, list[ReplicaState]] = defaultdict(list)
    for replica in observed.replicas:
        if replica.stack == stack and replica.phase in (ReplicaPhase.STARTING, ReplicaPhase.READY):
            live[replica.deployment].append(replica)
    return live


def _create(deployment: DesiredDeployment) -> Action:
    return Action(
        action=ActionKind.CREATE,
        deployment=deployment.name,
        cost=Cost.SCALE,
        why=(Why(Reason.NEW),),
        after=_settings(deployment) | _operations(deployment.operations),
    )


def _move(old: str, name: str) -> Action:
    return Action(
        action=ActionKind.ROUTE,
        deployment=name,
        cost=Cost.ROUTE,
        why=(Why(Reason.MOVED, (f"{old} → {name}",)),),
        before={"name": old},
        after={"name": name},
    )


def _settings(deployment: DesiredDeployment) -> dict[str, Any]:
    """What tells a new deployment from any other: where it is, how many, and every field that is not its default."""
    blank = _defaults()
    always = ("import_path", "route_prefix", "num_replicas")
    said = {
        key: shown(value, key, deployment.masks)
        for key, value in deployment.spec.items()
        if key != "name" and (key in always or blank.get(key) != value)
    }
    return said | {"num_replicas": deployment.num_replicas}


@cache
def _defaults() -> dict[str, Any]:
    return DeploymentSpec(name="blank", import_path="blank:blank").model_dump(mode="json")


def _remove(name: str, deployment: DesiredDeployment | None, live: Replicas) -> Action:
    before = {"route_prefix": deployment.prefix} if deployment else {}
    return Action(
        action=ActionKind.REMOVE,
        deployment=name,
        cost=Cost.REMOVE,
        why=(Why(Reason.GONE),),
        before=before | {"replicas": len(live)},
    )


def _change(
    before: DesiredDeployment, after: DesiredDeployment, live: Replicas, *, moved: bool, beside: Sequence[str]
) -> Iterator[Action]:
    """The actions of one deployment that stays, the dearest first. ``beside``: what has changed of its process otherwise."""
    fields: defaultdict[Cost, list[Change]] = defaultdict(list)
    if canonical(before.spec) != canonical(after.spec):
        # a field that is newer than what the store holds was at its default
        for change in changes(_defaults() | before.spec, _defaults() | after.spec, field_costs(DeploymentSpec)):
            fields[change.cost].append(change)
    rolled = before.version != after.version or any(replica.version != after.version for replica in live)
    if rolled:
        yield _roll(before, after, fields[Cost.ROLL], live, moved=moved, beside=beside)
    for action, cost in _CHEAPER_THAN_ROLL:
        if fields[cost]:
            yield field_action(action, after.name, cost, fields[cost], masks=(before.masks, after.masks))
        elif drift := _drift(cost, before, after, live, rolled=rolled):
            why, was, wanted = drift
            yield Action(action=action, deployment=after.name, cost=cost, why=(why,), before=was, after=wanted)


def _roll(
    before: DesiredDeployment,
    after: DesiredDeployment,
    changed: Sequence[Change],
    live: Replicas,
    *,
    moved: bool,
    beside: Sequence[str],
) -> Action:
    """All live replicas are replaced. Operations that go are named in ``before``, those that come in ``after``."""
    why = []
    if code := files_changed(before.modules, after.modules).about:
        why.append(Why(Reason.CODE_CHANGED, code))
    if changed:
        why.append(fields_changed(changed))
    if moved:
        why.append(Why(Reason.SPEC_CHANGED, ("app_dir",)))
    if beside:
        why.append(Why(Reason.PROCESS_CHANGED, tuple(beside)))
    if not why and base_of(before.version) == base_of(after.version) and edition_of(after.version):
        why.append(Why(Reason.UPGRADE, (f"serveconf {edition_of(after.version)}",)))
    if not why:
        others = {replica.version for replica in live} - {after.version} or {before.version}
        why.append(Why(Reason.OTHER_VERSION, tuple(sorted(others))))
    gone = sorted(set(before.operations) - set(after.operations))
    new = sorted(set(after.operations) - set(before.operations))
    counts = {"replicas": after.num_replicas, "surge": _surge(after)}
    return Action(
        action=ActionKind.ROLL,
        deployment=after.name,
        cost=Cost.ROLL,
        why=tuple(why),
        before={"version": before.version, "replicas": len(live)}
        | values_before(changed, before.masks)
        | _operations(gone),
        after={"version": after.version} | counts | values_after(changed, after.masks) | _operations(new),
    )


def _operations(operations: Sequence[str]) -> dict[str, list[str]]:
    return {"operations": list(operations)} if operations else {}


def _surge(deployment: DesiredDeployment) -> int:
    """How many replicas there may be beyond num_replicas during a roll."""
    surge: int | str = deployment.spec.get("rollout", _defaults()["rollout"])["max_surge"]
    if isinstance(surge, str):
        return ceil(deployment.num_replicas * int(surge.removesuffix("%")) / 100)
    return min(surge, deployment.num_replicas)


def _drift(
    cost: Cost, before: DesiredDeployment, after: DesiredDeployment, live: Replicas, *, rolled: bool
) -> Drift | None:
    """What is not as it should be although no field says anything new. Replicas that are rolled are no drift."""
    match cost:
        case Cost.ROUTE if not same_middlewares(before, after):
            return files_changed(before.middleware_modules, after.middleware_modules), None, None
        case Cost.SCALE if before.policy is not None and not same_policy(before, after):
            return files_changed(before.policy_modules, after.policy_modules), None, None
        case Cost.SCALE if not rolled:
            return _count_drift(after, live)
        case Cost.RECONFIGURE if not rolled:
            other = [replica.id for replica in live if replica.config_hash not in ("", after.config_hash)]
            return (Why(Reason.OTHER_CONFIG, tuple(sorted(other))), None, None) if other else None
        case _:
            return None


def _count_drift(deployment: DesiredDeployment, live: Replicas) -> Drift | None:
    least = most = deployment.num_replicas
    if rule := rule_of(deployment.spec):
        least, most = rule.widest.least, rule.widest.most
    there, wanted = len(live), min(max(len(live), least), most)
    if there == wanted:
        return None
    reason = Reason.REPLICAS_MISSING if there < wanted else Reason.REPLICAS_SURPLUS
    why = Why(reason, (f"{there} of {wanted} live",))
    return why, {"replicas": there}, {"replicas": wanted}


def diff_front(
    current: DesiredStack | None,
    desired: DesiredStack,
    proxies: Sequence[ProxyState],
    listener: str | None,
    shared: Mapping[str, Any],
) -> Iterator[Action]:
    """The actions of the front, the dearest first. A key that a file leaves out stands for its default."""
    before = current or DesiredStack(name=desired.name, revision=0)
    fields: dict[Cost, list[Change]] = defaultdict(list)
    base = {**_DEFAULTS, **shared}
    effective = (base | before.http_options, base | desired.http_options)
    for change in changes(*effective, field_costs(HttpOptions)):
        fields[change.cost].append(change)
    if current is None and not any(proxy.phase in _LIVE for proxy in proxies):
        if effective[1]["location"] != Location.NO_SERVER:
            yield _first_front(
                effective[1], [change for changed in fields.values() for change in changed], desired.masks
            )
        return
    for cost, action in _ACTION_OF.items():
        if fields[cost]:
            yield field_action(action, None, cost, fields[cost], masks=(before.masks, desired.masks))
        elif cost is Cost.PROXY and current and (why := _proxy_drift(proxies, listener)):
            yield Action(action=action, deployment=None, cost=cost, why=(why,))
        elif cost is Cost.ROUTE and current and not same_http_middlewares(before, desired):
            why = files_changed(before.http_middleware_modules, desired.http_middleware_modules)
            yield Action(action=action, deployment=None, cost=cost, why=(why,))
    if claims := _claims(before, desired, effective[1]) if current else []:
        yield field_action(ActionKind.UPDATE, None, Cost.NONE, claims, masks=(before.masks, desired.masks))


def _first_front(options: dict[str, Any], said: list[Change], masks: Masks) -> Action:
    """Nothing listens yet: where it will, and what else the file says of the front."""
    place = {key: options[key] for key in ("host", "port")}
    after = {**values_after(said, masks), **place}
    return Action(
        action=ActionKind.PROXY, deployment=None, cost=Cost.PROXY, why=(Why(Reason.NO_PROXY),), before=None, after=after
    )


def _claims(before: DesiredStack, desired: DesiredStack, effective: dict[str, Any]) -> list[Change]:
    """Keys that this file begins or ceases to set, with their default as the value.

    Nothing runs differently, but what one file sets no other stack may contradict, so it has to be recorded.
    """
    return [
        Change(
            path=key,
            cost=Cost.NONE,
            before=before.http_options.get(key, ABSENT),
            after=desired.http_options.get(key, ABSENT),
        )
        for key in sorted(before.http_options.keys() ^ desired.http_options.keys())
        if (_DEFAULTS | before.http_options)[key] == effective[key]
    ]


def _proxy_drift(proxies: Sequence[ProxyState], listener: str | None) -> Why | None:
    if listener is None:
        return None
    live = [proxy for proxy in proxies if proxy.phase in _LIVE]
    if not live:
        return Why(Reason.NO_PROXY)
    other = tuple(sorted(proxy.id for proxy in live if proxy.listener != listener))
    return Why(Reason.OTHER_LISTENER, other) if other else None
