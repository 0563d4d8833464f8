"""Ray's placement groups: a replica with bundles has one of its own, which has its name and outlives us as it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray.util.placement_group import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from serveconf.cluster.engine import Place
from serveconf.cluster.settings import REPLICA_PREFIX


@contextmanager
def in_group(name: str, place: Place, selector: Mapping[str, str] | None) -> Iterator[PlacementGroupSchedulingStrategy]:
    """The first bundle of a new group, for the actor that its body starts; Ray waits until the group has a place.

    ``selector``: of the nodes, all bundles are on such. A body that fails leaves no group.
    """
    group = placement_group(
        place.bundles,
        strategy=place.strategy,
        name=name,
        lifetime="detached",
        bundle_label_selector=[dict(selector)] * len(place.bundles) if selector else None,
    )
    try:
        yield PlacementGroupSchedulingStrategy(
            group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
        )
    except BaseException:  # whatever came in between: nobody else would know of the group
        remove_placement_group(group)
        raise


def group_names() -> set[str]:
    """The names of all that there are of ours."""
    table: dict[str, dict[str, Any]] = placement_group_table()
    return {
        one["name"] for one in table.values() if one["state"] != "REMOVED" and one["name"].startswith(REPLICA_PREFIX)
    }


def end_group(name: str) -> None:
    """Take it away, where there is one."""
    try:
        remove_placement_group(get_placement_group(name))
    except ValueError:  # it has none
        return


def bundle_nodes() -> tuple[str, ...]:
    """On which nodes the bundles of this actor's group are."""
    group = get_current_placement_group()
    if group is None:
        return ()
    of: dict[int, str] = placement_group_table(group)["bundles_to_node_id"]
    return tuple(of[bundle] for bundle in sorted(of))
