"""Replicas that have all come to stand on one node: after a while one of them moves to another with room, and nothing is too few."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from world import World

from serveconf.plan.desired import make_desired
from serveconf.plan.state import DesiredDeployment, Phase, ReplicaState
from serveconf.reconcile.ports import NodeState
from serveconf.reconcile.respread import AGAIN_S, STEADY_S, elsewhere
from serveconf.reconcile.stack_pass import IDLE_S
from serveconf.spec.models import DeploymentSpec, StackSpec

A = {"name": "a", "import_path": "a:app", "num_replicas": 3}
ROOM = {"CPU": 4.0}
HOME = NodeState(id="home", is_head=True, total=ROOM, available=ROOM)
AWAY = NodeState(id="away", is_head=False, total=ROOM, available=ROOM)


def deployment(**more: Any) -> DesiredDeployment:
    spec = StackSpec(deployments=[DeploymentSpec(name="a", import_path="m:app", **{"num_replicas": 2, **more})])
    return make_desired(spec, revision=1, code="", files_for=lambda _: {}).deployments[0]


def on(one: DesiredDeployment, *nodes: str, phase: Phase = Phase.READY) -> list[ReplicaState]:
    return [
        ReplicaState(id=f"r{i}", stack="s", deployment="a", version=one.version, phase=phase, node_id=node)
        for i, node in enumerate(nodes)
    ]


def test_all_on_one_node_may_go_to_one_with_room() -> None:
    two = deployment()
    assert elsewhere(two, on(two, "home", "home"), [HOME, AWAY]) is AWAY
    assert elsewhere(two, on(two, "home", "away"), [HOME, AWAY]) is None
    assert elsewhere(two, on(two, "home", "home"), [HOME]) is None


def test_one_replica_alone_stays() -> None:
    one = deployment(num_replicas=1)
    assert elsewhere(one, on(one, "home"), [HOME, AWAY]) is None


def test_nobody_moves_while_anything_starts_or_is_too_few() -> None:
    two = deployment()
    assert elsewhere(two, on(two, "home", "home", phase=Phase.STARTING), [HOME, AWAY]) is None
    assert elsewhere(two, on(two, "home"), [HOME, AWAY]) is None


def test_a_node_without_room_or_that_drains_takes_nobody() -> None:
    two = deployment(ray_actor_options={"num_cpus": 1})
    assert elsewhere(two, on(two, "home", "home"), [HOME, replace(AWAY, available={"CPU": 0.5})]) is None
    assert elsewhere(two, on(two, "home", "home"), [HOME, replace(AWAY, drains=True)]) is None


def test_a_node_with_worse_labels_takes_nobody() -> None:
    fallback = [{"label_selector": {"zone": "west"}}]
    two = deployment(ray_actor_options={"label_selector": {"zone": "east"}, "fallback_strategy": fallback})
    east, west, north = (
        replace(HOME, labels={"zone": "east"}),
        replace(AWAY, labels={"zone": "west"}),
        replace(AWAY, labels={"zone": "north"}),
    )
    assert elsewhere(two, on(two, "home", "home"), [east, west]) is None
    assert elsewhere(two, on(two, "home", "home"), [east, north]) is None
    assert elsewhere(two, on(two, "home", "home"), [east, replace(east, id="other")]) is not None


def test_what_may_not_be_more_for_a_moment_stays() -> None:
    two = deployment(rollout={"max_surge": 0, "max_unavailable": 1})
    assert elsewhere(two, on(two, "home", "home"), [HOME, AWAY]) is None


@pytest.fixture
async def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Three replicas on the node that was left, and another node that has come."""
    world = World(tmp_path_factory.mktemp("respread"))
    world.cluster.set_nodes(HOME)
    assert (await world.apply(A))["outcome"] == "applied"
    world.cluster.set_nodes(HOME, AWAY)
    world.clock.advance(IDLE_S)
    await world.look()
    return world


def places(world: World) -> list[str]:
    return sorted(r.node_id for r in world.cluster.observe().replicas)


@pytest.mark.anyio
async def test_one_moves_after_a_while_and_no_request_finds_too_few(world: World) -> None:
    before = set(world.replicas())
    for _ in range(3):
        await world.look()
    assert set(world.replicas()) == before
    world.clock.advance(STEADY_S)
    for _ in range(8):
        await world.look()
        assert len(world.serving("/a")) == 3
    assert places(world) == ["away", "home", "home"]
    assert len(before & set(world.replicas())) == 2
    (told,) = [event.message for event in world.events.recent() if " moves: " in event.message]
    assert told.endswith("all of its deployment are on node home, and away has room")


@pytest.mark.anyio
async def test_one_that_does_not_start_there_moves_nobody(world: World) -> None:
    before = world.replicas()
    world.clock.advance(STEADY_S)
    await world.look()
    for _ in range(20):
        for replica in set(world.replicas()) - set(before):
            world.cluster.fail(replica, "no")
        await world.look()
        world.clock.advance(1)
    assert len(world.serving("/a")) == 3
    assert set(world.serving("/a")) == set(before)


@pytest.mark.anyio
async def test_a_move_that_has_changed_nothing_is_made_again_much_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.replicas()
    with monkeypatch.context() as patched:
        patched.setattr(world.cluster, "_place", lambda order: HOME)  # somebody else was there first
        world.clock.advance(STEADY_S)
        for _ in range(8):
            await world.look()
    assert places(world) == ["home", "home", "home"]
    settled = world.replicas()
    assert settled != before
    for _ in range(8):
        world.clock.advance(STEADY_S)
        await world.look()
    assert world.replicas() == settled
    world.clock.advance(AGAIN_S)
    for _ in range(8):
        await world.look()
    assert places(world) == ["away", "home", "home"]
