"""Changes that have to prove themselves: what is watched after the switch, and what happens when it goes wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from world import World, request

from serveconf.reconcile.baking import since
from serveconf.reconcile.ports import Answers, Totals

pytestmark = pytest.mark.anyio

A: dict[str, Any] = {"name": "a", "import_path": "a:app", "num_replicas": 2}
BAKED: dict[str, Any] = {**A, "rollout": {"bake_s": 10, "max_error_rate": 0.1}}
NEW = {"a.py": "2", "b.py": "1", "c.py": "1"}


async def begin_bake(world: World, *deployments: dict[str, Any]) -> Any:
    """A change of the code that has just been switched to."""
    operation = world.plane.apply(request(*deployments, files=NEW))
    for _ in range(10):
        await asyncio.sleep(0)
        await world.look()
    assert world.ledger.heads["default"].baking_until is not None
    return operation


async def test_old_replicas_stay_until_the_bake_is_over(world: World) -> None:
    await world.apply(A)
    old = set(world.serving("/a"))
    operation = await begin_bake(world, BAKED)
    assert not old & set(world.serving("/a"))
    assert old <= set(world.replicas())
    assert operation.result is None
    world.cluster.answered["default/a"] = Answers(1000, 100)
    world.clock.advance(10)
    result = await world.run(operation)
    assert result["outcome"] == "applied"
    assert not old & set(world.replicas())


async def test_too_many_errors_switch_back_to_the_very_replicas_that_served_before(world: World) -> None:
    await world.apply(A)
    old = world.serving("/a")
    operation = await begin_bake(world, BAKED)
    world.cluster.answered["default/a"] = Answers(100, 11)
    world.clock.advance(1)
    result = await world.run(operation)
    assert (result["outcome"], result["changed"]) == ("rolled_back", False)
    assert [(p["code"], p["deployment"]) for p in result["problems"]] == [("error_rate", "a")]
    assert "11 of 100" in result["problems"][0]["message"]
    assert world.serving("/a") == old
    assert world.replicas() == old
    assert world.ledger.heads["default"].current == 1


async def test_few_answers_are_judged_only_when_the_time_is_up(world: World) -> None:
    await world.apply(A)
    operation = await begin_bake(world, BAKED)
    world.cluster.answered["default/a"] = Answers(3, 3)
    world.clock.advance(1)
    await world.look()
    assert world.ledger.heads["default"].baking_until is not None
    world.clock.advance(9)
    assert (await world.run(operation))["outcome"] == "rolled_back"


async def test_errors_of_what_did_not_change_are_nobodys_fault(world: World) -> None:
    b = {"name": "b", "import_path": "b:app", "rollout": {"bake_s": 10}}
    await world.apply(BAKED, b)
    operation = world.plane.apply(request(BAKED, b, files=NEW))
    for _ in range(10):
        await asyncio.sleep(0)
        await world.look()
    world.cluster.answered["default/b"] = Answers(100, 100)
    world.clock.advance(10)
    assert (await world.run(operation))["outcome"] == "applied"


async def test_a_controller_that_comes_back_during_a_bake_goes_on_with_it(world: World) -> None:
    await world.apply(A)
    old = world.serving("/a")
    operation = await begin_bake(world, BAKED)
    operation.task.cancel()
    await world.restart()
    await world.look()
    world.cluster.answered["default/a"] = Answers(100, 50)
    world.clock.advance(1)
    for _ in range(4):
        await world.look()
    assert world.serving("/a") == old
    assert world.ledger.revisions["default"][2].outcome == "rolled_back"


@pytest.mark.parametrize("set_by_s", [3600, -3600])
async def test_a_clock_that_is_set_makes_a_bake_no_shorter_and_no_longer(world: World, set_by_s: float) -> None:
    await world.apply(A)
    operation = await begin_bake(world, BAKED)
    world.clock.set_wall(set_by_s)
    world.clock.advance(9)
    await world.look()
    assert world.ledger.heads["default"].baking_until is not None
    world.clock.advance(1)
    assert (await world.run(operation))["outcome"] == "applied"


@pytest.mark.parametrize("ahead_s", [3600, -3600])
async def test_a_controller_whose_clock_is_another_watches_a_bake_once_more_as_a_whole(
    world: World, ahead_s: float
) -> None:
    await world.apply(A)
    old = world.serving("/a")
    operation = await begin_bake(world, BAKED)
    operation.task.cancel()
    world.clock.set_wall(ahead_s)
    await world.restart()
    for _ in range(4):
        await world.look()
    assert world.ledger.heads["default"].baking_until is not None
    world.cluster.answered["default/a"] = Answers(100, 50)
    world.clock.advance(1)
    for _ in range(4):
        await world.look()
    assert world.serving("/a") == old


async def test_an_interrupted_bake_is_completed_not_undone(world: World) -> None:
    await world.apply(A)
    operation = await begin_bake(world, BAKED)
    assert not (await world.plane.cancel(operation.id)).undone
    world.clock.advance(10)
    assert (await world.run(operation))["outcome"] == "applied"


async def test_a_removed_deployment_comes_back_with_a_bake_that_fails(world: World) -> None:
    b = {"name": "b", "import_path": "b:app"}
    await world.apply(A, b)
    (old,) = world.serving("/b")
    operation = await begin_bake(world, BAKED)
    assert old in world.replicas()
    world.cluster.answered["default/a"] = Answers(100, 50)
    world.clock.advance(1)
    assert (await world.run(operation))["outcome"] == "rolled_back"
    assert world.serving("/b") == [old]


def test_a_proxy_that_is_new_has_begun_with_nothing() -> None:
    first = {("p", 1): Totals(deployments={"s/a": Answers(100, 10)})}
    now = {
        ("p", 1): Totals(deployments={"s/a": Answers(150, 11)}),
        ("p", 2): Totals(deployments={"s/a": Answers(7, 2)}),
    }
    assert since(first, now, "s/a") == Answers(57, 3)
