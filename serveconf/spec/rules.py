"""Rules between fields, on the merged data of a spec. The data may be wrong in itself, so nothing here trusts a type.

Each rule yields ``Finding``s; the loader gives them their places.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from serveconf.spec.claims import Claim, Lost, claims_of, lost_claims
from serveconf.spec.groups import group_conflicts
from serveconf.spec.models import SHARED, AutoscalingConfig, DeploymentOptions, DeploymentSpec, RolloutSpec
from serveconf.spec.scaling import AUTO_MAX_REPLICAS


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A contradiction. ``{first}`` in the message stands for the place of ``first``."""

    path: str
    message: str
    code: str
    hint: str | None = None
    severity: str = "error"
    first: str | None = None


def check_rules(data: dict[str, Any]) -> Iterator[Finding]:
    """All contradictions of a spec's data."""
    deployments = data.get("deployments")
    entries = [
        (f"deployments[{index}]", entry)
        for index, entry in enumerate(deployments if isinstance(deployments, list) else [])
        if isinstance(entry, dict)
    ]
    yield from _duplicate_names(entries)
    yield from _duplicate_claims(entries)
    yield from _mirrors(entries)
    yield from _moves(data.get("moved"), entries)
    options = data.get("http_options")
    yield from _certificates(options if isinstance(options, dict) else {})
    front_timeout = options.get("request_timeout_s") if isinstance(options, dict) else None
    for path, entry in entries:
        yield from _scaling(path, entry)
        yield from _rollout(path, entry)
        yield from _canary(path, entry)
        yield from _affinity(path, entry)
        yield from _timeouts(path, entry, front_timeout)
        yield from _nodes(path, entry)
        for one in group_conflicts(entry):
            first = f"{path}.{one.first}" if one.first else None
            yield Finding(path=f"{path}.{one.key}", message=one.message, code="conflict", hint=one.hint, first=first)
    yield from _processes(entries)


def _processes(entries: list[tuple[str, dict[str, Any]]]) -> Iterator[Finding]:
    """Deployments that share a process agree in what a process has but one of."""
    firsts: dict[str, tuple[str, dict[str, Any]]] = {}
    for path, entry in entries:
        process = entry.get("process")
        if not isinstance(process, str):
            continue
        if isinstance(rollout := entry.get("rollout"), dict) and isinstance(rollout.get("canary"), dict):
            message = "a canary needs a process of its own, and process is '" + process + "' at {first}"
            here = f"{path}.rollout.canary"
            yield Finding(path=here, message=message, code="conflict", first=f"{path}.process")
        first_path, first = firsts.setdefault(process, (path, entry))
        for key in SHARED if first is not entry else ():
            one, other = _meaning(key, first), _meaning(key, entry)
            if one != other and None not in (one, other):
                yield Finding(
                    path=f"{path}.{key}" if key in entry else f"{path}.process",
                    message=f"the process '{process}' has one {key} for all of its deployments, and at {{first}} it is another",
                    code="conflict",
                    hint="say the same for both, or give this one another process",
                    first=f"{first_path}.{key}" if key in first else f"{first_path}.process",
                )


def _meaning(key: str, entry: dict[str, Any]) -> tuple[Any] | None:
    """The value with its defaults filled in; None where it is wrong in itself, which is said elsewhere."""
    try:
        options = DeploymentOptions.model_validate({key: entry[key]} if key in entry else {})
    except ValidationError:
        return None
    return (getattr(options, key),)


def _certificates(options: dict[str, Any]) -> Iterator[Finding]:
    """A certificate has its key, a key its certificate; what TLS alone can do needs both."""
    cert, key = options.get("ssl_certfile"), options.get("ssl_keyfile")
    if cert and not key:
        message = "a certificate without its key"
        yield Finding(path="http_options.ssl_certfile", message=message, code="tls", hint="set ssl_keyfile too")
    if key and not cert:
        message = "a key without its certificate"
        yield Finding(path="http_options.ssl_keyfile", message=message, code="tls", hint="set ssl_certfile too")
    if options.get("ssl_keyfile_password") and not key:
        message = "a password without the key that it opens"
        yield Finding(path="http_options.ssl_keyfile_password", message=message, code="tls", hint="set ssl_keyfile too")
    for name in ("ssl_ca_certs", "http2"):
        if options.get(name) and not cert:
            message = "works over TLS only"
            hint = "set ssl_certfile and ssl_keyfile"
            yield Finding(path=f"http_options.{name}", message=message, code="tls", hint=hint)


def _duplicate_names(entries: list[tuple[str, dict[str, Any]]]) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for path, entry in entries:
        name = entry.get("name")
        if not isinstance(name, str):
            continue
        if name in seen:
            message = f"the name '{name}' is taken, first at {{first}}"
            yield Finding(path=f"{path}.name", message=message, code="duplicate_name", first=f"{seen[name]}.name")
        seen.setdefault(name, path)


def _duplicate_claims(entries: list[tuple[str, dict[str, Any]]]) -> Iterator[Finding]:
    """Two deployments that ask for exactly the same requests; and requests that another always takes first."""
    seen: dict[frozenset[Claim], tuple[str, Any]] = {}
    claims: dict[str, frozenset[Claim]] = {}
    places: dict[str, str] = {}
    for path, entry in entries:
        name = entry.get("name")
        own = "route_prefix" in entry
        prefix = entry["route_prefix"] if own else f"/{name}" if isinstance(name, str) else None
        asked = claims_of(prefix, entry.get("match"))
        if not asked:
            continue
        here = f"{path}.{'route_prefix' if own else 'name'}"
        if asked in seen and (own or entry.get("match") or seen[asked][1] != name):
            # ... but for two of one name, which were reported already
            yield _taken(path, here, prefix, own, seen[asked][0], entry.get("match"))
        elif isinstance(name, str) and name not in claims:
            claims[name] = asked
            places[name] = f"{path}.match" if entry.get("match") else here
        seen.setdefault(asked, (f"{path}.match" if entry.get("match") else here, name))
    yield from _unreachable(claims, places)


def _taken(path: str, here: str, prefix: Any, own: bool, first: str, match: Any) -> Finding:
    if match:
        message = "asks for exactly the same requests as the deployment at {first}"
        return Finding(path=f"{path}.match", message=message, code="duplicate_match", first=first)
    message, hint = f"the prefix '{prefix}' is taken, first at {{first}}", None if own else "set route_prefix"
    return Finding(path=here, message=message, code="duplicate_prefix", hint=hint, first=first)


def _unreachable(claims: dict[str, frozenset[Claim]], places: dict[str, str]) -> Iterator[Finding]:
    """One finding for each deployment that others take requests from, by the order of precedence alone."""
    by_loser: dict[str, list[Lost]] = {}
    for lost in lost_claims(claims):
        by_loser.setdefault(lost.loser, []).append(lost)
    for loser, those in by_loser.items():
        winner = those[0].winner
        if len(those) == len(claims[loser]):
            message = f"no request can reach it: '{winner}' at {{first}} takes all of them first"
        else:
            more = f" and {len(those) - 1} more" if len(those) > 1 else ""
            message = f"{those[0].claim}{more} cannot reach it: '{winner}' at {{first}} takes that first"
        hint = "where two ask for the same, the name that comes first takes it; make one of them more specific"
        place = places[loser]
        yield Finding(
            path=place, message=message, code="unreachable", hint=hint, severity="warning", first=places[winner]
        )


def _mirrors(entries: list[tuple[str, dict[str, Any]]]) -> Iterator[Finding]:
    """A mirror names another deployment of the stack."""
    names = {entry.get("name") for _, entry in entries if isinstance(entry.get("name"), str)}
    for path, entry in entries:
        mirror = entry.get("mirror")
        target = mirror.get("deployment") if isinstance(mirror, dict) else None
        if not isinstance(target, str):
            continue
        here = f"{path}.mirror.deployment"
        if target == entry.get("name"):
            message = "a deployment cannot be its own mirror"
            yield Finding(path=here, message=message, code="mirror", hint="name another deployment of the stack")
        elif target not in names:
            hint = "the deployments are: " + ", ".join(sorted(map(str, names)))
            yield Finding(path=here, message=f"there is no deployment '{target}'", code="mirror", hint=hint)


def _moves(moved: Any, entries: list[tuple[str, dict[str, Any]]]) -> Iterator[Finding]:
    """What is moved is declared under its new name and no more under its old one; nothing is moved twice, or in a circle."""
    blocks = [
        (f"moved[{index}]", block["from"], block["to"])
        for index, block in enumerate(moved if isinstance(moved, list) else [])
        if isinstance(block, dict) and isinstance(block.get("from"), str) and isinstance(block.get("to"), str)
    ]
    names = {entry["name"]: path for path, entry in reversed(entries) if isinstance(entry.get("name"), str)}
    befores, afters = ({block[side]: block[0] for block in reversed(blocks)} for side in (1, 2))
    next_of = {old: new for _, old, new in reversed(blocks)}
    for path, old, new in blocks:
        if befores[old] != path:
            message = f"'{old}' is moved already, at {{first}}"
            yield Finding(path=f"{path}.from", message=message, code="moved", first=f"{befores[old]}.from")
        elif afters[new] != path:
            message = f"something else is moved to '{new}' already, at {{first}}"
            yield Finding(path=f"{path}.to", message=message, code="moved", first=f"{afters[new]}.to")
        elif _goes_round(old, next_of):
            message = "leads back to itself" if old != new else "is the same name"
            yield Finding(path=f"{path}.to", message=message, code="moved", hint="take the item away")
        elif old in names:
            message = f"'{old}' is still declared, at {{first}}"
            hint = f"a deployment that is moved is declared as '{new}' only"
            yield Finding(path=f"{path}.from", message=message, code="moved", hint=hint, first=f"{names[old]}.name")
        elif new not in names and new not in befores:
            hint = "the deployments are: " + ", ".join(sorted(names))
            yield Finding(path=f"{path}.to", message=f"there is no deployment '{new}'", code="moved", hint=hint)


def _goes_round(name: str, next_of: dict[str, str]) -> bool:
    seen, at = {name}, next_of.get(name)
    while at is not None and at not in seen:
        seen.add(at)
        at = next_of.get(at)
    return at == name


def _number(value: Any, default: Any = None) -> float | None:
    """The value as a number; the default where nothing was said; None where what was said is no number."""
    value = default if value is None else value
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _scaling(path: str, entry: dict[str, Any]) -> Iterator[Finding]:
    config, count = entry.get("autoscaling_config"), entry.get("num_replicas")
    if not isinstance(config, dict):
        return
    path = f"{path}.autoscaling_config"
    if count is not None and count != "auto":
        message = "contradicts num_replicas at {first}"
        first = path.replace("autoscaling_config", "num_replicas")
        yield Finding(path=path, message=message, code="conflict", hint="keep one of the two", first=first)
    fields = AutoscalingConfig.model_fields
    low = _number(config.get("min_replicas"), fields["min_replicas"].default)
    most = AUTO_MAX_REPLICAS if count == "auto" else fields["max_replicas"].default
    high = _number(config.get("max_replicas"), most)
    yield from _bounds(path, config, low, high)
    yield from _unmet(path, entry, config)
    schedule = config.get("schedule")
    for index, window in enumerate(schedule if isinstance(schedule, list) else []):
        if isinstance(window, dict):
            yield from _window(f"{path}.schedule[{index}]", window, low, high)


def _bounds(path: str, config: dict[str, Any], low: float | None, high: float | None) -> Iterator[Finding]:
    """min, initial and max are in this order."""
    start = _number(config.get("initial_replicas"))
    if low is None or high is None:
        return
    if low > high:
        key = "min_replicas" if "min_replicas" in config else "max_replicas"
        message = f"min_replicas ({low}) is greater than max_replicas ({high})"
        yield Finding(path=f"{path}.{key}", message=message, code="conflict")
    elif start is not None and not low <= start <= high:
        message = f"initial_replicas ({start}) is not between min_replicas ({low}) and max_replicas ({high})"
        yield Finding(path=f"{path}.initial_replicas", message=message, code="conflict")
    elif low == high and "max_replicas" not in config and not config.get("schedule"):
        message = f"the number of replicas is always {low}: max_replicas is left out"
        yield Finding(path=path, message=message, code="conflict", hint="set max_replicas", severity="warning")


def _unmet(path: str, entry: dict[str, Any], config: dict[str, Any]) -> Iterator[Finding]:
    """What is said and can have no effect."""
    fields = AutoscalingConfig.model_fields
    target = _number(config.get("target_ongoing_requests"), fields["target_ongoing_requests"].default)
    limit = _number(entry.get("max_ongoing_requests"))
    if target is not None and limit is not None and limit < target:
        message = f"a replica takes {limit:g} requests at a time, fewer than the target of {target:g}"
        hint = "raise it, or leave it out: it is then 1.5 × target_ongoing_requests"
        where = path.replace("autoscaling_config", "max_ongoing_requests")
        yield Finding(path=where, message=message, code="conflict", hint=hint, severity="warning")
    schedule = config.get("schedule")
    windows = [one for one in schedule if isinstance(one, dict)] if isinstance(schedule, list) else []
    least = [config.get("min_replicas"), *(window.get("min_replicas") for window in windows)]
    if config.get("downscale_to_zero_delay_s") is not None and 0 not in least:
        message = "there is never none: min_replicas is not 0"
        here = f"{path}.downscale_to_zero_delay_s"
        yield Finding(path=here, message=message, code="conflict", hint="set min_replicas: 0", severity="warning")


def _window(path: str, window: dict[str, Any], low: float | None, high: float | None) -> Iterator[Finding]:
    """A part of the week says something, and its bounds go with those that it leaves as they are."""
    own_low, own_high = window.get("min_replicas"), window.get("max_replicas")
    if own_low is None and own_high is None:
        message = "it changes nothing: neither min_replicas nor max_replicas is set"
        yield Finding(path=path, message=message, code="conflict", hint="set one of them")
    low, high = _number(own_low, low), _number(own_high, high)
    if low is not None and high is not None and low > high:
        key = "min_replicas" if own_low is not None else "max_replicas"
        message = f"min_replicas ({low}) is greater than max_replicas ({high})"
        yield Finding(path=f"{path}.{key}", message=message, code="conflict")


def _rollout(path: str, entry: dict[str, Any]) -> Iterator[Finding]:
    rollout = entry.get("rollout")
    if not isinstance(rollout, dict):
        return
    fields = RolloutSpec.model_fields
    surge = rollout.get("max_surge", fields["max_surge"].default)
    unavailable = rollout.get("max_unavailable", fields["max_unavailable"].default)
    if surge in (0, "0%") and unavailable in (0, "0%") and not isinstance(surge, bool):
        message = "max_surge and max_unavailable are both 0, so that no change could ever begin"
        hint = "let at least one of them be 1"
        yield Finding(path=f"{path}.rollout.max_surge", message=message, code="conflict", hint=hint)


def _canary(path: str, entry: dict[str, Any]) -> Iterator[Finding]:
    """The new version of a canary stands beside the old one, and requests from outside choose between them."""
    rollout = entry.get("rollout")
    if not isinstance(rollout, dict) or not isinstance(rollout.get("canary"), dict):
        return
    here = f"{path}.rollout.canary"
    if rollout.get("max_surge") in (0, "0%") and rollout["max_surge"] is not False:
        message = "the new version needs a replica beside the old ones, and max_surge is 0 at {first}"
        hint = "let max_surge be at least 1"
        yield Finding(path=here, message=message, code="conflict", hint=hint, first=f"{path}.rollout.max_surge")
    if "route_prefix" in entry and entry["route_prefix"] is None:
        message = "has no effect without a route_prefix: calls by handle all go to one version"
        hint = "leave it out, or put it on the deployment that clients reach"
        yield Finding(path=here, message=message, code="conflict", hint=hint, severity="warning")


def _affinity(path: str, entry: dict[str, Any]) -> Iterator[Finding]:
    """A session has a name somewhere, and its cookie is not the one that says on which side of a canary a client is."""
    said = entry.get("session_affinity")
    if not isinstance(said, dict):
        return
    here = f"{path}.session_affinity"
    if "header" in said and said["header"] is None and said.get("cookie") is None:
        message = "names neither a header nor a cookie that a session could be told by"
        yield Finding(path=f"{here}.header", message=message, code="conflict", hint="leave header out: x-session-id")
    rollout = entry.get("rollout")
    canary = rollout.get("canary") if isinstance(rollout, dict) else None
    if isinstance(canary, dict) and isinstance(said.get("cookie"), str) and canary.get("sticky") == said["cookie"]:
        message = "the cookie is that of the canary at {first}"
        first = f"{path}.rollout.canary.sticky"
        yield Finding(path=f"{here}.cookie", message=message, code="conflict", hint="name another one", first=first)


def _nodes(path: str, entry: dict[str, Any]) -> Iterator[Finding]:
    """What is said of the nodes and can have no effect."""
    actor = entry.get("ray_actor_options")
    if isinstance(actor, dict) and actor.get("fallback_strategy") and not actor.get("label_selector"):
        message = "is never tried: without a label_selector every node will do"
        hint = "set label_selector to the labels that the node should have"
        here = f"{path}.ray_actor_options.fallback_strategy"
        yield Finding(path=here, message=message, code="conflict", hint=hint, severity="warning")


def _timeouts(path: str, entry: dict[str, Any], front: Any) -> Iterator[Finding]:
    """A request that is allowed more time than a replaced replica drains is cut by every change."""
    own = "request_timeout_s" in entry and entry["request_timeout_s"] is not None
    timeout = _number(entry["request_timeout_s"] if own else front)
    drain = _number(
        entry.get("graceful_shutdown_timeout_s"), DeploymentSpec.model_fields["graceful_shutdown_timeout_s"].default
    )
    if timeout is None or drain is None or timeout <= drain:
        return
    if not own and "graceful_shutdown_timeout_s" not in entry:
        return
    key = "request_timeout_s" if own else "graceful_shutdown_timeout_s"
    message = f"a request may take {timeout:g} s, but a replaced replica drains for {drain:g} s only"
    hint = "raise graceful_shutdown_timeout_s, or a change may cut slow requests"
    yield Finding(path=f"{path}.{key}", message=message, code="conflict", hint=hint, severity="warning")
