"""Starts are admitted as the cores allow: the ready ones before new ones begin, and what hangs holds up nobody for long."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from world import World, request

from serveconf.plan.state import DesiredDeployment, Observed, ReplicaPhase, ReplicaState
from serveconf.reconcile.admission import KNOWN, LONGEST_S, START_S, Admission, Places, Start, places
from serveconf.reconcile.ports import NodeState
from serveconf.testing import ManualClock

pytestmark = pytest.mark.anyio

MANY = [{"name": f"d{number}", "import_path": f"d{number}:app"} for number in range(7)]


def node(name: str = "n", cpus: float = 2, **more: Any) -> NodeState:
    return NodeState(id=name, is_head=name == "n", total={"CPU": cpus}, available={"CPU": 100.0}, **more)


def starting(name: str, where: str = "n", **more: Any) -> ReplicaState:
    return ReplicaState(
        id=name, stack="s", deployment="d", version="v", phase=ReplicaPhase.STARTING, node_id=where, **more
    )


def deployment(**options: Any) -> DesiredDeployment:
    return DesiredDeployment(
        name="d",
        prefix="/d",
        num_replicas=1,
        version="v",
        config_hash="",
        code="c",
        spec={"ray_actor_options": options},
    )


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.cluster.set_nodes(node("node0"))
    return world


def begun(world: World) -> list[str]:
    return [name for what, name in world.cluster.log if what == "start"]


async def look(world: World) -> None:
    """A pass of which nothing comes true."""
    await world.reconciler.pass_once()
    await asyncio.sleep(0)


async def test_as_many_start_as_there_are_cores_and_each_that_is_ready_makes_room(world: World) -> None:
    operation = world.plane.apply(request(*MANY))
    seen = []
    while operation.result is None:
        await asyncio.sleep(0)
        await world.reconciler.pass_once()
        await asyncio.sleep(0)
        seen.append(sum(r.phase is ReplicaPhase.STARTING for r in world.cluster.observe().replicas))
        world.cluster.settle()
    assert operation.result["outcome"] == "applied"
    assert max(seen) == 2 and len(begun(world)) == 7


async def test_what_hangs_gives_its_place_up_and_another_stack_waits_for_none(world: World) -> None:
    hanging = world.plane.apply(request(*MANY))
    while len(begun(world)) < 2:
        await asyncio.sleep(0)
        await look(world)
    for _ in range(3):
        await look(world)
    assert len(begun(world)) == 2
    other = world.plane.apply(request({"name": "lone", "import_path": "lone:app"}, stack="other"))
    while len(begun(world)) < 3:
        await asyncio.sleep(0)
        await look(world)
    assert begun(world)[2].startswith("other.lone.")
    await world.clock.sleep(START_S)
    await look(world)
    assert len(begun(world)) == 5
    assert (await world.run(other))["outcome"] == (await world.run(hanging))["outcome"] == "applied"


async def test_the_next_look_is_when_a_place_is_given_up(world: World) -> None:
    operation = world.plane.apply(request(*MANY))
    while len(begun(world)) < 2:
        await asyncio.sleep(0)
        pause = await world.reconciler.pass_once()
    assert pause == START_S
    assert (await world.run(operation))["outcome"] == "applied"


async def test_a_start_counts_until_it_is_ready_or_has_had_its_time() -> None:
    clock = ManualClock()
    admission = Admission(clock)
    one, other = starting("a"), starting("b", process="p")
    beside = starting("c", process="p")
    with admission.begins("s", "d"):
        on = admission.look(Observed(replicas=(one, other, beside)))
    assert sorted(start.node_id for start in on) == ["", "n", "n"]
    await clock.sleep(START_S / 2)
    ready = ReplicaState(id="a", stack="s", deployment="d", version="v", phase=ReplicaPhase.READY, node_id="n")
    assert len(admission.look(Observed(replicas=(ready, other, beside, starting("new"))))) == 2
    await clock.sleep(START_S / 2)
    assert [start.left_s for start in admission.look(Observed(replicas=(other, starting("new"))))] == [START_S / 2]
    await clock.sleep(START_S / 2)
    assert admission.look(Observed(replicas=(other, starting("new")))) == []


@pytest.mark.parametrize(
    ("told", "held_s"),
    [
        ({"start_cpu_s": 5.0}, 10.0),
        ({"start_cpu_s": 0.1}, START_S),
        ({"start_cpu_s": 900.0}, LONGEST_S),
        ({"start_cpu_s": 5.0, "was_standby": True}, START_S),
        ({}, START_S),  # a version that did not tell
    ],
)
async def test_a_start_has_twice_the_time_that_the_last_one_took_of_a_core(told: dict[str, Any], held_s: float) -> None:
    admission = Admission(ManualClock())
    admission.look(Observed(replicas=(starting("a"),)))
    admission.look(Observed(replicas=(replace(starting("a"), phase=ReplicaPhase.READY, **told),)))
    other = replace(starting("other"), deployment="other")
    on = admission.look(Observed(replicas=(starting("b"), other)))
    assert [start.left_s for start in on] == [held_s, START_S]


def test_of_deployments_long_gone_nothing_is_remembered() -> None:
    admission = Admission(ManualClock())
    for number in range(KNOWN + 5):
        one = replace(starting(f"r{number}"), deployment=f"d{number}")
        admission.look(Observed(replicas=(one,)))
        admission.look(Observed(replicas=(replace(one, phase=ReplicaPhase.READY, start_cpu_s=5.0),)))
    on = admission.look(
        Observed(replicas=tuple(replace(starting(name), deployment=name) for name in ("d4", f"d{KNOWN + 4}")))
    )
    assert [start.left_s for start in on] == [START_S, 10.0]


def test_each_node_has_its_own_places_and_one_where_it_may_not_be_has_none() -> None:
    nodes = [node("n", 2), node("big", 8, labels={"zone": "east"}), node("goes", 8, drains=True)]
    on = [Start(stack="s", node_id="n", left_s=1), Start(stack="s", node_id="n", left_s=1)]
    assert [places(one) for one in nodes] == [2, 8, 8] and places(node("none", 0)) == 2

    def room(stack: str, on: list[Start], **options: Any) -> int:
        return Places(stack, on, nodes).take(deployment(**options), 99)

    assert room("s", on) == 8
    assert room("s", [*on, Start(stack="t", node_id="", left_s=1)]) == 7
    assert room("s", on, label_selector={"zone": "!east"}) == 0
    assert room("other", on, label_selector={"zone": "!east"}) == 1
    assert Places("s", [], []).take(deployment(), 2) == 1  # nobody knows of any node just now
    free = Places("s", on, nodes)
    assert [free.take(deployment(), 3) for _ in range(4)] == [3, 3, 2, 0]
