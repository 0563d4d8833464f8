"""What the status says after things went wrong, and that stacks do not wait for each other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from world import World, request

from serveconf.reconcile.ports import TargetReport
from serveconf.reconcile.status import make_status

pytestmark = pytest.mark.anyio

A: dict[str, Any] = {"name": "a", "import_path": "a:app"}
B: dict[str, Any] = {"name": "b", "import_path": "b:app"}


def state(world: World) -> tuple[str, str]:
    """State of the stack, and the message of its only deployment."""
    (stack,) = make_status(world.ledger, world.cluster.observe(), pid=1, address="")["stacks"]
    return stack["state"], stack["deployments"][0]["message"]


async def test_code_that_cannot_be_imported_makes_the_stack_invalid_until_it_is_mended(world: World) -> None:
    await world.apply(A)
    world.preflight.reports["a:broken"] = TargetReport(ok=False, error="ImportError: no a")
    await world.apply({**A, "import_path": "a:broken"})
    assert state(world)[0] == "Invalid"
    await world.apply(A)
    assert state(world) == ("Healthy", "")


async def test_a_rolled_back_deployment_says_why(world: World) -> None:
    await world.apply(A)
    for version in await versions(world, {**A, "init_args": [1]}):
        world.cluster.broken.add(version)
    await world.apply({**A, "init_args": [1]})
    assert state(world) == ("RolledBack", "revision 2 was not applied: RuntimeError: broken")
    await world.apply({**A, "init_args": [2]})
    assert state(world) == ("Healthy", "")


async def test_a_file_that_is_set_right_after_a_failure_is_healthy_again(world: World) -> None:
    await world.apply(A, source="/x/serve.yaml")
    for version in await versions(world, {**A, "init_args": [1]}):
        world.cluster.broken.add(version)
    for wrong in (1, 1):
        assert (await world.apply({**A, "init_args": [wrong]}, source="/x/serve.yaml"))["outcome"] == "rolled_back"
        assert state(world)[0] == "RolledBack"
    assert (await world.apply(A, source="/x/serve.yaml"))["outcome"] == "unchanged"
    assert state(world) == ("Healthy", "")
    await world.apply({**A, "init_args": [1]}, source="/x/serve.yaml")
    assert state(world)[0] == "RolledBack"


async def test_a_stack_that_waits_holds_up_no_other(world: World) -> None:
    await world.apply(A, stack="one")
    slow = world.plane.apply(request({**A, "rollout": {"bake_s": 60}, "init_args": [1]}, stack="one"))
    for _ in range(6):
        await asyncio.sleep(0)
        await world.look()
    assert world.ledger.heads["one"].baking_until is not None
    assert (await world.apply(B, stack="two"))["outcome"] == "applied"
    assert slow.result is None
    world.clock.advance(60)
    assert (await world.run(slow))["outcome"] == "applied"


async def test_a_second_apply_of_a_stack_says_that_it_waits_and_then_goes(world: World) -> None:
    first = world.plane.apply(request(A))
    second = world.plane.apply(request(A, B))
    await asyncio.sleep(0)
    await world.run(first)
    assert (await world.run(second))["revision"] == 2
    events = [event async for event in second.follow()]
    assert events[0] == {"event": "wait", "message": "another apply of stack 'default' is running"}


async def versions(world: World, deployment: dict[str, Any]) -> list[str]:
    """The versions that it will have."""
    from serveconf.reconcile.prepare import prepare

    desired = await prepare(request(deployment), revision=1, current=None, preflight=world.preflight)
    return [d.version for d in desired.deployments]
