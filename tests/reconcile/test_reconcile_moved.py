"""A deployment that is renamed by ``moved``: its replicas go on, whatever else changes, fails or dies meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace
from world import World, request

from serveconf.reconcile.ports import Answers
from serveconf.reconcile.status import make_status
from serveconf.routing import Route

pytestmark = pytest.mark.anyio

A: dict[str, Any] = {"name": "a", "import_path": "a:app", "num_replicas": 2, "route_prefix": "/a"}
B: dict[str, Any] = {"name": "b", "import_path": "b:app"}
NEW_A: dict[str, Any] = {**A, "name": "new"}
MOVED = {"a": "new"}
OTHER_CODE = {"a.py": "2", "b.py": "1", "c.py": "1"}


def route(world: World, deployment: str) -> Route:
    return next(r for r in world.live.routes if r.deployment == deployment)


def names(world: World) -> set[str]:
    return {r.deployment for r in world.cluster.observe().replicas}


def actions(result: dict[str, Any]) -> list[tuple[str, str | None, str, str]]:
    return [(x["action"], x["deployment"], x["cost"], x["reason"]) for x in result["actions"]]


async def on_its_way(world: World) -> None:
    """The apply has begun, and what it starts is not ready yet."""
    while world.ledger.heads["default"].target is None:
        await asyncio.sleep(0)
    for _ in range(3):
        await world.reconciler.pass_once()


async def test_a_rename_is_a_route_and_every_replica_stays(world: World) -> None:
    await world.apply(A, B)
    before = world.replicas()
    result = await world.apply(NEW_A, B, moved=MOVED)
    assert (result["outcome"], actions(result)) == ("applied", [("route", "new", "route", "moved: a → new")])
    assert world.replicas() == before
    assert {(r.prefix, r.deployment) for r in world.live.routes} == {("/a", "new"), ("/b", "b")}
    assert route(world, "new").formerly == ("a",)
    assert names(world) == {"new", "b"}
    assert not [entry for entry in world.cluster.log if entry[0] == "stop"]


async def test_the_same_file_again_changes_nothing_and_neither_does_one_without_the_item(world: World) -> None:
    await world.apply(A, B)
    await world.apply(NEW_A, B, moved=MOVED)
    before = world.replicas()
    assert (await world.apply(NEW_A, B, moved=MOVED))["outcome"] == "unchanged"
    assert (await world.apply(NEW_A, B))["outcome"] == "unchanged"
    assert world.replicas() == before


async def test_without_the_item_a_rename_is_another_deployment(world: World) -> None:
    await world.apply(A)
    before = world.replicas()
    result = await world.apply(NEW_A)
    assert [x[:2] for x in actions(result)] == [("create", "new"), ("remove", "a")]
    assert not set(before) & set(world.replicas())


async def test_a_name_that_was_never_there_is_nothing_to_move(world: World) -> None:
    result = await world.apply(NEW_A, moved=MOVED)
    assert [x[:2] for x in actions(result)] == [("proxy", None), ("create", "new")]
    assert (await world.apply(NEW_A, B, moved=MOVED))["outcome"] == "applied"


async def test_a_default_prefix_moves_with_the_name(world: World) -> None:
    await world.apply({"name": "a", "import_path": "a:app"})
    before = world.replicas()
    result = await world.apply({"name": "new", "import_path": "a:app"}, moved=MOVED)
    assert [x[:2] for x in actions(result)] == [("route", "new"), ("route", "new")]
    assert {r.prefix for r in world.live.routes} == {"/new"}
    assert world.replicas() == before


async def test_other_code_makes_it_a_move_and_a_roll(world: World) -> None:
    await world.apply(A)
    before = world.serving("/a")
    result = await world.apply(NEW_A, moved=MOVED, files=OTHER_CODE)
    assert [x[:2] for x in actions(result)] == [("route", "new"), ("roll", "new")]
    assert result["actions"][1]["reason"] == "code changed: a.py"
    assert not set(world.serving("/a")) & set(before)
    assert world.replicas() == sorted(world.serving("/a"))
    assert names(world) == {"new"}


async def test_while_it_rolls_the_old_name_serves_until_the_switch(world: World) -> None:
    await world.apply(A)
    before = world.serving("/a")
    operation = world.plane.apply(request(NEW_A, moved=MOVED, files=OTHER_CODE))
    await on_its_way(world)
    assert route(world, "a").replicas[0].id in before
    (stack,) = make_status(world.ledger, world.cluster.observe(), pid=1, address="x")["stacks"]
    assert [d["name"] for d in stack["deployments"]] == ["new"]
    assert {r["id"] for r in stack["deployments"][0]["replicas"]} >= set(before)
    assert (await world.run(operation))["outcome"] == "applied"


async def test_a_roll_that_fails_leaves_the_old_name_and_its_replicas(world: World) -> None:
    await world.apply(A)
    before, table = world.replicas(), world.live
    plan = await world.plane.plan(request(NEW_A, moved=MOVED, files=OTHER_CODE))
    world.cluster.broken.add(next(x.after["version"] for x in plan.actions if x.after and "version" in x.after))
    result = await world.apply(NEW_A, moved=MOVED, files=OTHER_CODE)
    assert result["outcome"] == "rolled_back"
    assert (world.replicas(), names(world)) == (before, {"a"})
    assert world.live == table


async def test_waves_of_a_roll_serve_under_the_old_name_until_the_last(world: World) -> None:
    one_by_one = {"rollout": {"max_surge": 0, "max_unavailable": 1}}
    await world.apply({**A, **one_by_one})
    before = world.replicas()
    result = await world.apply({**NEW_A, **one_by_one}, moved=MOVED, files=OTHER_CODE)
    assert result["outcome"] == "applied"
    assert not set(before) & set(world.replicas())
    assert {r.deployment for r in world.live.routes} == {"new"}


async def test_more_replicas_and_a_new_name_at_once_keep_those_that_are_there(world: World) -> None:
    await world.apply(A)
    before = world.replicas()
    result = await world.apply({**NEW_A, "num_replicas": 3}, moved=MOVED)
    assert [x[:2] for x in actions(result)] == [("route", "new"), ("scale", "new")]
    assert len(world.serving("/a")) == 3
    assert set(before) < set(world.serving("/a"))
    assert names(world) == {"new"}


async def test_a_new_user_config_is_handed_to_the_replicas_that_stay(world: World) -> None:
    await world.apply(A)
    before = world.replicas()
    result = await world.apply({**NEW_A, "user_config": {"x": 1}}, moved=MOVED)
    assert [x[:2] for x in actions(result)] == [("route", "new"), ("reconfigure", "new")]
    assert world.replicas() == before


async def test_a_rollback_moves_back_and_a_rollback_of_that_moves_on(world: World) -> None:
    await world.apply(A)
    await world.apply(NEW_A, moved=MOVED)
    before = world.replicas()
    plan = await world.plane.plan_rollback("default", None)
    assert [str(x.why[0]) for x in plan.actions] == ["moved: new → a"]
    await world.run(world.plane.rollback("default", 1, request()))
    assert (world.replicas(), names(world)) == (before, {"a"})
    assert {r.deployment for r in world.live.routes} == {"a"}
    await world.run(world.plane.rollback("default", 2, request()))
    assert (world.replicas(), names(world)) == (before, {"new"})


async def test_a_rollback_goes_back_over_two_moves_and_items_that_are_gone(world: World) -> None:
    await world.apply(A)
    await world.apply(NEW_A, moved=MOVED)
    await world.apply({**A, "name": "newest"}, moved={"new": "newest"})
    await world.apply({**A, "name": "newest"}, B)
    before = [r for r in world.replicas() if ".b." not in r]
    await world.run(world.plane.rollback("default", 1, request()))
    assert (world.replicas(), names(world)) == (before, {"a"})


async def test_a_file_that_was_kept_through_two_moves_brings_the_oldest_name_along(world: World) -> None:
    await world.apply(A)
    before = world.replicas()
    result = await world.apply({**A, "name": "newest"}, moved={"a": "new", "new": "newest"})
    assert actions(result) == [("route", "newest", "route", "moved: a → newest")]
    assert (world.replicas(), names(world)) == (before, {"newest"})


async def test_a_controller_that_dies_before_the_switch_goes_on_with_the_move(world: World) -> None:
    await world.apply(A)
    before = world.replicas()
    operation = world.plane.apply(request({**NEW_A, "num_replicas": 3}, moved=MOVED))
    await on_its_way(world)
    assert operation.task is not None
    operation.task.cancel()
    await world.restart()
    for _ in range(6):
        await world.look()
    assert set(before) < set(world.serving("/a"))
    assert (names(world), len(world.replicas())) == ({"new"}, 3)


async def test_a_controller_that_dies_after_the_switch_gives_the_names(world: World) -> None:
    await world.apply(A)
    before, rename = world.replicas(), world.cluster.rename_replica

    async def never(replica_id: str, deployment: str) -> None:
        await asyncio.sleep(0)

    world.cluster.rename_replica = never  # type: ignore[method-assign]
    operation = world.plane.apply(request(NEW_A, moved=MOVED))
    for _ in range(6):
        await asyncio.sleep(0)
        await world.look()
    assert {r.deployment for r in world.live.routes} == {"new"}
    assert names(world) == {"a"}
    assert operation.task is not None
    operation.task.cancel()
    world.cluster.rename_replica = rename  # type: ignore[method-assign]
    await world.restart()
    for _ in range(4):
        await world.look()
    assert (world.replicas(), names(world)) == (before, {"new"})
    assert not [entry for entry in world.cluster.log if entry[0] == "stop"]


async def test_a_replica_that_dies_after_the_move_is_replaced_under_the_new_name(world: World) -> None:
    await world.apply(A)
    await world.apply(NEW_A, moved=MOVED)
    dead, alive = world.replicas()
    world.cluster.kill(dead)
    for _ in range(6):
        await world.look()
        world.clock.advance(5)
    assert alive in world.serving("/a")
    assert len(world.serving("/a")) == 2
    assert all(r.deployment == "new" for r in world.cluster.observe().replicas)


async def test_the_old_name_is_free_again_for_another_deployment(world: World) -> None:
    await world.apply(A)
    await world.apply(NEW_A, moved=MOVED)
    before = world.replicas()
    result = await world.apply(NEW_A, {**B, "name": "a", "route_prefix": "/other"})
    assert [x[:2] for x in actions(result)] == [("create", "a")]
    assert set(before) < set(world.replicas())
    assert route(world, "new").formerly == ()
    assert sorted(names(world)) == ["a", "new"]


async def test_a_canary_of_another_deployment_runs_while_a_move_waits_for_its_end(world: World) -> None:
    tried = {**B, "rollout": {"canary": {"steps": [50], "step_s": 30, "min_requests": 0}}}
    await world.apply(A, tried)
    before = world.serving("/a")
    files = {"a.py": "1", "b.py": "2", "c.py": "1"}
    operation = world.plane.apply(request(NEW_A, tried, moved=MOVED, files=files))
    for _ in range(12):
        await asyncio.sleep(0)
        await world.look()
    assert route(world, "a").deployment == "a"
    assert [r.deployment for r in world.live.routes if r.share is not None] == ["b"]
    world.clock.advance(31)
    assert (await world.run(operation))["outcome"] == "applied"
    assert sorted(world.serving("/a")) == sorted(before)
    assert names(world) == {"new", "b"}


async def test_what_would_be_tried_as_a_canary_goes_at_once_with_a_new_name_and_the_plan_says_so(world: World) -> None:
    canary = {"rollout": {"canary": {"steps": [50], "step_s": 30, "min_requests": 0}}}
    await world.apply({**A, **canary})
    plan = await world.plane.plan(request({**NEW_A, **canary}, moved=MOVED, files=OTHER_CODE))
    (warning,) = plan.warnings
    assert "'new' is rolled at once" in warning
    assert not (await world.plane.plan(request({**NEW_A, **canary}, moved=MOVED))).warnings


async def test_a_move_alone_is_not_watched_and_one_with_other_code_goes_back_to_the_old_name(world: World) -> None:
    baked = {"rollout": {"bake_s": 30}}
    await world.apply({**A, **baked})
    before = world.replicas()
    assert (await world.apply({**NEW_A, **baked}, moved=MOVED))["outcome"] == "applied"
    operation = world.plane.apply(request({**A, **baked}, moved={"new": "a"}, files=OTHER_CODE))
    for _ in range(8):
        await asyncio.sleep(0)
        await world.look()
    assert {r.deployment for r in world.live.routes} == {"a"}
    world.cluster.answered["default/a"] = Answers(100, 50)
    for _ in range(8):
        world.clock.advance(1)
        await world.look()
    assert (await world.run(operation))["outcome"] == "rolled_back"
    assert {r.deployment for r in world.live.routes} == {"new"}
    assert (world.replicas(), names(world)) == (before, {"new"})


async def test_a_number_that_follows_the_load_moves_along(world: World) -> None:
    scaled = {"name": "a", "import_path": "a:app", "autoscaling_config": {"min_replicas": 1, "max_replicas": 5}}
    await world.apply(scaled)
    world.reconciler.scaling.hold("default", "a", 4)
    for _ in range(4):
        await world.look()
    before = world.replicas()
    assert len(before) == 4
    await world.apply({**scaled, "name": "new"}, moved=MOVED, automatic=True)
    assert (world.replicas(), names(world)) == (before, {"new"})


async def test_a_process_that_several_share_is_rolled_when_one_of_them_is_renamed(world: World) -> None:
    shared = {"process": "small"}
    await world.apply({**A, **shared}, {**B, **shared, "num_replicas": 2})
    before = world.replicas()
    result = await world.apply({**NEW_A, **shared}, {**B, **shared, "num_replicas": 2}, moved=MOVED)
    assert (result["outcome"], actions(result)) == (
        "applied",
        [
            ("roll", "b", "roll", "its process is rolled for: a, new"),
            ("route", "new", "route", "moved: a → new"),
            ("roll", "new", "roll", "its process is rolled for: a"),
        ],
    )
    assert not set(before) & set(world.replicas())
    assert names(world) == {"new", "b"}


async def test_what_is_deleted_leaves_no_item_that_leads_to_it(world: World) -> None:
    await world.apply(A, B)
    await world.apply(NEW_A, B, moved=MOVED)
    await world.apply(NEW_A, {**B, "name": "other"}, moved={**MOVED, "b": "other"})
    await world.run(world.plane.delete("default", ["new"], request()))
    spec = world.plane.history("default")[0].spec
    assert spec["moved"] == [{"from": "b", "to": "other"}]
    await world.run(world.plane.apply(replace(request({"name": "b", "import_path": "c:app"}), merge=True)))
    assert "moved" not in world.plane.history("default")[0].spec
