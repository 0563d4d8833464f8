"""What holds for every sequence of applies, deaths and controller restarts, tried on random ones."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world import World, request

from serveconf.plan.state import ReplicaPhase
from serveconf.reconcile.rollout import limits

FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def deployments(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """One deployment, with what makes it roll, scale, reconfigure or move."""
    said = draw(
        st.fixed_dictionaries(
            {"num_replicas": st.integers(1, 4)},
            optional={
                "user_config": st.integers(0, 1),
                "init_args": st.lists(st.integers(0, 1), max_size=1),
                "route_prefix": st.sampled_from([f"/{name}", f"/{name}/moved", None]),
                "rollout": st.fixed_dictionaries(
                    {"max_surge": st.sampled_from([1, "50%", "100%"]), "max_unavailable": st.sampled_from([0, 1])}
                ),
            },
        )
    )
    return {"name": name, "import_path": f"{name}:app", **said}


STACKS = st.tuples(*(st.none() | deployments(name) for name in "abc")).map(lambda made: [d for d in made if d])
FRONTS = st.sampled_from([{}, {"port": 9000}, {"root_path": "/x"}])
SPECS = st.tuples(STACKS, FRONTS)
Spec = tuple[list[dict[str, Any]], dict[str, Any]]


def in_a_world(play: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(play, 120))


def fresh() -> World:
    return World(Path(tempfile.gettempdir()) / "serveconf-none")


async def apply(world: World, spec: Spec) -> dict[str, Any]:
    return await world.apply(*spec[0], http_options=spec[1])


def picture(world: World) -> Any:
    """Everything that a client or an operator could tell one world from another by, but for ids and numbers."""
    served = world.cluster.live
    ids = {r.id: (r.deployment, r.version, r.config_hash, r.phase) for r in world.cluster.observe().replicas}
    routes = [
        (r.prefix, r.deployment, r.version, sorted(ids[a.id] for a in r.replicas))
        for r in world.ledger.generation.routes
    ]
    proxies = [(p.id, p.address, served[p.id].front) for p in world.cluster.observe().proxies]
    return sorted(routes), sorted(ids.values()), proxies


@FEW
@given(SPECS, SPECS)
def test_apply_a_then_b_ends_as_b_alone_and_b_again_is_no_change(a: Spec, b: Spec) -> None:
    async def play() -> None:
        one, other = fresh(), fresh()
        await apply(one, a)
        await apply(one, b)
        await apply(other, b)
        assert picture(one) == picture(other)
        again = await apply(one, (list(reversed(b[0])), b[1]))
        assert (again["outcome"], again["actions"]) == ("unchanged", [])

    in_a_world(play())


MISHAPS = st.lists(st.sampled_from(["look", "settle", "kill", "restart", "proxy"]), min_size=3, max_size=14)


@FEW
@given(SPECS, SPECS, MISHAPS, st.randoms())
def test_no_route_ever_points_to_what_was_stopped_whatever_dies_in_between(
    a: Spec, b: Spec, mishaps: list[str], dice: Any
) -> None:
    async def play() -> None:
        world, killed = fresh(), set[str]()
        await apply(world, a)
        operation = world.plane.apply(request(*b[0], http_options=b[1]))
        for mishap in mishaps:
            await asyncio.sleep(0)
            await suffer(world, mishap, dice, killed)
            check_routes(world, killed)
        if operation.task is not None:
            operation.task.cancel()
        await world.restart()
        for _ in range(25):
            await world.look()
            world.clock.advance(30)
            check_routes(world, killed)
        settled = picture(world)
        expected = fresh()
        head = world.ledger.heads.get("default")
        reached = world.ledger.current("default")
        assert head is None or head.target is None
        if reached is not None:
            await apply(expected, b if head is not None and head.current == 2 else a)
            assert settled == picture(expected)

    in_a_world(play())


async def suffer(world: World, mishap: str, dice: Any, killed: set[str]) -> None:
    """One thing that happens while an apply runs."""
    match mishap:
        case "look":
            await world.reconciler.pass_once()
        case "settle":
            world.cluster.settle()
        case "restart":
            await world.restart()
        case "kill":
            ready = [r.id for r in world.cluster.observe().replicas if r.phase is ReplicaPhase.READY]
            if ready:
                victim = dice.choice(ready)
                killed.add(victim)
                world.cluster.kill(victim)
        case "proxy":
            proxies = [p.id for p in world.cluster.observe().proxies]
            if proxies:
                world.cluster.kill_proxy(dice.choice(proxies))


def check_routes(world: World, killed: set[str]) -> None:
    """Whatever the live table names serves, or has died by itself; nothing was told to stop while a route named it."""
    there = {r.id: r.phase for r in world.cluster.observe().replicas}
    for route in world.ledger.generation.routes:
        for address in route.replicas:
            assert address.id in killed or there[address.id] is ReplicaPhase.READY


@FEW
@given(deployments("a"), deployments("a"))
def test_capacity_never_falls_under_the_floor_of_the_rollout(one: dict[str, Any], other: dict[str, Any]) -> None:
    one, other = {**one, "route_prefix": "/a"}, {**other, "route_prefix": "/a"}

    async def play() -> None:
        world = fresh()
        await world.apply(one)
        operation = world.plane.apply(request(other))
        for _ in range(40):
            await asyncio.sleep(0)
            await world.look()
            current, target = world.ledger.current("default"), world.ledger.target("default")
            assert current is not None
            wanted = (target or current).deployments[0]
            floor = min(current.deployments[0].num_replicas, wanted.num_replicas) - limits(wanted)[1]
            assert len(world.serving("/a")) >= floor
        assert (await world.run(operation))["outcome"] in ("applied", "unchanged")

    in_a_world(play())
