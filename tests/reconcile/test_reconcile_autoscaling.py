"""A whole controller whose numbers of replicas follow the load."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from world import World, request

from serveconf.figures import DeploymentLoad, LoadReport
from serveconf.plan.state import ReplicaPhase, ReplicaState
from serveconf.reconcile.ports import ReplicaOrder, TargetReport
from serveconf.reconcile.rollout import staying
from serveconf.reconcile.status import make_status

pytestmark = pytest.mark.anyio


def cart(**config: Any) -> dict[str, Any]:
    return {"name": "cart", "import_path": "shop:cart", "autoscaling_config": {"max_replicas": 10, **config}}


def load(world: World, **counted: Any) -> None:
    (proxy,) = world.cluster.observe().proxies
    report = LoadReport(number=1, loads={"default/cart": DeploymentLoad(**counted)})
    world.reconciler.scaling.take(proxy.id, report)


async def pass_time(world: World, seconds: float) -> None:
    """The proxy reports four times a minute that there is nothing."""
    for quarter in range(round(seconds * 4)):
        world.clock.advance(0.25)
        if quarter % 40 == 0:
            (proxy,) = world.cluster.observe().proxies
            world.reconciler.scaling.take(proxy.id, LoadReport(number=1))
        world.reconciler.scaling.tick()
    for _ in range(3):
        await world.look()


BURST = {"arrivals": 12, "ongoing": 12, "waiting": 9, "oldest_wait_s": 0.15}
OVER = {"arrivals": 12, "completions": 12, "ongoing_s": 2.0, "waiting_s": 1.0}


async def test_a_queue_starts_replicas_and_each_serves_when_it_is_ready(world: World) -> None:
    await world.apply(cart())
    assert len(world.serving("/cart")) == 1
    world.clock.advance(1)
    load(world, **BURST)
    await world.look()
    await world.look()
    assert len(world.serving("/cart")) == 6


async def test_who_is_ready_serves_while_the_start_of_the_next_takes_its_time(world: World) -> None:
    await world.apply(cart())
    world.clock.advance(1)
    load(world, **BURST)
    await world.look()
    assert len(world.serving("/cart")) == 1
    world.clock.advance(1)
    world.plane.scale("default", "cart", 9)
    real, begun, may_go_on = world.cluster.start_replica, asyncio.Event(), asyncio.Event()

    async def slow(order: ReplicaOrder) -> None:
        begun.set()
        await may_go_on.wait()
        await real(order)

    world.cluster.start_replica = slow  # type: ignore[method-assign]
    looking = asyncio.create_task(world.reconciler.pass_once())
    await asyncio.wait_for(begun.wait(), 120)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(world.serving("/cart")) == 6 and not looking.done()
    may_go_on.set()
    await looking


async def test_it_goes_down_to_none_keeps_its_route_and_comes_back(world: World) -> None:
    await world.apply(cart(min_replicas=0, downscale_delay_s=20))
    world.clock.advance(1)
    load(world, **BURST)
    await world.look()
    await pass_time(world, 1)
    load(world, **OVER)
    await pass_time(world, 60)
    assert world.serving("/cart") == [] and world.replicas() == []
    assert [route.prefix for route in world.live.routes] == ["/cart"]
    load(world, **{**OVER, "arrivals": 13, "ongoing": 1, "waiting": 1})
    for _ in range(3):
        await world.look()
    assert len(world.serving("/cart")) == 1


async def test_a_number_that_has_changed_is_no_drift_and_an_apply_keeps_it(world: World) -> None:
    await world.apply(cart())
    world.clock.advance(1)
    load(world, **BURST)
    for _ in range(3):
        await world.look()
    assert not (await world.plane.plan(request(cart()))).changed
    result = await world.apply({**cart(), "user_config": 1})
    assert [action["action"] for action in result["actions"]] == ["reconfigure"]
    assert len(world.serving("/cart")) == 6


async def test_a_new_version_comes_in_the_number_of_the_old_one(world: World) -> None:
    await world.apply(cart())
    world.clock.advance(1)
    load(world, **BURST)
    for _ in range(3):
        await world.look()
    before = set(world.serving("/cart"))
    assert (await world.apply({**cart(), "init_args": [1]}))["outcome"] == "applied"
    assert len(world.serving("/cart")) == 6 and before.isdisjoint(world.serving("/cart"))


async def test_another_controller_goes_on_with_the_number(world: World) -> None:
    await world.apply(cart())
    world.clock.advance(1)
    load(world, **BURST)
    for _ in range(3):
        await world.look()
    await world.reconciler.scaling.flush()
    await world.restart()
    for _ in range(3):
        await world.look()
    assert len(world.serving("/cart")) == 6


async def test_where_replicas_do_not_start_no_request_waits_for_the_next(world: World) -> None:
    await world.apply(cart(min_replicas=0, downscale_delay_s=5))
    await pass_time(world, 20)
    assert world.serving("/cart") == []
    (stack,) = status_of(world)["stacks"]
    world.cluster.broken.add(stack["deployments"][0]["version"])
    load(world, **{**OVER, "arrivals": 13, "ongoing": 5, "waiting": 5})
    for _ in range(9):
        await world.look()
    assert [route.hopeless for route in world.live.routes] == [True]
    starts = [line for line in world.cluster.log if line[0] == "start"]
    assert len(starts) < 9


async def test_status_says_the_number_its_bounds_and_why(world: World) -> None:
    await world.apply(cart(), {"name": "fixed", "import_path": "shop:fixed"})
    world.clock.advance(1)
    load(world, **BURST)
    found = {d["name"]: d["autoscaling"] for d in status_of(world)["stacks"][0]["deployments"]}
    assert found == {
        "fixed": None,
        "cart": {
            "desired": 6,
            "min": 1,
            "max": 10,
            "ongoing": 12,
            "queued": 9,
            "reason": "requests wait: 9 of 12",
        },
    }


async def test_a_number_set_by_hand_holds_until_an_apply(world: World) -> None:
    fixed = {"name": "fixed", "import_path": "shop:fixed", "num_replicas": 2}
    await world.apply(fixed)
    assert world.plane.scale("default", "fixed", 4) == 2
    for _ in range(3):
        await world.look()
    assert len(world.serving("/fixed")) == 4
    automatic = await world.run(world.plane.apply(request(fixed, automatic=True)))
    assert automatic["outcome"] == "unchanged" and len(world.serving("/fixed")) == 4
    assert [action.action for action in (await world.plane.plan(request(fixed))).actions] == ["scale"]
    result = await world.apply(fixed)
    assert [action["action"] for action in result["actions"]] == ["scale"]
    assert len(world.serving("/fixed")) == 2


def status_of(world: World) -> dict[str, Any]:
    return make_status(
        world.ledger, world.cluster.observe(), pid=1, address="", autoscaling=world.reconciler.scaling.state
    )


def replica(name: str, node: str = "n", *, ongoing: int = 0, starting: bool = False) -> ReplicaState:
    phase = ReplicaPhase.STARTING if starting else ReplicaPhase.READY
    return ReplicaState(id=name, stack="s", deployment="d", version="v", phase=phase, node_id=node, ongoing=ongoing)


@pytest.mark.parametrize(
    ("replicas", "served", "stay"),
    [
        ([replica("a", ongoing=1), replica("b", ongoing=5), replica("c", ongoing=3)], "abc", ["b", "c"]),
        ([replica("a"), replica("b", starting=True), replica("c")], "ac", ["a", "c"]),
        ([replica("a", ongoing=9), replica("b", ongoing=1), replica("c", ongoing=2)], "bc", ["b", "c"]),
        ([replica("a", "m", ongoing=9), replica("b", "m", ongoing=8), replica("c", "n")], "abc", ["a", "c"]),
    ],
    ids=["the least busy goes", "a starting one goes", "who does not serve goes", "the fullest node gives one"],
)
def test_who_stays(replicas: list[ReplicaState], served: str, stay: list[str]) -> None:
    assert [one.id for one in staying(replicas, 2, frozenset(served))] == stay


async def test_a_policy_is_looked_at_before_anything_is_touched(world: World) -> None:
    world.preflight.reports["rules:by"] = TargetReport(ok=False, error="ImportError: no rules")
    result = await world.apply(cart(policy="rules:by"))
    assert result["outcome"] == "rolled_back"
    (problem,) = result["problems"]
    assert problem["path"] == "deployments[0].autoscaling_config.policy"
    assert world.replicas() == []


async def test_a_change_of_a_policys_code_takes_hold_and_rolls_nothing(world: World) -> None:
    files = {"shop.py": "1", "rules.py": "1"}
    await world.apply(cart(policy="rules:by"), files=files)
    before = world.replicas()
    result = await world.apply(cart(policy="rules:by"), files={**files, "rules.py": "2"})
    assert [(a["action"], a["cost"], a["reason"]) for a in result["actions"]] == [
        ("scale", "scale", "code changed: rules.py")
    ]
    assert world.replicas() == before
    policy = world.ledger.current("default").deployments[0].policy
    assert policy.code in world.ledger.code_in_use()
    asked = len(world.preflight.asked)
    again = await world.apply(cart(policy="rules:by"), files={**files, "rules.py": "2"})
    assert again["outcome"] == "unchanged" and len(world.preflight.asked) == asked
    other = await world.apply(cart(policy="rules:by"), files={"shop.py": "2", "rules.py": "2"})
    assert [a["action"] for a in other["actions"]] == ["roll"]
    assert world.ledger.current("default").deployments[0].policy == policy  # its process lives on


async def test_what_is_wanted_again_before_it_is_gone_serves_on(world: World) -> None:
    fixed = {"name": "fixed", "import_path": "shop:fixed", "num_replicas": 4}
    await world.apply(fixed)
    before = world.replicas()
    world.plane.scale("default", "fixed", 2)
    await world.reconciler.pass_once()
    await world.reconciler.pass_once()
    leaving = [r.id for r in world.cluster.observe().replicas if r.phase is ReplicaPhase.DRAINING]
    assert len(leaving) == 2
    world.plane.scale("default", "fixed", 3)
    await world.reconciler.pass_once()
    assert [what for what, _ in world.cluster.log if what == "take_back"] == ["take_back"]
    for _ in range(3):
        await world.look()
    assert len(world.serving("/fixed")) == 3
    assert set(world.replicas()) < set(before)
