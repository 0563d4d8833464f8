"""Bound applications while they start: what is ready is told to who starts beside it, and to nobody when all is served."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from world import World, request

from serveconf.plan.state import ReplicaPhase
from serveconf.reconcile.ports import TargetReport
from serveconf.routing import beginning_key, decode_routes

pytestmark = pytest.mark.anyio

A: dict[str, Any] = {"name": "a", "import_path": "a:app"}
PLAIN: dict[str, Any] = {"name": "b", "import_path": "b:app"}
GRAPH = ({"name": "Model", "options": {}, "calls": []},)


@pytest.fixture
def world(tmp_path: Any) -> World:
    made = World(tmp_path)
    made.preflight.reports["a:app"] = TargetReport(ok=True, modules=("a.py",), graph=GRAPH)
    return made


async def told(world: World) -> dict[str, list[str]]:
    data = await world.store.get(beginning_key("default"))
    return {route.deployment: [r.id for r in route.replicas] for route in decode_routes(data or b"[]")}


async def test_of_an_application_that_starts_what_is_ready_is_told_until_it_is_served(world: World) -> None:
    operation = world.plane.apply(request(A, PLAIN))
    while "default" not in world.ledger.heads:
        await asyncio.sleep(0)
    await world.reconciler.pass_once()
    assert await told(world) == {"a": [], "a.Model": []}
    model = next(r.id for r in world.cluster.observe().replicas if r.deployment == "a.Model")
    world.cluster.get_ready(model)
    await world.reconciler.pass_once()
    assert await told(world) == {"a": [], "a.Model": [model]}
    assert (await world.run(operation))["outcome"] == "applied"
    assert await told(world) == {}
    assert all(r.phase is ReplicaPhase.READY for r in world.cluster.observe().replicas)


async def test_nothing_is_told_of_what_stays_and_after_an_apply_that_fails(world: World) -> None:
    await world.apply(A, PLAIN)
    other = {"a.py": "1", "b.py": "2", "c.py": "1"}
    operation = world.plane.apply(request(A, PLAIN, files=other))
    while world.ledger.heads["default"].target is None:
        await asyncio.sleep(0)
    await world.reconciler.pass_once()
    assert await told(world) == {}
    await world.run(operation)
    plan = await world.plane.plan(request(A, PLAIN, files={**other, "a.py": "2"}))
    broken = next(x.after["version"] for x in plan.actions if x.deployment == "a" and x.after)
    world.cluster.broken.add(broken)
    assert (await world.apply(A, PLAIN, files={**other, "a.py": "2"}))["outcome"] == "rolled_back"
    assert await told(world) == {}


async def test_a_change_rolls_the_deployments_that_need_it(world: World) -> None:
    node = {**GRAPH[0], "modules": ["a.py", "model.py"]}
    world.preflight.reports["a:app"] = TargetReport(ok=True, modules=("a.py", "outer.py"), graph=(node,))
    files = {"a.py": "1", "outer.py": "1", "model.py": "1"}
    await world.apply(A, files=files)
    for changed, rolled in (("model.py", {"a.Model"}), ("outer.py", {"a"}), ("a.py", {"a", "a.Model"})):
        before, looks = {r.id for r in world.cluster.observe().replicas}, len(world.preflight.asked)
        files = {**files, changed: "2"}
        assert (await world.apply(A, files=files))["outcome"] == "applied"
        assert {r.deployment for r in world.cluster.observe().replicas if r.id not in before} == rolled
        assert len(world.preflight.asked) == looks + 1
    looks = len(world.preflight.asked)
    await world.apply({**A, "max_ongoing_requests": 7}, files=files)
    assert len(world.preflight.asked) == looks
