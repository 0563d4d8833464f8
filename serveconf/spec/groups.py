"""Rules of a deployment's placement group, as Ray Serve has them: what goes with it, and what its first bundle must hold.

The file's own rules ask, and who has added the options that stand in the code. Nothing here trusts a type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from serveconf.spec.models import RayActorOptions


class Conflict(NamedTuple):
    """Where, and what is wrong; ``first``: the key that it contradicts, ``{first}`` in the message."""

    key: str
    message: str
    hint: str
    first: str | None = None


def group_conflicts(entry: Mapping[str, Any]) -> Iterator[Conflict]:
    """All of one deployment."""
    bundles = entry.get("placement_group_bundles")
    if bundles == []:  # said by the key itself
        return
    actor = entry.get("ray_actor_options")
    actor = actor if isinstance(actor, Mapping) else {}
    if not bundles:
        if entry.get("placement_group_strategy") is not None:
            hint = "say which bundles the group has, or leave the strategy out"
            yield Conflict("placement_group_strategy", "has no effect without placement_group_bundles", hint)
        return
    if entry.get("max_replicas_per_node") is not None:
        message = "contradicts placement_group_bundles at {first}"
        hint = "keep one of the two; STRICT_SPREAD keeps the bundles of a group apart"
        yield Conflict("max_replicas_per_node", message, hint, "placement_group_bundles")
    if actor.get("fallback_strategy"):
        message = "contradicts placement_group_bundles at {first}: a placement group has no fallback"
        hint = "leave it out, or the bundles"
        yield Conflict("ray_actor_options.fallback_strategy", message, hint, "placement_group_bundles")
    if isinstance(bundles, list) and isinstance(bundles[0], Mapping):
        yield from _first_bundle(bundles[0], actor)


def _first_bundle(bundle: Mapping[str, Any], actor: Mapping[str, Any]) -> Iterator[Conflict]:
    """The replica's own actor is in it, with what ray_actor_options ask for."""
    asked: dict[str, tuple[str, Any]] = {
        "CPU": ("num_cpus", actor.get("num_cpus", RayActorOptions.model_fields["num_cpus"].default)),
        "GPU": ("num_gpus", actor.get("num_gpus", 0)),
        "memory": ("memory", actor.get("memory")),
    }
    own = actor.get("resources")
    asked |= {name: (f"resources.{name}", amount) for name, amount in own.items()} if isinstance(own, Mapping) else {}
    if isinstance(kind := actor.get("accelerator_type"), str):
        asked[f"accelerator_type:{kind}"] = ("accelerator_type", 0.001)
    for resource, (key, amount) in asked.items():
        there = bundle.get(resource, 0)
        if isinstance(amount, int | float) and isinstance(there, int | float) and there < amount:
            message = (
                f"the replica itself is in the first bundle, which has {resource} {there:g}: {key} asks for {amount:g}"
            )
            hint = f"add {{{resource}: {amount:g}}} to it, or lower ray_actor_options.{key}"
            yield Conflict("placement_group_bundles[0]", message, hint)
