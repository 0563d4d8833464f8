"""The plan's part on http_options: listeners, front middlewares, limits; and proxies that are not what they should be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from serveconf.plan.actions import Action, Reason, Why
from serveconf.plan.costs import ABSENT, Change, changes, field_costs
from serveconf.plan.desired import same_http_middlewares
from serveconf.plan.fields import Masks, field_action, files_changed, values_after
from serveconf.plan.kinds import ActionKind
from serveconf.plan.state import DesiredStack, ProxyPhase, ProxyState
from serveconf.spec.models import Cost, HttpOptions, Location

_ACTION_OF = {Cost.PROXY: ActionKind.PROXY, Cost.ROUTE: ActionKind.ROUTE}
_DEFAULTS: dict[str, Any] = HttpOptions().model_dump(mode="json")
_LIVE = (ProxyPhase.STARTING, ProxyPhase.READY, ProxyPhase.UNHEALTHY)


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
