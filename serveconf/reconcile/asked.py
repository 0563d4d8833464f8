"""What one replica asks of the nodes, by its deployment's spec: resources in Ray's names, and a share of a node. Pure.

A label selector's value is ``v``, ``!v``, ``in(a, b)`` or ``!in(a, b)``; a node without the label is taken by the negated ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from serveconf.spec.models import GroupStrategy

Resources = dict[str, float]

CRUMB = 1e-6  # sums of 0.1 are not exact
SHARE = "share:"  # of a whole that each node has once for each deployment: with it max_replicas_per_node is a resource
NEVER_WARM = ("num_gpus", "accelerator_type", "label_selector", "fallback_strategy")
KIND = ("num_cpus", "memory", "resources", "runtime_env")


class Group(msgspec.Struct, frozen=True):
    """The placement group of each replica."""

    bundles: tuple[Resources, ...]
    strategy: GroupStrategy


def group_of(spec: Mapping[str, Any]) -> Group | None:
    """Where its replicas have one."""
    bundles = spec.get("placement_group_bundles")
    if not bundles:
        return None
    held = tuple({name: amount for name, amount in bundle.items() if amount > 0} for bundle in bundles)
    return Group(held, GroupStrategy(spec.get("placement_group_strategy") or GroupStrategy.PACK))


def summed(bundles: Iterable[Resources]) -> Resources:
    """What they hold together."""
    total: Resources = {}
    for bundle in bundles:
        for name, amount in bundle.items():
            total[name] = total.get(name, 0) + amount
    return total


def asked_by(name: str, spec: Mapping[str, Any]) -> Resources:
    """What one replica takes of a node, or of several, its share of it as one of so many included."""
    if (group := group_of(spec)) is not None:
        return summed(group.bundles)
    most = spec.get("max_replicas_per_node")
    share = {SHARE + counts_as(name, spec): 1 / most} if most else {}
    return asked_resources(spec.get("ray_actor_options") or {}) | share


def counts_as(name: str, spec: Mapping[str, Any]) -> str:
    """What its replicas are counted as, where a node takes so many: those of a process once."""
    return spec.get("process") or name


def selectors_of(spec: Mapping[str, Any]) -> tuple[Mapping[str, str], ...]:
    """Label selectors that take the nodes where it may be, best first."""
    options = spec.get("ray_actor_options") or {}
    fallbacks = options.get("fallback_strategy") or ()
    return (options.get("label_selector") or {}, *(one["label_selector"] for one in fallbacks))


def asked_resources(options: Mapping[str, Any]) -> Resources:
    """What one replica asks for, in Ray's resource names."""
    asked = {
        "CPU": options.get("num_cpus") or 0,
        "GPU": options.get("num_gpus") or 0,
        "memory": options.get("memory") or 0,
    }
    asked |= options.get("resources") or {}
    if options.get("accelerator_type"):
        asked[f"accelerator_type:{options['accelerator_type']}"] = 0.001
    return {name: amount for name, amount in asked.items() if amount > 0}


def kind_of(options: Mapping[str, Any]) -> str | None:
    """The kind of replica that ray_actor_options make: what a standby of it must have been started with. None: there is none."""
    if any(options.get(key) for key in NEVER_WARM):
        return None
    said = {key: options[key] for key in KIND if options.get(key)}
    text = ",".join(f"{key}={value:g}" for key, value in said.items() if isinstance(value, int | float))
    rest = {key: value for key, value in said.items() if not isinstance(value, int | float)}
    mark = hashlib.sha256(msgspec.json.encode(rest, order="deterministic")).hexdigest()[:6] if rest else ""
    return ",".join(filter(None, (text, mark))) or "none"


def standby_kind(spec: Mapping[str, Any]) -> str | None:
    """``kind_of`` a deployment's replicas. None too where the engine counts them on each node, or places them as a group."""
    return None if spec.get("max_replicas_per_node") or group_of(spec) else kind_of(spec.get("ray_actor_options") or {})


def has(there: Mapping[str, float], asked: Resources) -> bool:
    """Whether what is there is enough."""
    return all(there.get(name, 0) >= amount - CRUMB for name, amount in asked.items())


def takes(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels meets every condition."""
    return all(meets(condition, labels.get(key)) for key, condition in selector.items())


def rank(selectors: Sequence[Mapping[str, str]], labels: Mapping[str, str]) -> int | None:
    """Which of the selectors is the first that takes a node with these labels; None: none does."""
    return next((i for i, selector in enumerate(selectors) if takes(selector, labels)), None)


def meets(condition: str, value: str | None) -> bool:
    """Whether a label's value (None: the node has no such label) is what one condition asks for."""
    wanted, negated = _parsed(condition)
    return (value in wanted) is not negated


def unmet(selector: Mapping[str, str], nodes: Iterable[Mapping[str, str]]) -> str:
    """What of a selector no node meets, with what the nodes have instead: for people."""
    nodes = list(nodes)
    alone = [key for key, condition in selector.items() if not any(meets(condition, node.get(key)) for node in nodes)]
    said = []
    for key in alone or selector:
        there = sorted({node[key] for node in nodes if key in node})
        has = f"the nodes have {', '.join(there[:8])}" if there else "no node has that label"
        said.append(f"{key}={selector[key]} ({has})")
    return ", ".join(said) if alone else f"{' and '.join(said)} on one node"


def _parsed(condition: str) -> tuple[frozenset[str], bool]:
    text = condition.strip()
    negated = text.startswith("!")
    text = text.removeprefix("!").strip()
    if text.startswith("in(") and text.endswith(")"):
        return frozenset(part.strip() for part in text[3:-1].split(",")), negated
    return frozenset({text}), negated
