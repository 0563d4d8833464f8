"""The proxy that stands by: there where a proxy is alone on its node, with the same table, and in nobody's way."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from world import World, request

from serveconf.errors import CodeFailed
from serveconf.plan.state import ProxyPhase, ProxyState
from serveconf.reconcile.apply import BEHIND_S
from serveconf.reconcile.ports import ProxyOrder
from serveconf.reconcile.proxies import BOTH_S
from serveconf.reconcile.status import make_status
from serveconf.routing import Generation

pytestmark = pytest.mark.anyio

A: dict[str, Any] = {"name": "a", "import_path": "a:app"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def standing_by(world: World) -> list[ProxyState]:
    return [p for p in world.cluster.observe().proxies if p.stands_by]


def serving(world: World) -> list[ProxyState]:
    return [p for p in world.cluster.observe().proxies if not p.stands_by]


async def rest(world: World) -> None:
    for _ in range(6):
        await world.look()


async def test_each_node_whose_proxy_is_alone_has_one_with_the_live_table(tmp_path: Path) -> None:
    world = World(tmp_path, nodes=2)
    await world.apply(A, standbys=1, http_options={"location": "EveryNode"})
    await rest(world)
    assert sorted(p.node_id for p in standing_by(world)) == ["node0", "node1"]
    assert {p.generation for p in standing_by(world)} == {world.live.number}


@pytest.mark.parametrize(
    ("standbys", "http"),
    [(0, {}), (1, {"workers": 2}), (1, {"location": "NoServer"})],
    ids=["none", "workers", "no server"],
)
async def test_there_is_none_where_nothing_is_kept_warm_or_others_share_the_port(
    world: World, standbys: int, http: dict[str, Any]
) -> None:
    await world.apply(A, standbys=standbys, http_options=http)
    await rest(world)
    assert standing_by(world) == []


async def test_it_goes_when_it_is_not_asked_for_any_more_and_comes_back(world: World) -> None:
    await world.apply(A, standbys=1)
    await world.apply(A, standbys=1, http_options={"workers": 2})
    await rest(world)
    assert (len(serving(world)), standing_by(world)) == (2, [])
    await world.apply(A, standbys=1)
    await rest(world)
    assert (len(serving(world)), len(standing_by(world))) == (1, 1)


async def test_nobody_who_waits_for_an_apply_waits_for_one_that_hangs(world: World) -> None:
    await world.apply(A, standbys=1)
    await rest(world)
    (spare,) = standing_by(world)
    world.cluster.hung.add(spare.id)
    world.cluster.settle()
    first = world.plane.apply(request({**A, "route_prefix": "/first"}, standbys=1))
    second = world.plane.apply(request({**A, "route_prefix": "/second"}, standbys=1))
    began = world.clock.now()
    while first.result is None:
        await asyncio.sleep(0)
        await world.look()
    assert first.result["outcome"] == "applied"
    assert world.clock.now() - began < BEHIND_S
    assert (await world.run(second, looks=900))["outcome"] == "applied"


async def test_an_apply_does_not_wait_for_it_and_it_does_not_start_beside_one(world: World) -> None:
    real, begun = world.cluster.start_proxy, []

    async def start_proxy(order: ProxyOrder) -> None:
        begun.append((order.stands_by, world.stacks.are_busy(world.cluster.observe())))
        await real(order)

    world.cluster.start_proxy = start_proxy  # type: ignore[method-assign]
    await world.apply(A, standbys=1)
    await rest(world)
    assert begun == [(False, True), (True, False)]


async def test_one_that_fails_to_start_fails_no_apply(world: World) -> None:
    await world.apply(A)
    world.cluster.broken_proxies = True
    done = await world.apply(A, {"name": "b", "import_path": "b:app"}, standbys=1)
    await rest(world)
    assert done["outcome"] == "applied"
    assert [p.phase for p in serving(world)] == [ProxyPhase.READY]


async def test_what_it_refuses_holds_up_nobody(world: World) -> None:
    await world.apply(A, standbys=1)
    await rest(world)
    (spare,), real = standing_by(world), world.cluster.stage

    async def stage(proxy_id: str, generation: Generation) -> None:
        if proxy_id == spare.id:
            raise CodeFailed("OSError: it can be there but once")
        await real(proxy_id, generation)

    world.cluster.stage = stage  # type: ignore[method-assign]
    done = await world.apply({**A, "num_replicas": 2}, standbys=1)
    assert done["outcome"] == "applied"
    assert serving(world)[0].generation == world.ledger.generation.number > spare.generation
    world.cluster.stage = real  # type: ignore[method-assign]
    await rest(world)
    assert standing_by(world)[0].generation == world.ledger.generation.number


async def test_it_serves_when_the_other_one_has_died_which_then_stands_by(world: World) -> None:
    await world.apply(A, standbys=1)
    await rest(world)
    (first,), (second,) = serving(world), standing_by(world)
    world.cluster.kill_proxy(first.id)
    await rest(world)
    assert ([p.id for p in serving(world)], [p.id for p in standing_by(world)]) == ([second.id], [first.id])
    done = await world.apply({**A, "num_replicas": 2}, standbys=1)
    assert done["outcome"] == "applied"
    assert {p.generation for p in world.cluster.observe().proxies} == {world.live.number}


@pytest.mark.parametrize("swapped", [False, True], ids=["who served", "who stands by since"])
async def test_no_apply_waits_for_one_that_is_restarted_while_its_standby_serves(world: World, swapped: bool) -> None:
    await world.apply(A, standbys=1)
    await rest(world)
    (first,), (second,) = serving(world), standing_by(world)
    if swapped:
        world.cluster.kill_proxy(first.id)
        await rest(world)
    world.cluster.restarting.add(first.id)
    world.cluster.kill_proxy(first.id)
    done = await world.apply({**A, "route_prefix": "/other"}, standbys=1)
    assert done["outcome"] == "applied"
    assert world.cluster.live[second.id].routes[0].prefix == "/other"
    world.cluster.restarting.clear()
    await rest(world)
    assert {p.generation for p in world.cluster.observe().proxies} == {world.live.number}


async def test_where_the_one_that_serves_is_silent_it_serves_beside_it(world: World) -> None:
    await world.apply(A, standbys=1)
    await rest(world)
    (first,), (second,) = serving(world), standing_by(world)
    world.cluster.hung.add(first.id)
    await rest(world)
    assert [what for what in world.cluster.log if what[0] == "serve_beside"] == [("serve_beside", second.id)]
    done = await world.apply({**A, "num_replicas": 2}, standbys=1)
    assert done["outcome"] == "applied"
    assert next(p for p in serving(world) if p.id == second.id).generation == world.ledger.generation.number
    world.cluster.hung.clear()
    await rest(world)
    assert {p.generation for p in world.cluster.observe().proxies} == {world.live.number}
    assert standing_by(world) == []
    world.clock.advance(BOTH_S)
    await rest(world)
    assert ([p.id for p in serving(world)], [p.id for p in standing_by(world)]) == ([first.id], [second.id])
    assert [what for what in world.cluster.log if what[0] == "stand_by_again"] == [("stand_by_again", second.id)]


async def test_one_that_has_died_unheard_does_not_send_back_the_one_in_its_place(world: World) -> None:
    await world.apply(A, standbys=1)
    await rest(world)
    (first,), (second,) = serving(world), standing_by(world)
    await world.cluster.serve_beside(second.id)  # what it says itself, before anybody hears of the other one's death
    await rest(world)
    world.clock.advance(BOTH_S / 2)
    await rest(world)
    world.cluster._proxies[first.id] = replace(first, phase=ProxyPhase.STARTING, stands_by=True)
    world.clock.advance(BOTH_S)
    await rest(world)
    assert ([p.id for p in serving(world)], [p.id for p in standing_by(world)]) == ([second.id], [first.id])
    assert not [what for what in world.cluster.log if what[0] == "stand_by_again"]


async def test_a_silent_one_that_stands_by_holds_up_no_table(world: World) -> None:
    await world.apply(A, standbys=1)
    await rest(world)
    world.cluster.hung.add(standing_by(world)[0].id)
    await rest(world)
    assert (await world.apply({**A, "num_replicas": 2}, standbys=1))["outcome"] == "applied"
    world.cluster.hung.clear()


async def test_status_shows_it_among_the_standbys(world: World) -> None:
    await world.apply(A, standbys=1)
    await rest(world)
    status = make_status(world.ledger, world.cluster.observe(), pid=1, address="")
    assert [p["id"] for p in status["proxies"]] == [serving(world)[0].id]
    found = [s for s in status["standbys"] if s["kind"] == "proxy"]
    assert [(s["id"], s["state"]) for s in found] == [(standing_by(world)[0].id, "Ready")]
    assert re.fullmatch(r"node0-[0-9a-f]{8}-s", found[0]["id"])
