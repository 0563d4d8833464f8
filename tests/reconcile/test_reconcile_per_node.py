"""max_replicas_per_node: what is told where nodes are too few, and that changes, load and nodes that come respect it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from world import World

from serveconf.cluster.spread import best_node
from serveconf.figures import DeploymentLoad, LoadReport
from serveconf.plan.desired import make_desired
from serveconf.plan.state import DesiredStack, Observed, ReplicaPhase, ReplicaState
from serveconf.reconcile.asked import standby_kind
from serveconf.reconcile.placement import DoesNotFit, check_placement, fit_in
from serveconf.reconcile.ports import NodeState
from serveconf.spec.models import StackSpec


def stack(count: int, most: int | None, version: str = "1", **more: Any) -> DesiredStack:
    one = {"name": "a", "import_path": "m:app", "num_replicas": count, "max_replicas_per_node": most, **more}
    spec = StackSpec.model_validate({"deployments": [one]})
    return make_desired(spec, revision=1, code="c", files_for=lambda _: {"m.py": version})


def running(desired: DesiredStack, *nodes: str, phase: ReplicaPhase = ReplicaPhase.READY) -> Observed:
    (a,) = desired.deployments
    return Observed(
        replicas=tuple(
            ReplicaState(id=f"r{i}", stack="default", deployment="a", version=a.version, phase=phase, node_id=node)
            for i, node in enumerate(nodes)
        )
    )


def node(name: str, cpus: float = 4) -> NodeState:
    return NodeState(id=name, is_head=name == "node0", total={"CPU": 4}, available={"CPU": cpus})


def test_more_replicas_than_nodes_is_no_room_now_and_says_what_is_where() -> None:
    check_placement(stack(3, 1), [node("n1"), node("n2")])
    with pytest.raises(DoesNotFit) as refused:
        fit_in(stack(3, 1), None, Observed(), [node("n1"), node("n2")])
    assert refused.value.message == (
        "there is room for 2 of 3 new replicas of deployment 'a', each of which asks for CPU 0.1, at most 1 of them on a "
        "node (left: node n1: CPU 3.9, GPU 0, 1 of 1 replicas; node n2: CPU 3.9, GPU 0, 1 of 1 replicas)"
    )
    assert refused.value.hint == "lower num_replicas or ray_actor_options, raise max_replicas_per_node, or add a node"


def test_one_more_than_the_nodes_take_is_told_as_that_one() -> None:
    old, new = stack(2, 1), stack(3, 1)
    with pytest.raises(DoesNotFit) as refused:
        fit_in(new, old, running(old, "n1", "n2"), [node("n1"), node("n2")])
    assert refused.value.message.startswith("there is room for 0 of 1 new replicas")


def test_as_many_as_the_nodes_take_fit() -> None:
    fits = stack(6, 3)
    assert fit_in(fits, None, Observed(), [node("n1"), node("n2")]) == (fits, ())


def test_those_that_a_change_replaces_count_and_the_change_asks_for_leave_to_go_under_the_floor() -> None:
    old, new = stack(2, 1), stack(2, 1, "2")
    nodes = [node("n1"), node("n2")]
    with pytest.raises(DoesNotFit) as refused:
        fit_in(new, old, running(old, "n1", "n2"), nodes)
    assert "max_unavailable: 1" in str(refused.value.hint)
    fitted, lines = fit_in(new, old, running(old, "n1", "n2"), [*nodes, node("n3")])
    assert (fitted.deployments[0].room, len(lines)) == (1, 1)


def test_one_that_drains_is_as_good_as_gone() -> None:
    old, new = stack(1, 1), stack(1, 1, "2")
    draining = running(old, "n1", phase=ReplicaPhase.DRAINING)
    assert fit_in(new, old, draining, [node("n1")]) == (new, ())


def test_replicas_from_before_there_was_a_limit_are_not_counted() -> None:
    old, new = stack(2, None), stack(2, 1)
    assert fit_in(new, old, running(old, "n1", "n1"), [node("n1"), node("n2")]) == (new, ())


def test_a_process_of_several_deployments_counts_once() -> None:
    both = [
        {"name": name, "import_path": "m:app", "num_replicas": 2, "process": "p", "max_replicas_per_node": 1}
        for name in ("a", "b")
    ]
    desired = make_desired(
        StackSpec.model_validate({"deployments": both}), revision=1, code="c", files_for=lambda _: {}
    )
    assert fit_in(desired, None, Observed(), [node("n1"), node("n2")]) == (desired, ())


def test_no_standby_is_kept_for_it_and_none_is_taken() -> None:
    assert standby_kind({"ray_actor_options": {"num_cpus": 1}}) == "num_cpus=1"
    assert standby_kind({"ray_actor_options": {"num_cpus": 1}, "max_replicas_per_node": 2}) is None


def test_a_new_replica_is_best_where_it_may_be() -> None:
    (a,) = stack(3, 1).deployments
    replicas = [*running(stack(3, 1, "0"), "n1").replicas, *running(stack(3, 1), "n2").replicas]
    assert best_node("default", a, replicas, [node("n1"), node("n2"), node("n3", 0.1)]) == "n3"
    assert best_node("default", a, replicas, [node("n1"), node("n2")]) == ""


def test_a_key_that_is_not_said_makes_no_other_version() -> None:
    said, unsaid = stack(1, 1), stack(1, None)
    assert said.deployments[0].version != unsaid.deployments[0].version
    spec = StackSpec.model_validate({"deployments": [{"name": "a", "import_path": "m:app"}]})
    (before,) = make_desired(spec, revision=1, code="c", files_for=lambda _: {"m.py": "1"}).deployments
    assert unsaid.deployments[0].version == before.version


def most_on_a_node(world: World) -> int:
    return max(Counter(r.node_id for r in world.cluster.observe().replicas if r.node_id).values())


@pytest.mark.anyio
async def test_a_change_goes_in_waves_and_never_has_more_than_one_on_a_node(world: World) -> None:
    a = {"name": "a", "import_path": "a:app", "num_replicas": 2, "max_replicas_per_node": 1}
    world.cluster.set_nodes(node("node0"), node("node1"))
    await world.apply(a)
    old, seen, tell = set(world.serving("/a")), [], world.cluster.on_change

    def see() -> None:
        seen.append(most_on_a_node(world))
        tell()

    world.cluster.on_change = see
    result = await world.apply(a | {"rollout": {"max_unavailable": 1}}, files={"a.py": "2"}, code="c2")
    assert (result["outcome"], max(seen)) == ("applied", 1)
    assert len(set(world.serving("/a")) - old) == 2


@pytest.mark.anyio
async def test_a_load_that_asks_for_more_gets_what_the_nodes_take_and_the_next_one_when_a_node_joins(
    world: World,
) -> None:
    scaling = {"autoscaling_config": {"max_replicas": 10}, "max_replicas_per_node": 1}
    world.cluster.set_nodes(node("node0"), node("node1"))
    await world.apply({"name": "a", "import_path": "a:app", **scaling})
    world.clock.advance(1)
    (proxy,) = world.cluster.observe().proxies
    load = DeploymentLoad(arrivals=12, ongoing=12, waiting=9, oldest_wait_s=0.15)
    world.reconciler.scaling.take(proxy.id, LoadReport(number=1, loads={"default/a": load}))
    for _ in range(4):
        await world.look()
    assert (len(world.serving("/a")), most_on_a_node(world)) == (2, 1)
    world.cluster.set_nodes(node("node0"), node("node1"), node("node2"))
    for _ in range(4):
        await world.look()
    assert (len(world.serving("/a")), most_on_a_node(world)) == (3, 1)
