"""A plan that imports nothing: what it takes from the revision that serves, and what it says of what it cannot know."""

from __future__ import annotations

from typing import Any

import pytest
from world import World, request

from serveconf.reconcile.unseen import NOTE

pytestmark = pytest.mark.anyio

A: dict[str, Any] = {"name": "a", "import_path": "a:app"}
B: dict[str, Any] = {"name": "b", "import_path": "b:app"}


async def plan(world: World, *deployments: dict[str, Any], **more: Any) -> tuple[list[tuple[str, str | None]], bool]:
    asked = len(world.preflight.asked)
    found = (await world.plane.plan(request(*deployments, **more), look=False)).as_json()
    assert len(world.preflight.asked) == asked
    return [(x["action"], x["deployment"]) for x in found["actions"]], NOTE in found.get("warnings", ())


async def test_the_same_again_is_no_change_and_nothing_is_guessed(world: World) -> None:
    await world.apply(A, B)
    assert await plan(world, A, B) == ([], False)
    assert await plan(world, {**A, "num_replicas": 2}, B) == ([("scale", "a")], False)


async def test_what_a_deployment_imported_last_time_decides_whether_it_rolls(world: World) -> None:
    await world.apply(A, B)
    changed = {"a.py": "2", "b.py": "1", "c.py": "1"}
    assert await plan(world, A, B, files=changed) == ([("roll", "a")], True)


async def test_of_what_is_new_all_code_counts(world: World) -> None:
    await world.apply(A)
    assert await plan(world, A, {**B, "name": "new"}) == ([("create", "new")], True)
