"""fallback_strategy: other nodes where those with the first labels have no room; what fits on none of them is told at once."""

from __future__ import annotations

from typing import Any

import pytest

from serveconf.cluster.spread import best_node
from serveconf.plan.desired import make_desired
from serveconf.plan.state import DesiredStack, Observed
from serveconf.reconcile.asked import standby_kind
from serveconf.reconcile.placement import DoesNotFit, check_placement, fit_in
from serveconf.reconcile.ports import NodeState
from serveconf.spec.models import StackSpec


def stack(count: int, *fallbacks: dict[str, str], **options: Any) -> DesiredStack:
    asked = {"num_cpus": 1, "label_selector": {"zone": "east"}, **options}
    asked["fallback_strategy"] = [{"label_selector": one} for one in fallbacks]
    one = {"name": "a", "import_path": "m:app", "num_replicas": count, "ray_actor_options": asked}
    spec = StackSpec.model_validate({"deployments": [one]})
    return make_desired(spec, revision=1, code="c", files_for=lambda _: {"m.py": "1"})


def node(name: str, zone: str, cpus: float = 2, **more: float) -> NodeState:
    labels = {"zone": zone}
    return NodeState(id=name, is_head=False, total={"CPU": 2, **more}, available={"CPU": cpus, **more}, labels=labels)


EAST, WEST, NORTH = node("n1", "east"), node("n2", "west"), node("n3", "north")


def test_room_is_looked_for_on_the_nodes_of_every_alternative() -> None:
    for count, fallbacks in ((2, ()), (4, ({"zone": "west"},)), (6, ({"zone": "west"}, {}))):
        desired = stack(count, *fallbacks)
        assert fit_in(desired, None, Observed(), [WEST, NORTH, EAST]) == (desired, ())
        with pytest.raises(DoesNotFit) as refused:
            fit_in(stack(count + 1, *fallbacks), None, Observed(), [WEST, NORTH, EAST])
        assert refused.value.message.startswith(f"there is room for {count} of {count + 1} new replicas")


def test_labels_of_no_alternative_are_told_all() -> None:
    check_placement(stack(1, {"zone": "west"}), [WEST])
    with pytest.raises(DoesNotFit) as refused:
        check_placement(stack(1, {"zone": "west"}), [NORTH])
    assert refused.value.message == (
        "deployment 'a': no node has the labels that it asks for: zone=east (the nodes have north); "
        "nor zone=west (the nodes have north)"
    )


def test_what_only_a_fallback_could_hold_fits_there() -> None:
    check_placement(stack(1, {"zone": "west"}, num_gpus=1), [EAST, node("n2", "west", GPU=1)])
    with pytest.raises(DoesNotFit) as refused:
        check_placement(stack(1, {"zone": "west"}, num_gpus=1), [EAST, WEST, node("n3", "north", GPU=1)])
    assert "fits on no node that has its labels" in refused.value.message


def test_a_new_replica_goes_where_the_first_labels_are_while_there_is_room() -> None:
    (a,) = stack(3, {"zone": "west"}).deployments
    assert best_node("default", a, [], [NORTH, WEST, EAST]) == "n1"
    assert best_node("default", a, [], [NORTH, WEST, node("n1", "east", 0.5)]) == "n2"
    assert best_node("default", a, [], [NORTH, node("n1", "east", 0.5)]) == ""


def test_no_standby_is_kept_for_it() -> None:
    assert standby_kind({"ray_actor_options": {"fallback_strategy": [{"label_selector": {}}]}}) is None


def test_an_empty_list_makes_no_other_version() -> None:
    spec = {"name": "a", "import_path": "m:app", "ray_actor_options": {"num_cpus": 1}}
    said = {**spec, "ray_actor_options": {"num_cpus": 1, "fallback_strategy": []}}
    versions = {
        make_desired(StackSpec.model_validate({"deployments": [one]}), revision=1, code="c", files_for=lambda _: {})
        .deployments[0]
        .version
        for one in (spec, said)
    }
    assert len(versions) == 1
