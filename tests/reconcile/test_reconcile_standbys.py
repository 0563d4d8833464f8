"""Standbys: which there are, when they are made, and that they stand in nobody's way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from world import World, request

from serveconf.plan.state import Phase
from serveconf.reconcile.asked import kind_of
from serveconf.reconcile.ports import NodeState, TargetReport

A = {"name": "a", "import_path": "a:app"}
B = {"name": "b", "import_path": "b:app"}
NEW = {"a.py": "2", "b.py": "1", "c.py": "1"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    give(made, 64)
    return made


def give(world: World, cpus: float) -> None:
    """Each node has so many CPUs free."""
    world.cluster.set_nodes(*(replace(node, available={"CPU": cpus}) for node in world.cluster.nodes()))


async def rest(world: World, looks: int = 6) -> list[tuple[str, str]]:
    """Let everything come to rest: (node, kind) of each standby that is ready."""
    for _ in range(looks):
        await world.look()
    return sorted((s.node_id, s.kind) for s in world.cluster.observe().standbys if s.phase is Phase.READY)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"num_cpus": 0.1}, "num_cpus=0.1"),
        ({"num_cpus": 1, "memory": 5e8}, "num_cpus=1,memory=5e+08"),
        ({}, "none"),
        ({"num_cpus": 1, "num_gpus": 1}, None),
        ({"accelerator_type": "T4"}, None),
        ({"label_selector": {"a": "b"}}, None),
    ],
)
def test_a_kind_is_what_ray_is_asked_for(options: dict[str, Any], kind: str | None) -> None:
    assert kind_of(options) == kind


def test_kinds_differ_by_resources_and_environment() -> None:
    said = [{"resources": {"x": 1}}, {"resources": {"x": 2}}, {"runtime_env": {"pip": ["a"]}}, {}]
    assert len({kind_of({"num_cpus": 1, **one}) for one in said}) == 4


async def test_there_is_one_per_node_and_kind(tmp_path: Path) -> None:
    world = World(tmp_path, nodes=2)
    give(world, 64)
    await world.apply(A, {**B, "ray_actor_options": {"num_cpus": 1}}, standbys=1)
    assert await rest(world, 12) == [
        ("node0", "num_cpus=0.1"), ("node0", "num_cpus=1"), ("node1", "num_cpus=0.1"), ("node1", "num_cpus=1"),
    ]  # fmt: skip


async def test_the_largest_number_counts_and_none_is_none(world: World) -> None:
    await world.apply(A, stack="one", standbys=0)
    assert await rest(world) == []
    await world.apply({**B, "route_prefix": "/b"}, stack="two", standbys=2)
    assert len(await rest(world)) == 2
    done = await world.apply({**B, "route_prefix": "/b"}, stack="two", standbys=0)
    assert [(a["action"], a["cost"]) for a in done["actions"]] == [("update", "none")]
    assert await rest(world) == []


async def test_a_replica_takes_one_and_it_is_made_up_for_afterwards(world: World) -> None:
    await world.apply(A, standbys=1)
    assert len(await rest(world)) == 1
    await world.apply(A, files=NEW, standbys=1)
    assert [r.was_standby for r in world.cluster.observe().replicas] == [True]
    assert len(await rest(world)) == 1


async def test_one_that_ends_while_it_becomes_a_replica_is_a_retry_and_no_failure(world: World) -> None:
    await world.apply(A, standbys=1)
    await rest(world)
    operation = world.plane.apply(request(A, files=NEW, standbys=1))
    while not (taken := [r.id for r in world.cluster.observe().replicas if r.was_standby]):
        await asyncio.sleep(0)
        await world.reconciler.pass_once()
    world.cluster.kill(taken[0])
    result = await world.run(operation)
    assert (result["outcome"], result["problems"]) == ("applied", [])
    assert [(r.was_standby, r.phase) for r in world.cluster.observe().replicas] == [(False, Phase.READY)]
    assert "keep failing" not in str(world.events.recent())


async def test_none_is_made_while_an_apply_is_on(world: World) -> None:
    await world.apply(A, standbys=1)
    await rest(world)
    world.cluster.unstageable = None
    baked = {**A, "init_args": [1]}
    made = len(world.cluster.standbys)
    operation = world.plane.apply(request(baked))
    while (head := world.ledger.heads["default"]).target is None:
        await asyncio.sleep(0)
    assert head.target == 2
    await world.reconciler.pass_once()
    assert len(world.cluster.standbys) == made
    await world.run(operation)


async def test_none_is_made_while_an_upgrade_exchanges_proxies(world: World) -> None:
    await world.apply(A, standbys=1)
    (proxy,) = [p for p in world.cluster.observe().proxies if not p.stands_by]
    proxies = world.reconciler.proxies
    beginning = asyncio.ensure_future(proxies.start_beside(proxy))
    await asyncio.sleep(0)
    for standby in world.cluster.observe().standbys:  # of the old version, say
        await world.cluster.stop_standby(standby.id)
    assert await rest(world) == []
    await beginning
    assert await rest(world) == []
    await proxies.retire(proxy)
    assert len(await rest(world)) == 1


async def test_one_that_is_not_wanted_any_more_goes(world: World) -> None:
    await world.apply({**A, "ray_actor_options": {"num_cpus": 2}}, standbys=1)
    assert await rest(world) == [("node0", "num_cpus=2")]
    await world.apply(A, standbys=1)
    assert await rest(world, 10) == [("node0", "num_cpus=0.1")]


async def test_there_is_none_where_there_is_no_room(world: World) -> None:
    give(world, 0.05)
    await world.apply(A, standbys=1)
    assert await rest(world) == []


async def test_a_kind_that_does_not_start_holds_up_no_other(world: World) -> None:
    real = world.cluster.start_standby

    async def start_standby(order: Any) -> None:
        await real(order)
        if order.kind == "num_cpus=0.1":
            world.cluster.fail_standby(order.id)

    world.cluster.start_standby = start_standby  # type: ignore[method-assign]
    await world.apply(A, {**B, "ray_actor_options": {"num_cpus": 1}}, standbys=1)
    assert await rest(world, 12) == [("node0", "num_cpus=1")]


async def test_it_imports_what_the_installed_part_of_the_code_imports(world: World) -> None:
    for path, installed in (("a:app", ("numpy", "numpy.linalg")), ("b:app", ("yaml", "numpy"))):
        module = path.partition(":")[0] + ".py"
        world.preflight.reports[path] = TargetReport(ok=True, kind="asgi", modules=(module,), installed=installed)
    await world.apply(A, B, standbys=1)
    await rest(world)
    (order,) = world.cluster.standbys.values()
    assert order.modules == ("numpy", "numpy.linalg", "yaml")


async def test_those_on_a_node_that_is_gone_are_not_kept(tmp_path: Path) -> None:
    world = World(tmp_path, nodes=2)
    give(world, 64)
    await world.apply(A, standbys=1)
    assert len(await rest(world, 10)) == 2
    world.cluster.set_nodes(NodeState(id="node0", is_head=True, total={"CPU": 64.0}, available={"CPU": 64.0}))
    assert await rest(world) == [("node0", "num_cpus=0.1")]


async def test_shutdown_ends_them(world: World) -> None:
    await world.apply(A, standbys=1)
    assert await rest(world)
    stopping = asyncio.create_task(world.plane.stop_everything())
    for _ in range(20):
        await asyncio.sleep(0)
        world.cluster.settle()
    await stopping
    assert world.cluster.observe().standbys == ()
