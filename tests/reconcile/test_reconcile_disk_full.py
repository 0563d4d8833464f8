"""An apply that finds a disk full: refused by name, before anything is touched or by taking back what was started."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from world import World

from serveconf.disk import disk_full
from serveconf.reconcile.ports import Question, ReplicaOrder

pytestmark = pytest.mark.anyio

A = {"name": "a", "import_path": "a:app"}


@pytest.mark.parametrize(
    "error",
    [disk_full("code package c0de", "/tmp/code"), OSError(errno.ENOSPC, "No space left on device", "/tmp/code")],
)
async def test_where_the_code_is_looked_at_nothing_is_touched(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    await world.apply(A)
    serving = world.serving("/a")

    async def full(question: Question) -> Any:
        raise error

    monkeypatch.setattr(world.preflight, "inspect", full)
    result = await world.apply(A, files={"a.py": "2"}, code="c2")
    assert result["outcome"] == "failed"
    (problem,) = result["problems"]
    assert problem["code"] == "disk_full"
    assert "/tmp/code" in problem["message"]
    assert (world.serving("/a"), world.replicas()) == (serving, serving)


async def test_where_a_replica_is_to_start_the_apply_is_taken_back(world: World) -> None:
    await world.apply(A)
    serving, start = world.serving("/a"), world.cluster.start_replica

    async def has_no_room(order: ReplicaOrder) -> None:
        await start(order)
        world.cluster.fail(order.id, "no space left for code package c2 in /tmp/code", code="disk_full")

    world.cluster.start_replica = has_no_room  # type: ignore[method-assign]
    result = await world.apply(A, files={"a.py": "2"}, code="c2")
    assert (result["outcome"], result["problems"][0]["code"]) == ("rolled_back", "disk_full")
    assert (world.serving("/a"), world.replicas()) == (serving, serving)
