"""Placement groups: where bundles fit, what is told where they never do, and what is short just now."""

from __future__ import annotations

from typing import Any

import pytest
from world import World

from serveconf.plan.desired import make_desired
from serveconf.plan.state import DesiredStack, Observed, ReplicaPhase, ReplicaState
from serveconf.reconcile.asked import Group, standby_kind
from serveconf.reconcile.bundles import how_many, places
from serveconf.reconcile.placement import DoesNotFit, check_placement, fit_in, missing
from serveconf.reconcile.ports import NodeState, TargetReport
from serveconf.spec.models import GroupStrategy, StackSpec

PACK, SPREAD, STRICT_PACK, STRICT_SPREAD = GroupStrategy


def group(strategy: GroupStrategy, *cpus: float) -> Group:
    return Group(tuple({"CPU": one} for one in cpus), strategy)


@pytest.mark.parametrize(
    ("strategy", "cpus", "free", "where"),
    [
        (PACK, (1, 1), (1, 2), [1, 1]),
        (PACK, (1, 1), (1, 1), [0, 1]),
        (PACK, (2, 1), (1, 2), [1, 0]),
        (PACK, (2, 2), (2, 1), None),
        (SPREAD, (1, 1), (2, 2), [0, 1]),
        (SPREAD, (1, 1), (2, 0), [0, 0]),
        (STRICT_PACK, (1, 1), (1, 1), None),
        (STRICT_PACK, (1, 1), (1, 2), [1, 1]),
        (STRICT_SPREAD, (1, 1), (2, 0), None),
        (STRICT_SPREAD, (1, 2), (2, 1), [1, 0]),
    ],
)
def test_bundles_lie_as_the_strategy_says(
    strategy: GroupStrategy, cpus: tuple[float, ...], free: tuple[float, ...], where: list[int] | None
) -> None:
    assert places(group(strategy, *cpus), [{"CPU": one} for one in free]) == where


def test_how_many_find_a_place() -> None:
    nodes = [{"CPU": 1.0}, {"CPU": 1.0}]
    found = {strategy: how_many(group(strategy, 1, 1, 1), nodes) for strategy in GroupStrategy}
    assert found == {PACK: 2, SPREAD: 2, STRICT_PACK: 0, STRICT_SPREAD: 2}


def stack(count: int, bundles: list[dict[str, float]], strategy: str | None = None, **more: Any) -> DesiredStack:
    version = more.pop("version", "1")
    one = {"name": "a", "import_path": "m:app", "num_replicas": count, "placement_group_bundles": bundles}
    spec = StackSpec.model_validate({"deployments": [{**one, "placement_group_strategy": strategy, **more}]})
    return make_desired(spec, revision=1, code="c", files_for=lambda _: {"m.py": version})


def node(name: str, free: float = 4, *, labels: dict[str, str] | None = None, **more: float) -> NodeState:
    available = {"CPU": free, **more}
    return NodeState(
        id=name, is_head=False, ip=name, total={"CPU": 4, **more}, available=available, labels=labels or {}
    )


TWO = [node("n1"), node("n2", GPU=1)]


@pytest.mark.parametrize(
    ("bundles", "strategy", "told"),
    [
        (
            [{"CPU": 1}, {"GPU": 2}],
            None,
            "fits on no node: bundle 2 of its placement group asks for GPU 2 (a node has at most 1)",
        ),
        (
            [{"CPU": 3}, {"CPU": 3}],
            "STRICT_PACK",
            "fits on no node: the 2 bundles of its placement group ask together (STRICT_PACK) for "
            "CPU 6 (a node has at most 4)",
        ),
        (
            [{"CPU": 1}, {"CPU": 1}, {"CPU": 1}],
            "STRICT_SPREAD",
            "fits on no 3 nodes: each bundle of its placement group takes one (STRICT_SPREAD), and 2 find one",
        ),
        (
            [{"CPU": 3}, {"CPU": 3}, {"CPU": 3}],
            None,
            "fits on no nodes: of the 3 bundles of its placement group 2 have room at a time",
        ),
    ],
)
def test_a_group_that_never_fits_is_told_with_what_is_too_much(
    bundles: list[dict[str, float]], strategy: str | None, told: str
) -> None:
    with pytest.raises(DoesNotFit) as refused:
        check_placement(stack(1, bundles, strategy), TWO)
    assert refused.value.message == f"deployment 'a' {told}"


def test_all_bundles_are_on_nodes_with_the_labels() -> None:
    east, west = node("n1", labels={"zone": "east"}), node("n2", labels={"zone": "west"})
    asked = {"ray_actor_options": {"label_selector": {"zone": "east"}}}
    check_placement(stack(1, [{"CPU": 2}, {"CPU": 2}], **asked), [east, west])
    with pytest.raises(DoesNotFit):
        check_placement(stack(1, [{"CPU": 3}, {"CPU": 3}], **asked), [east, west])


def test_no_room_now_says_how_many_groups_have_a_place_and_what_is_left_where() -> None:
    fits = stack(2, [{"CPU": 2}, {"CPU": 2}], "STRICT_SPREAD")
    assert fit_in(fits, None, Observed(), TWO) == (fits, ())
    with pytest.raises(DoesNotFit) as refused:
        fit_in(stack(3, [{"CPU": 2}, {"CPU": 1}], "STRICT_SPREAD"), None, Observed(), [node("n1"), node("n2", 2)])
    assert refused.value.message == (
        "there is room for 2 of 3 new replicas of deployment 'a', each of which asks for a placement group "
        "(STRICT_SPREAD) of CPU 2 + CPU 1 (left: node n1: CPU 0, GPU 0; node n2: CPU 0, GPU 0)"
    )


def test_what_a_replaced_replica_holds_on_every_node_is_given_back() -> None:
    bundles: list[dict[str, float]] = [{"CPU": 3}, {"CPU": 3}]
    rollout = {"rollout": {"max_unavailable": 1}}
    old, new = stack(1, bundles), stack(1, bundles, version="2", **rollout)
    (a,) = old.deployments
    replica = ReplicaState(
        id="r",
        stack="default",
        deployment="a",
        version=a.version,
        phase=ReplicaPhase.READY,
        node_id="n1",
        bundle_nodes=("n1", "n2"),
    )
    fitted, lines = fit_in(new, old, Observed(replicas=(replica,)), [node("n1", 1), node("n2", 1)])
    assert (fitted.deployments[0].room, len(lines)) == (0, 1)


def test_what_is_missing_now_is_said_of_groups_and_of_single_replicas() -> None:
    (a,) = stack(1, [{"CPU": 2}, {"CPU": 2}], "STRICT_SPREAD").deployments
    assert missing(a.spec, TWO) == ""
    assert missing(a.spec, [node("n1"), node("n2", 1)]) == (
        "no room just now for a replica that asks for a placement group (STRICT_SPREAD) of CPU 2 + CPU 2 "
        "(left: node n1: CPU 4; node n2: CPU 1)"
    )
    alone = {"ray_actor_options": {"num_cpus": 2}}
    assert missing(alone, [node("n1", 1)]) == (
        "no room just now for a replica that asks for CPU 2 (left: node n1: CPU 1)"
    )
    assert missing(alone, [NodeState(id="n1", is_head=True)]) == ""


def test_no_standby_is_kept_for_it() -> None:
    assert standby_kind({"ray_actor_options": {"num_cpus": 1}, "placement_group_bundles": [{"CPU": 1}]}) is None


@pytest.mark.anyio
async def test_a_first_bundle_that_is_too_small_for_options_of_the_code_is_refused(world: World) -> None:
    report = TargetReport(ok=True, kind="asgi", options={"ray_actor_options": {"num_gpus": 1}})
    world.preflight.reports["a:app"] = report
    result = await world.apply({"name": "a", "import_path": "a:app", "placement_group_bundles": [{"CPU": 1}]})
    assert result["outcome"] == "failed"
    (problem,) = result["problems"]
    assert (problem["code"], "num_gpus asks for 1" in problem["message"]) == ("invalid_spec", True)
    assert not world.replicas()
