"""Where the bundles of a placement group fit: on which of some nodes each of them would be. Pure.

Ray decides at the end; PACK and SPREAD are wishes to it, STRICT_PACK and STRICT_SPREAD are orders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from serveconf.reconcile.asked import Group, Resources, has, summed
from serveconf.spec.models import GroupStrategy


def places(group: Group, free: Sequence[Mapping[str, float]]) -> list[int] | None:
    """For each bundle the index of the node that it would be on; None where there is no room for all of them."""
    found = [one for one in _placed(group, free) if one is not None]
    return found if len(found) == len(group.bundles) else None


def how_many(group: Group, free: Sequence[Mapping[str, float]]) -> int:
    """For how many of the bundles there is room."""
    return sum(one is not None for one in _placed(group, free))


def _placed(group: Group, free: Sequence[Mapping[str, float]]) -> list[int | None]:
    bundles = group.bundles
    one = next((i for i, there in enumerate(free) if has(there, summed(bundles))), None)
    match group.strategy:
        case GroupStrategy.STRICT_PACK:
            return [one] * len(bundles)
        case GroupStrategy.STRICT_SPREAD:
            return _apart(bundles, free)
        case GroupStrategy.SPREAD if None not in (apart := _apart(bundles, free)):
            return apart
        case _:
            return [one] * len(bundles) if one is not None else _packed(bundles, free)


def _packed(bundles: Sequence[Resources], free: Sequence[Mapping[str, float]]) -> list[int | None]:
    """The largest first, each on the first node that has room for it beside the others."""
    left = [dict(there) for there in free]
    found: list[int | None] = [None] * len(bundles)
    for bundle in sorted(range(len(bundles)), key=lambda one: -sum(bundles[one].values())):
        for node, there in enumerate(left):
            if has(there, bundles[bundle]):
                found[bundle] = node
                take(there, bundles[bundle])
                break
    return found


def _apart(bundles: Sequence[Resources], free: Sequence[Mapping[str, float]]) -> list[int | None]:
    """Each on a node of its own, as many of them as can be: a bipartite matching along augmenting paths."""
    of_node: dict[int, int] = {}

    def find(bundle: int, seen: set[int]) -> bool:
        fitting = (node for node, there in enumerate(free) if has(there, bundles[bundle]))
        for node in sorted(fitting, key=lambda node: node in of_node):
            if node in seen:
                continue
            seen.add(node)
            if node not in of_node or find(of_node[node], seen):
                of_node[node] = bundle
                return True
        return False

    for bundle in range(len(bundles)):
        find(bundle, set())
    nodes = {bundle: node for node, bundle in of_node.items()}
    return [nodes.get(bundle) for bundle in range(len(bundles))]


def take(free: Resources, asked: Resources) -> None:
    """It is used up."""
    for name, amount in asked.items():
        free[name] = free.get(name, 0) - amount
