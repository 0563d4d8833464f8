"""Room for replicas: beside the old ones, in waves, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from world import World

from serveconf.plan.desired import make_desired
from serveconf.plan.state import DesiredStack, Observed, ReplicaPhase, ReplicaState
from serveconf.reconcile.placement import DoesNotFit, fit_in
from serveconf.reconcile.ports import NodeState
from serveconf.spec.models import DeploymentSpec, RolloutSpec, StackSpec


def stack(version: str, count: int, **rollout: Any) -> DesiredStack:
    one = DeploymentSpec.model_validate(
        {
            "name": "a",
            "import_path": "m:app",
            "num_replicas": count,
            "ray_actor_options": {"num_cpus": 1},
            "rollout": RolloutSpec(**rollout),
        }
    )
    return make_desired(StackSpec(deployments=[one]), revision=1, code="c", files_for=lambda _: {"m.py": version})


def running(desired: DesiredStack, *nodes: str) -> Observed:
    (a,) = desired.deployments
    return Observed(
        replicas=tuple(
            ReplicaState(
                id=f"r{i}",
                stack="default",
                deployment="a",
                version=a.version,
                phase=ReplicaPhase.READY,
                node_id=node,
            )
            for i, node in enumerate(nodes)
        )
    )


def node(name: str, total: float, free: float) -> NodeState:
    return NodeState(id=name, is_head=False, total={"CPU": total}, available={"CPU": free, "memory": 1})


def test_a_roll_that_fits_beside_the_old_replicas_is_one_switch() -> None:
    old, new = stack("1", 2), stack("2", 2)
    assert fit_in(new, old, running(old, "n", "n"), [node("n", 4, 2)]) == (new, ())


def test_a_roll_with_little_room_goes_in_waves_and_says_so() -> None:
    old, new = stack("1", 3), stack("2", 3)
    fitted, lines = fit_in(new, old, running(old, "n", "n", "n"), [node("n", 4, 1)])
    assert fitted.deployments[0].room == 1
    assert lines == ("'a' goes in waves, 1 at a time: the cluster has no room for 3 new replicas",)


def test_a_roll_without_any_room_asks_for_leave_to_go_under_the_floor() -> None:
    old, new = stack("1", 2), stack("2", 2)
    with pytest.raises(DoesNotFit) as refused:
        fit_in(new, old, running(old, "n", "n"), [node("n", 2, 0)])
    assert "max_unavailable: 1" in str(refused.value.hint)


def test_a_roll_with_that_leave_replaces_before_it_starts() -> None:
    old, new = stack("1", 2), stack("2", 2, max_unavailable=1)
    fitted, lines = fit_in(new, old, running(old, "n", "n"), [node("n", 2, 0)])
    assert fitted.deployments[0].room == 0
    assert "replacing before starting" in lines[0]


def test_more_than_the_cluster_has_in_all_says_what_is_free_where() -> None:
    with pytest.raises(DoesNotFit) as refused:
        fit_in(stack("1", 5), None, Observed(), [node("n1", 2, 2), node("n2", 2, 1.5)])
    assert refused.value.message == (
        "there is room for 3 of 5 new replicas of deployment 'a', each of which asks for CPU 1 "
        "(left: node n1: CPU 0, GPU 0; node n2: CPU 0.5, GPU 0)"
    )


def test_what_drains_is_as_good_as_free() -> None:
    old, new = stack("1", 1), stack("2", 1)
    observed = running(old, "n")
    drains = ReplicaState(
        id="d", stack="default", deployment="a", version="x", phase=ReplicaPhase.DRAINING, node_id="n"
    )
    both = Observed(replicas=(*observed.replicas, drains))
    assert fit_in(new, old, both, [node("n", 2, 0)]) == (new, ())


@pytest.mark.anyio
async def test_an_apply_in_waves_ends_with_all_replicas_new_and_is_no_change_afterwards(world: World) -> None:
    a = {"name": "a", "import_path": "a:app", "num_replicas": 4, "ray_actor_options": {"num_cpus": 1}}
    await world.apply(a)
    world.cluster.set_nodes(NodeState(id="node0", is_head=True, total={"CPU": 5}, available={"CPU": 1}))
    old = set(world.serving("/a"))
    result = await world.apply(a, files={"a.py": "2"}, code="c2")
    assert result["outcome"] == "applied"
    assert len(world.serving("/a")) == 4
    assert not old & set(world.replicas())
    assert (await world.apply(a, files={"a.py": "2"}, code="c2"))["outcome"] == "unchanged"
