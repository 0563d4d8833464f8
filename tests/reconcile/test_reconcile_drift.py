"""What of a stack is not as it was applied."""

from __future__ import annotations

from pathlib import Path

import pytest
from world import World

from serveconf.errors import NotFound
from serveconf.plan.state import Observed
from serveconf.reconcile.drift import find_drift

pytestmark = pytest.mark.anyio

A = {"name": "a", "import_path": "a:app", "num_replicas": 2}
B = {"name": "b", "import_path": "b:app"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    await world.apply(A, B)
    return world


def drift(world: World) -> list[tuple[str, str | None]]:
    found = find_drift(world.ledger, world.cluster.observe(), "default")
    return [(action.action, action.deployment) for action in found.actions]


async def test_there_is_none_after_an_apply_nor_after_a_second_one(world: World) -> None:
    assert drift(world) == []
    await world.apply({**A, "num_replicas": 1}, B)
    assert drift(world) == []
    await world.apply(B, stack="other")
    assert drift(world) == []


async def test_replicas_and_proxies_that_are_gone_are_drift(world: World) -> None:
    world.cluster.kill(next(r for r in world.replicas() if ".a." in r))
    assert drift(world) == [("scale", "a")]
    world.cluster.kill(next(r for r in world.replicas() if ".b." in r))
    assert drift(world) == [("scale", "a"), ("scale", "b")]
    found = find_drift(world.ledger, Observed(), "default")
    assert [action.deployment for action in found.actions] == [None, "a", "b"]


async def test_a_pin_is_told_and_an_unknown_stack_is_not_found(world: World) -> None:
    await world.apply({**A, "num_replicas": 1}, B)
    await world.run(world.plane.rollback("default", None, _request()))
    found = find_drift(world.ledger, world.cluster.observe(), "default")
    assert not found.changed
    assert "pinned" in found.warnings[0]
    with pytest.raises(NotFound):
        find_drift(world.ledger, world.cluster.observe(), "nowhere")


def _request():  # type: ignore[no-untyped-def]
    from world import request

    return request()
