"""What follows the load goes together with everything else: ways back, pins, canaries, deaths, full nodes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from world import World, request

from serveconf.figures import DeploymentLoad, LoadReport
from serveconf.plan.state import ReplicaPhase
from serveconf.reconcile.journal import EventKind
from serveconf.reconcile.status import make_status

pytestmark = pytest.mark.anyio

CART: dict[str, Any] = {"name": "cart", "import_path": "a:cart", "autoscaling_config": {"max_replicas": 10}}
BURST = {"arrivals": 12, "ongoing": 12, "waiting": 9, "oldest_wait_s": 0.15}
NEW = {"a.py": "2", "b.py": "1", "c.py": "1"}


async def burst(world: World) -> None:
    """Requests for six replicas, which come."""
    world.clock.advance(1)
    (proxy,) = world.cluster.observe().proxies
    world.reconciler.scaling.take(proxy.id, LoadReport(number=1, loads={"default/cart": DeploymentLoad(**BURST)}))
    for _ in range(4):
        await world.look()


async def test_a_way_back_keeps_the_number_and_its_pin_does_not_hold_it(world: World) -> None:
    await world.apply(CART)
    await world.apply({**CART, "init_args": [1]})
    await burst(world)
    assert len(world.serving("/cart")) == 6
    result = await world.run(world.plane.rollback("default", None, request()))
    assert result["outcome"] == "applied" and world.ledger.heads["default"].pinned
    assert len(world.serving("/cart")) == 6
    world.plane.scale("default", "cart", 8)
    for _ in range(4):
        await world.look()
    assert len(world.serving("/cart")) == 8 and world.ledger.heads["default"].pinned


async def test_a_stack_that_is_pinned_follows_its_load(world: World) -> None:
    await world.apply(CART)
    await world.apply({**CART, "init_args": [1]})
    await world.run(world.plane.rollback("default", None, request()))
    assert len(world.serving("/cart")) == 1
    await burst(world)
    assert len(world.serving("/cart")) == 6 and world.ledger.heads["default"].pinned


@pytest.mark.parametrize(("share", "tried"), [(10, 1), (50, 3), (90, 6)])
async def test_a_canary_has_its_share_of_the_number_and_at_the_end_all_of_it(
    world: World, share: int, tried: int
) -> None:
    rollout = {"canary": {"steps": [share], "step_s": 30, "min_requests": 0}}
    await world.apply({**CART, "rollout": rollout})
    await burst(world)
    before = set(world.serving("/cart"))
    operation = world.plane.apply(request({**CART, "rollout": rollout}, files=NEW))
    for _ in range(6):
        await asyncio.sleep(0)
        await world.look()
    (canary,) = [route for route in world.live.routes if route.share is not None]
    assert (canary.share, len(canary.replicas)) == (share, tried)
    for _ in range(70):
        world.clock.advance(0.5)
        await world.look()
    assert (await world.run(operation))["outcome"] == "applied"
    assert len(world.serving("/cart")) == 6 and before.isdisjoint(world.serving("/cart"))


async def test_who_dies_is_replaced_up_to_the_number(world: World) -> None:
    await world.apply(CART)
    await burst(world)
    dead = world.serving("/cart")[:2]
    for one in dead:
        world.cluster.kill(one)
    for _ in range(4):
        await world.look()
        world.clock.advance(1)  # the second death of a version waits for its turn
    assert len(world.serving("/cart")) == 6 and not set(dead) & set(world.serving("/cart"))
    assert not (await world.plane.plan(request(CART))).changed


async def test_what_finds_no_room_stays_wanted_and_those_that_are_there_serve(world: World) -> None:
    await world.apply(CART)
    (there,) = world.serving("/cart")
    world.cluster.settle = lambda: None  # type: ignore[method-assign]  # nobody else is placed
    await burst(world)
    assert world.serving("/cart") == [there]
    starting = [r.id for r in world.cluster.observe().replicas if r.phase is ReplicaPhase.STARTING]
    assert starting
    observed, scaled = world.cluster.observe(), world.reconciler.scaling.state
    status = make_status(world.ledger, observed, pid=1, address="", autoscaling=scaled)
    (deployment,) = status["stacks"][0]["deployments"]
    assert deployment["autoscaling"]["desired"] == 6


async def test_each_change_is_an_event_with_its_reason_and_the_numbers(world: World) -> None:
    await world.apply(CART)
    await burst(world)
    (event,) = [one for one in world.events.recent() if one.kind == EventKind.SCALE]
    assert (event.deployment, event.data["before"], event.data["after"]) == ("cart", 1, 6)
    assert event.data["cause"] and "9 of 12" in event.message
