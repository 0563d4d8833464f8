"""A node that drains empties first: new replicas elsewhere, then its own go, and its proxy gives notice."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from world import World

from serveconf.plan.desired import make_desired
from serveconf.plan.state import DesiredDeployment, Phase, ReplicaState
from serveconf.reconcile.proxies import NOTICE_S
from serveconf.reconcile.rollout import next_wave
from serveconf.spec.models import DeploymentSpec, StackSpec

A = {"name": "a", "import_path": "a:app", "num_replicas": 2}
EVERY = {"location": "EveryNode"}


def deployment(count: int) -> DesiredDeployment:
    spec = StackSpec(deployments=[DeploymentSpec(name="a", import_path="m:app", num_replicas=count)])
    return make_desired(spec, revision=1, code="", files_for=lambda _: {}).deployments[0]


def there(one: DesiredDeployment, **phases: Phase) -> list[ReplicaState]:
    return [
        ReplicaState(id=name, stack="s", deployment="a", version=one.version, phase=phase)
        for name, phase in phases.items()
    ]


def test_a_replica_that_must_leave_serves_until_its_successor_is_ready() -> None:
    two = deployment(2)
    leaving = frozenset({"r1"})
    first = next_wave(two, there(two, r1=Phase.READY, r2=Phase.READY), leaving=leaving)
    assert (first.start, first.complete) == (1, False)
    starts = next_wave(two, there(two, r1=Phase.READY, r2=Phase.READY, r3=Phase.STARTING), leaving=leaving)
    assert (starts.start, starts.complete) == (0, False)
    ends = next_wave(two, there(two, r1=Phase.READY, r2=Phase.READY, r3=Phase.READY), leaving=leaving)
    assert [r.id for r in ends.serve] == ["r2", "r3"]
    assert ends.final


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("leaving"), nodes=2)


@pytest.mark.anyio
async def test_a_node_that_drains_is_empty_in_the_end_and_nothing_was_too_few_meanwhile(world: World) -> None:
    await world.apply(A, http_options=EVERY)
    head, going = world.cluster.nodes()
    assert {r.node_id for r in world.cluster.observe().replicas} == {head.id, going.id}
    world.cluster.set_nodes(head, replace(going, drains=True))
    for _ in range(12):
        await world.look()
        assert sum(r.phase is Phase.READY for r in world.cluster.observe().replicas) >= 2
    assert [r.node_id for r in world.cluster.observe().replicas] == [head.id, head.id]
    assert len(world.serving("/a")) == 2

    (proxy,) = [p for p in world.cluster.observe().proxies if p.node_id == going.id]
    assert proxy.phase is Phase.READY  # it says that it will go, and serves on
    assert [what for what in world.cluster.log if what[1] == proxy.id and "proxy" in what[0]] == [
        ("start_proxy", proxy.id),
        ("warn_proxy", proxy.id),
    ]
    world.clock.advance(NOTICE_S)
    for _ in range(4):
        await world.look()
    assert [p.node_id for p in world.cluster.observe().proxies] == [head.id]


@pytest.mark.anyio
async def test_nothing_new_comes_to_a_node_that_drains(world: World) -> None:
    head, going = world.cluster.nodes()
    world.cluster.set_nodes(head, replace(going, drains=True))
    assert (await world.apply({**A, "num_replicas": 4}, http_options=EVERY))["outcome"] == "applied"
    observed = world.cluster.observe()
    assert {actor.node_id for actor in (*observed.replicas, *observed.proxies, *observed.standbys)} == {head.id}
