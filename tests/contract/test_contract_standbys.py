"""Processes kept warm: who takes them, what becomes of one that dies or is half taken, and when they give up their room."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from labs import FakeEngineLab
from msgspec.structs import replace
from test_contract_cluster import standby

from serveconf.cluster import node_watch
from serveconf.cluster.settings import STANDBY_PREFIX
from serveconf.errors import OperatorError

pytestmark = pytest.mark.anyio


@pytest.fixture
def lab(quick_lab: FakeEngineLab) -> FakeEngineLab:
    """Everything that takes seconds takes hundredths."""
    return quick_lab


async def test_a_standby_that_dies_while_it_is_taken_is_a_retry_that_nobody_sees(lab: FakeEngineLab) -> None:
    node = lab.cluster.nodes()[0].id
    for name in ("one", "two"):
        await lab.cluster.start_standby(standby(name, node, 0.1))
    await lab.until(lambda: len([s for s in lab.cluster.observe().standbys if s.phase == "Ready"]) == 2)
    lab.fake.actors[STANDBY_PREFIX + "one"].why_dead = "killed"  # nobody has heard of it yet
    name, _ = await taken(lab)
    await lab.until(lambda: lab.phase(name) == "Ready")
    state = lab.replica(name)
    assert state is not None
    assert state.was_standby
    assert not lab.cluster.observe().standbys


async def test_standbys_give_up_their_room(lab: FakeEngineLab) -> None:
    node = lab.fake.live_nodes[0]
    await lab.cluster.start_standby(standby("one", node.id, 2))
    await lab.until(lambda: [s.phase for s in lab.cluster.observe().standbys] == ["Ready"])
    lab.fake.live_nodes = (replace(node, available={"CPU": 1.0}),)
    await lab.cluster.refresh()
    assert lab.cluster.nodes()[0].available == {"CPU": 3.0}
    order = lab.order(1, ray_actor_options={"num_cpus": 3})
    await lab.cluster.start_replica(order)
    await lab.until(lambda: not lab.cluster.observe().standbys)


async def taken(lab: FakeEngineLab) -> tuple[str, str]:
    """A replica of the usual kind."""
    order = lab.order(1)
    await lab.cluster.start_replica(order)
    return order.id, order.deployment.name


async def test_a_controller_that_dies_between_the_order_and_the_taking_leaves_no_riddle(lab: FakeEngineLab) -> None:
    await lab.cluster.start_standby(standby("one", lab.cluster.nodes()[0].id, 0.1))
    await lab.until(lambda: [s.phase for s in lab.cluster.observe().standbys] == ["Ready"])
    order = lab.order(1)
    await lab.actors._orders.keep(STANDBY_PREFIX + "one", order)  # and then it died
    await lab.another_controller()
    assert lab.cluster.observe().of_stack("default") == ()
    assert not lab.cluster.observe().standbys
    await lab.until(lambda: not lab.fake.actors)


@pytest.mark.parametrize("fault", ["cancelled", "the store", "the actor"])
async def test_a_standby_whose_taking_is_broken_off_does_not_stay(lab: FakeEngineLab, fault: str) -> None:
    await lab.cluster.start_standby(standby("one", lab.cluster.nodes()[0].id, 0.1))
    await lab.until(lambda: [s.phase for s in lab.cluster.observe().standbys] == ["Ready"])
    actor, real = lab.fake.actors[STANDBY_PREFIX + "one"], lab.fake.store.put
    match fault:
        case "cancelled":
            actor.hung.clear()
        case "the actor":
            actor.hosted = None
        case "the store":

            async def put(key: str, value: bytes) -> None:
                raise OperatorError("silent", code="store_silent")

            lab.fake.store.put = put  # type: ignore[method-assign]
    starting = asyncio.create_task(lab.cluster.start_replica(lab.order(1)))
    if fault == "cancelled":
        await asyncio.sleep(0.02)  # while it waits for the standby, or before
        starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert starting.cancelled() == (fault == "cancelled")
    lab.fake.store.put = real  # type: ignore[method-assign]
    assert STANDBY_PREFIX + "one" not in lab.fake.actors
    assert not lab.cluster.observe().standbys


async def test_standbys_give_up_their_room_to_what_waits_for_a_place(lab: FakeEngineLab, monkeypatch: Any) -> None:
    monkeypatch.setattr(node_watch, "NODES_PERIOD_S", 0.01)
    node = lab.fake.live_nodes[0]
    lab.fake.live_nodes = (replace(node, available={"CPU": 2.0}),)
    await lab.cluster.refresh()
    for name in ("one", "two"):
        await lab.cluster.start_standby(standby(name, node.id, 1))
    await lab.until(lambda: [s.phase for s in lab.cluster.observe().standbys] == ["Ready", "Ready"])
    for number in (1, 2):  # the second sees the same two free CPUs as the first
        await lab.cluster.start_replica(lab.order(number, "slow:app", ray_actor_options={"num_cpus": 2}))
    assert len(lab.cluster.observe().standbys) == 2
    lab.fake.live_nodes = (replace(node, available={"CPU": 0.0}),)
    following = asyncio.create_task(lab.actors.keep_nodes_fresh())
    await lab.until(lambda: not lab.cluster.observe().standbys)
    following.cancel()
