"""Which nodes a label selector takes, and what is said where no node will ever do."""

from __future__ import annotations

from typing import Any

import pytest

from serveconf.plan.desired import make_desired
from serveconf.plan.state import DesiredStack, Observed
from serveconf.reconcile.asked import takes
from serveconf.reconcile.placement import DoesNotFit, check_placement, fit_in
from serveconf.reconcile.ports import NodeState
from serveconf.spec.models import DeploymentSpec, StackSpec


@pytest.mark.parametrize(
    ("condition", "taken"),
    [
        ("a", {"a"}),
        ("!a", {"b", None}),
        ("in(a, b)", {"a", "b"}),
        ("in(a)", {"a"}),
        ("!in(a,b)", {None}),
        ("!in(c)", {"a", "b", None}),
    ],
)
def test_a_condition_takes_the_nodes_that_ray_would_take(condition: str, taken: set[str | None]) -> None:
    values: list[str | None] = ["a", "b", None]
    assert {v for v in values if takes({"zone": condition}, {} if v is None else {"zone": v})} == taken


def test_all_conditions_count() -> None:
    assert takes({"zone": "a", "disk": "!slow"}, {"zone": "a"})
    assert not takes({"zone": "a", "disk": "!slow"}, {"zone": "a", "disk": "slow"})


def asking(count: int = 1, **options: Any) -> DesiredStack:
    fields = {"name": "a", "import_path": "m:app", "num_replicas": count, "ray_actor_options": options}
    one = DeploymentSpec.model_validate(fields)
    return make_desired(StackSpec(deployments=[one]), revision=1, code="c", files_for=lambda _: {"m.py": "1"})


def node(name: str, *, labels: dict[str, str] | None = None, drains: bool = False, **total: float) -> NodeState:
    free = {"CPU": 4.0, **total}
    return NodeState(id=name, is_head=False, ip=name, total=free, available=free, labels=labels or {}, drains=drains)


EAST, WEST = node("n1", labels={"zone": "east"}), node("n2", labels={"zone": "west"}, GPU=1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"label_selector": {"zone": "north"}},
            "no node has the labels that it asks for: zone=north (the nodes have east, west)",
        ),
        ({"label_selector": {"disk": "ssd"}}, "disk=ssd (no node has that label)"),
        (
            {"label_selector": {"zone": "east"}, "num_gpus": 1},
            "fits on no node that has its labels: each replica asks for CPU 0.1 (a node has at most 4), "
            "GPU 1 (a node has at most 0)",
        ),
        (
            {"num_cpus": 8, "num_gpus": 1},
            "fits on no node: each replica asks for CPU 8 (a node has at most 4), GPU 1 (a node has at most 1)",
        ),
        ({"accelerator_type": "A100"}, "accelerator_type A100 (no node has it)"),
        ({"resources": {"tpu": 2}}, "tpu 2 (a node has at most 0)"),
    ],
)
def test_what_never_fits_is_told_by_name(options: dict[str, Any], told: str) -> None:
    with pytest.raises(DoesNotFit) as refused:
        check_placement(asking(**options), [EAST, WEST])
    assert told in refused.value.message


def test_what_no_single_node_has_together_is_told_node_by_node() -> None:
    with pytest.raises(DoesNotFit) as refused:
        check_placement(asking(num_cpus=4, num_gpus=1), [node("n1"), node("n2", GPU=1, CPU=2)])
    assert refused.value.message.endswith("no node has all of it: node n1 lacks GPU; node n2 lacks CPU")


def test_labels_on_different_nodes_do_not_add_up() -> None:
    selector = {"zone": "east", "disk": "ssd"}
    with pytest.raises(DoesNotFit) as refused:
        check_placement(asking(label_selector=selector), [EAST, node("n3", labels={"disk": "ssd"})])
    assert "zone=east (the nodes have east) and disk=ssd (the nodes have ssd) on one node" in refused.value.message


def test_room_counts_on_nodes_with_the_labels_only() -> None:
    fits = asking(4, num_cpus=1, label_selector={"zone": "in(east, north)"})
    assert fit_in(fits, None, Observed(), [EAST, WEST]) == (fits, ())
    with pytest.raises(DoesNotFit) as refused:
        fit_in(asking(5, num_cpus=1, label_selector={"zone": "!west"}), None, Observed(), [EAST, WEST])
    assert refused.value.message.startswith("there is room for 4 of 5 new replicas")


def test_a_node_that_drains_has_no_room_and_is_not_said_to_be_missing() -> None:
    leaving = node("n1", drains=True)
    check_placement(asking(num_cpus=4), [leaving])
    with pytest.raises(DoesNotFit) as refused:
        fit_in(asking(2, num_cpus=4), None, Observed(), [leaving, node("n2")])
    assert refused.value.message.startswith("there is room for 1 of 2 new replicas")
