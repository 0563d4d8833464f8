"""Deployments that share a process are started, rolled and replaced together."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from world import World, request

from serveconf.plan.processes import seen_together
from serveconf.plan.state import Observed, ReplicaPhase, ReplicaState
from serveconf.reconcile.placement import fit_in
from serveconf.reconcile.ports import NodeState

pytestmark = pytest.mark.anyio


def shared(name: str, **said: Any) -> dict[str, Any]:
    return {"name": name, "import_path": f"{name}:app", "process": "small", **said}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def processes(world: World) -> dict[str, list[str]]:
    """Process -> the deployments that have a replica in it."""
    found: dict[str, list[str]] = {}
    for replica in sorted(world.cluster.observe().replicas, key=lambda r: r.deployment):
        found.setdefault(replica.process, []).append(replica.deployment)
    return found


async def test_one_process_holds_a_replica_of_each(world: World) -> None:
    result = await world.apply(shared("a"), shared("b"), {"name": "c", "import_path": "c:app"})
    assert result["outcome"] == "applied"
    assert sorted(processes(world).values()) == [["a", "b"], ["c"]]
    assert len(world.serving("/a")) == len(world.serving("/b")) == 1


async def test_each_replica_is_a_process_with_all_of_them(world: World) -> None:
    await world.apply(shared("a", num_replicas=3), shared("b", num_replicas=3))
    assert list(processes(world).values()) == [["a", "b"]] * 3


async def test_code_of_one_rolls_all_and_the_plan_says_why(world: World) -> None:
    await world.apply(shared("a"), shared("b"))
    before = world.replicas()
    result = await world.apply(shared("a"), shared("b"), files={"a.py": "2", "b.py": "1", "c.py": "1"})
    reasons = {action["deployment"]: (action["action"], action["reason"]) for action in result["actions"]}
    assert reasons == {"a": ("roll", "code changed: a.py"), "b": ("roll", "its process is rolled for: a")}
    assert not set(before) & set(world.replicas())
    assert list(processes(world).values()) == [["a", "b"]]


async def test_code_of_none_rolls_none(world: World) -> None:
    await world.apply(shared("a"), shared("b"))
    before = world.replicas()
    result = await world.apply(shared("a"), shared("b"), files={"a.py": "1", "b.py": "1", "c.py": "2"})
    assert result["outcome"] == "unchanged"
    assert world.replicas() == before


async def test_one_that_comes_and_one_that_goes_roll_the_others(world: World) -> None:
    await world.apply(shared("a"), shared("b"))
    result = await world.apply(shared("a"), shared("c"))
    reasons = {action["deployment"]: action["reason"] for action in result["actions"]}
    assert reasons == {
        "a": "its process is rolled for: b, c",
        "b": "no longer in the spec",
        "c": "new deployment",
    }
    assert list(processes(world).values()) == [["a", "c"]]


async def test_a_route_and_a_number_of_one_roll_nobody(world: World) -> None:
    await world.apply(shared("a"), shared("b"))
    before = world.replicas()
    await world.apply(shared("a", route_prefix="/other"), shared("b"))
    assert world.replicas() == before
    await world.apply(shared("a", num_replicas=2), shared("b", num_replicas=2))
    assert len(processes(world)) == 2
    assert set(before) < set(world.replicas())


async def test_fewer_replicas_are_the_same_processes_for_all(world: World) -> None:
    await world.apply(shared("a", num_replicas=3), shared("b", num_replicas=3))
    await world.apply(shared("a", num_replicas=1), shared("b", num_replicas=1))
    assert list(processes(world).values()) == [["a", "b"]]


async def test_a_process_that_dies_is_replaced_as_a_whole(world: World) -> None:
    await world.apply(shared("a"), shared("b"))
    (before,) = processes(world)
    world.cluster.kill(world.serving("/a")[0])
    for _ in range(6):
        await world.look()
    (after,) = processes(world)
    assert after != before
    assert processes(world)[after] == ["a", "b"]
    assert len(world.serving("/a")) == len(world.serving("/b")) == 1


async def test_one_unhealthy_app_has_its_process_replaced_and_the_others_serve_on_meanwhile(world: World) -> None:
    await world.apply(shared("a"), shared("b"))
    sick, well = world.serving("/a")[0], world.serving("/b")[0]
    world.cluster.sicken(sick)
    await world.reconciler.pass_once()
    assert world.serving("/b") == [well]
    replaced = world.cluster.observe().of("default", "b")
    assert len(replaced) == 2
    for _ in range(6):
        await world.look()
    assert well not in world.replicas()
    assert sick not in world.replicas()
    assert list(processes(world).values()) == [["a", "b"]]


async def test_one_that_does_not_start_takes_the_whole_change_back(world: World) -> None:
    await world.apply(shared("a"), shared("b"))
    before = world.replicas()
    operation = world.plane.apply(request(shared("a"), shared("b"), files={"a.py": "2", "b.py": "1", "c.py": "1"}))
    new: list[str] = []
    while not new:
        await asyncio.sleep(0)
        await world.reconciler.pass_once()
        new = [r for r in world.replicas() if r not in before]
    world.cluster.kill(new[0])
    result = await world.run(operation)
    assert result["outcome"] == "rolled_back"
    assert world.replicas() == before


async def test_the_busiest_says_how_many_processes_there_are(world: World) -> None:
    scaling = {"min_replicas": 1, "max_replicas": 5}
    await world.apply(shared("a", autoscaling_config=scaling), shared("b", autoscaling_config=scaling))
    world.reconciler.scaling._numbers.decide("default", "a", 3)
    for _ in range(4):
        await world.look()
    assert list(processes(world).values()) == [["a", "b"]] * 3


async def test_scaling_one_by_hand_scales_its_process(world: World) -> None:
    await world.apply(shared("a"), shared("b"))
    await world.look()
    assert world.reconciler.scaling.hold("default", "b", 2) == (1, 2)
    for _ in range(4):
        await world.look()
    assert list(processes(world).values()) == [["a", "b"]] * 2


async def test_what_differs_only_in_code_is_refused(world: World) -> None:
    await world.apply(shared("a"), shared("b"))
    await world.apply(shared("a"), code="other", files={"a.py": "9"}, merge=True)
    revision = world.ledger.revision("default", world.ledger.heads["default"].current)
    assert revision is not None
    assert revision.number == 1


async def test_a_process_takes_room_once(world: World) -> None:
    options = {"num_cpus": 1}
    await world.apply(shared("a", ray_actor_options=options), shared("b", ray_actor_options=options))
    desired = world.ledger.current("default")
    assert desired is not None
    none = Observed()
    one_place = (NodeState(id="n", is_head=True, total={"CPU": 1.0}, available={"CPU": 1.0}),)
    assert fit_in(desired, None, none, one_place) == (desired, ())


def test_the_worst_phase_and_the_load_of_a_process_are_everyones() -> None:
    one = ReplicaState(id="1", stack="s", deployment="a", version="v", phase=ReplicaPhase.READY, process="p", ongoing=2)
    sick = replace(one, id="2", deployment="b", phase=ReplicaPhase.UNHEALTHY, message="ill", ongoing=1)
    alone = replace(one, id="3", deployment="c", process="")
    seen = {r.id: r for r in seen_together(Observed(replicas=(one, sick, alone))).replicas}
    assert [(r.phase.value, r.ongoing, r.goes) for r in seen.values()] == [
        ("Unhealthy", 3, True),
        ("Unhealthy", 3, False),
        ("Ready", 2, False),
    ]
