"""One replica's life, with everything that can go wrong in it: on an engine that does as it is told."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from labs import QUICK, FakeEngineLab, replica
from msgspec.structs import replace

from serveconf.cluster import actors as actors_module
from serveconf.cluster import node_watch
from serveconf.cluster.engine import Away
from serveconf.cluster.settings import REPLICA_PREFIX

pytestmark = pytest.mark.anyio


@pytest.fixture
def lab(quick_lab: FakeEngineLab) -> FakeEngineLab:
    """Everything that takes seconds takes hundredths."""
    return quick_lab


async def test_out_of_reach_is_not_dead(lab: FakeEngineLab) -> None:
    name, actor = await replica(lab, **QUICK)
    await lab.until(lambda: lab.phase(name) == "Ready")
    actor.leave()
    await asyncio.sleep(0.1)
    assert lab.phase(name) in ("Ready", "Unhealthy")  # as long as that is, hundredths of seconds may be long
    assert not actor.why_dead
    actor.return_()
    await lab.until(lambda: lab.phase(name) == "Ready")
    actor.die()
    await lab.until(lambda: lab.phase(name) == "Failed")


async def test_out_of_reach_for_long_is_unhealthy_and_may_come_back(lab: FakeEngineLab) -> None:
    name, actor = await replica(lab)
    await lab.until(lambda: lab.phase(name) == "Ready")
    actor.leave()
    await lab.until(lambda: lab.phase(name) == "Unhealthy")
    assert not actor.why_dead
    actor.return_()
    await lab.until(lambda: lab.phase(name) == "Ready")


async def test_one_out_of_reach_drains_when_it_comes_back(lab: FakeEngineLab) -> None:
    name, actor = await replica(lab)
    await lab.until(lambda: lab.phase(name) == "Ready")
    actor.leave()
    await lab.cluster.stop_replica(name, drain_s=5)
    await asyncio.sleep(0.1)
    assert not actor.why_dead
    assert lab.phase(name) == "Draining"
    actor.return_()
    await lab.until(lambda: lab.phase(name) is None)
    assert actor.hosted.state.phase == "Draining"


async def test_silent_is_not_dead_but_unhealthy_and_may_recover(lab: FakeEngineLab, monkeypatch: Any) -> None:
    name, actor = await replica(lab, **QUICK)
    await lab.until(lambda: lab.phase(name) == "Ready")
    lab.actors._replicas.handles[name].care.answer_s = 0.02
    actor.hung.clear()
    await lab.until(lambda: lab.phase(name) == "Unhealthy")
    state = lab.replica(name)
    assert state is not None
    assert "has been blocked since" in state.message
    actor.hung.set()
    await lab.until(lambda: lab.phase(name) == "Ready")


async def test_a_silent_replica_that_serves_is_adopted_and_not_killed(lab: FakeEngineLab) -> None:
    name, actor = await replica(lab)
    await lab.until(lambda: lab.phase(name) == "Ready")
    actor.hung.clear()
    await lab.another_controller(name)
    assert lab.phase(name) == "Ready"
    assert not actor.why_dead


async def test_a_controller_that_comes_back_does_not_wait_for_what_starts_and_says_nothing(
    lab: FakeEngineLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors_module, "ANSWER_S", 3600.0)
    monkeypatch.setattr(actors_module, "ADOPT_S", 0.01)
    name, actor = await replica(lab)
    actor.hung.clear()
    await lab.another_controller()
    assert lab.phase(name) == "Starting"
    actor.hung.set()
    await lab.until(lambda: lab.phase(name) == "Ready")


async def test_one_that_drains_and_says_so_late_ends_all_the_same(
    lab: FakeEngineLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors_module, "ADOPT_S", 0.01)
    name, actor = await replica(lab)
    await lab.until(lambda: lab.phase(name) == "Ready")
    await actor.hosted.drain(30.0)
    actor.hung.clear()
    await lab.another_controller()
    actor.hung.set()
    await lab.until(lambda: lab.replica(name) is None)
    assert actor.why_dead


async def test_an_unreachable_replica_is_adopted_and_not_killed(lab: FakeEngineLab) -> None:
    name, actor = await replica(lab)
    await lab.until(lambda: lab.phase(name) == "Ready")
    actor.leave()
    await lab.another_controller(name)
    assert lab.phase(name) == "Ready"
    assert not actor.why_dead


async def test_a_replica_that_dies_at_its_deadline_has_failed(lab: FakeEngineLab) -> None:
    name, actor = await replica(lab, "slow:app", ready_s=0.05)
    describe = actor.hosted.describe

    async def dies() -> Any:
        actor.die()
        return await describe()

    actor.hosted.describe = dies
    await lab.until(lambda: lab.phase(name) == "Failed")


async def test_a_blocked_event_loop_is_told_while_nothing_is_done_about_it_and_no_more_when_it_turns(
    lab: FakeEngineLab,
) -> None:
    name, actor = await replica(lab)
    await lab.until(lambda: lab.phase(name) == "Ready")
    actor.hung.clear()
    await lab.until(lambda: "the event loop of pid 1 has been blocked since" in message(lab, name))
    assert lab.phase(name) == "Ready"
    actor.hung.set()
    await lab.until(lambda: message(lab, name) == "")
    assert lab.phase(name) == "Ready"


async def test_an_event_loop_that_is_blocked_for_longer_than_the_spec_allows_makes_the_replica_unhealthy(
    lab: FakeEngineLab,
) -> None:
    name, actor = await replica(
        lab, event_loop_timeout_s=2.2
    )  # the fake tells it after two seconds that have not passed
    await lab.until(lambda: lab.phase(name) == "Ready")
    actor.hung.clear()
    await lab.until(lambda: lab.phase(name) == "Unhealthy")
    assert "has been blocked since" in message(lab, name)


def message(lab: FakeEngineLab, name: str) -> str:
    """What is said of a replica."""
    state = lab.replica(name)
    return state.message if state is not None else "gone"


@pytest.mark.parametrize(("hung", "why"), [(False, "has not returned"), (True, "blocks its event loop")])
async def test_one_that_is_late_says_what_it_waits_for(lab: FakeEngineLab, hung: bool, why: str) -> None:
    name, actor = await replica(lab, "slow:app", ready_s=0.05)
    if hung:
        actor.hung.clear()
    await lab.until(lambda: lab.phase(name) == "Failed")
    state = lab.replica(name)
    assert state is not None
    assert "not ready after 0.05 s" in state.message
    assert why in state.message


async def test_what_its_first_check_says_is_why_it_is_late(lab: FakeEngineLab) -> None:
    name, actor = await replica(lab, "slow:app", ready_s=0.05)
    actor.hosted.state = replace(actor.hosted.state, message="its health check fails: 404")
    await lab.until(lambda: lab.phase(name) == "Failed")
    state = lab.replica(name)
    assert state is not None
    assert "its health check fails: 404" in state.message


async def test_health_options_of_no_cost_arrive_at_live_replicas(lab: FakeEngineLab) -> None:
    name, actor = await replica(lab, **QUICK)
    await lab.until(lambda: actor.hosted.asked)
    assert actor.hosted.asked[0] == (None, 0.02)
    lab.cluster.tend_replica(
        name, {"health_check_period_s": 0.01, "health_check_timeout_s": 3.0, "health_check_path": "/well"}
    )
    await lab.until(lambda: actor.hosted.asked[-1] == ("/well", 3.0))


async def test_three_failed_checks_make_it_unhealthy_and_one_good_one_well(lab: FakeEngineLab) -> None:
    name, actor = await replica(lab, **QUICK)
    await lab.until(lambda: lab.phase(name) == "Ready")
    actor.hosted.sick = "500"
    await lab.until(lambda: lab.phase(name) == "Unhealthy")
    actor.hosted.sick = ""
    await lab.until(lambda: lab.phase(name) == "Ready")
    state = lab.replica(name)
    assert state is not None
    assert state.message == ""


async def test_the_shorter_drain_counts(lab: FakeEngineLab) -> None:
    name, _ = await replica(lab, "busy:app")
    await lab.until(lambda: lab.phase(name) == "Ready")
    await lab.cluster.stop_replica(name, drain_s=1000)
    await lab.cluster.stop_replica(name, drain_s=2000)
    await asyncio.sleep(0.05)
    assert lab.phase(name) == "Draining"
    await lab.cluster.stop_replica(name, drain_s=0)
    await lab.until(lambda: lab.phase(name) is None)


async def test_a_drain_that_never_ends_ends(lab: FakeEngineLab) -> None:
    name, actor = await replica(lab)
    await lab.until(lambda: lab.phase(name) == "Ready")
    actor.hung.clear()
    await lab.cluster.stop_replica(name, drain_s=0.05)
    await lab.until(lambda: lab.phase(name) is None)
    assert REPLICA_PREFIX + name not in lab.fake.actors


async def test_one_whose_shutdown_raises_goes_all_the_same(lab: FakeEngineLab) -> None:
    name, actor = await replica(lab)
    await lab.until(lambda: lab.phase(name) == "Ready")

    async def raises(timeout_s: float) -> bool:
        raise RuntimeError("in the user's shutdown")

    actor.hosted.drain = raises
    await lab.cluster.stop_replica(name, drain_s=1)
    await lab.until(lambda: lab.phase(name) is None)


async def test_nothing_is_left_in_the_store_of_what_is_gone(lab: FakeEngineLab) -> None:
    name, _ = await replica(lab)
    await lab.until(lambda: lab.phase(name) == "Ready")
    assert await lab.fake.store.keys("orders/")
    await lab.cluster.stop_replica(name, drain_s=0)
    await lab.until(lambda: lab.phase(name) is None)
    async with asyncio.timeout(120):
        while await lab.fake.store.keys("orders/"):
            await asyncio.sleep(0.01)


async def test_an_actor_that_nobody_knows_is_ended(lab: FakeEngineLab) -> None:
    name, _ = await replica(lab)
    await lab.fake.store.delete(f"orders/{REPLICA_PREFIX}{name}")
    await lab.another_controller()
    assert lab.phase(name) is None
    assert not lab.fake.actors


async def test_one_that_the_engine_refuses_has_failed_with_its_words(lab: FakeEngineLab) -> None:
    order = lab.order(1, ray_actor_options={"resources": {"refused": 1}})
    await lab.cluster.start_replica(order)
    state = lab.replica(order.id)
    assert state is not None
    assert (state.phase, state.message) == ("Failed", "ValueError: no such resource")


async def test_the_nodes_stay_known_through_an_empty_answer_and_an_error(lab: FakeEngineLab, monkeypatch: Any) -> None:
    monkeypatch.setattr(node_watch, "NODES_PERIOD_S", 0.01)
    following = asyncio.create_task(lab.actors.keep_nodes_fresh())
    real = lab.fake.nodes
    before = lab.cluster.nodes()
    lab.fake.live_nodes = ()
    await asyncio.sleep(0.05)
    assert lab.cluster.nodes() == before

    async def raises() -> Any:
        raise RuntimeError("the GCS is away")

    lab.fake.nodes = raises  # type: ignore[method-assign]
    await asyncio.sleep(0.05)
    lab.fake.nodes = real  # type: ignore[method-assign]
    lab.fake.live_nodes = (*before, *before)
    await lab.until(lambda: len(lab.cluster.nodes()) == 2)
    following.cancel()


async def test_an_actor_that_cannot_be_killed_is_gone_all_the_same(lab: FakeEngineLab) -> None:
    name, _ = await replica(lab)
    await lab.until(lambda: lab.phase(name) == "Ready")
    real = lab.fake.kill

    async def kill(remote: Any, *, restart: bool = False) -> None:
        raise Away("the GCS is away")

    lab.fake.kill = kill  # type: ignore[method-assign]
    await lab.cluster.stop_replica(name, drain_s=1)
    await lab.until(lambda: lab.phase(name) is None)
    lab.fake.kill = real  # type: ignore[method-assign]


async def test_a_look_that_runs_into_a_fault_is_followed_by_another(lab: FakeEngineLab) -> None:
    name, actor = await replica(lab, **QUICK)
    await lab.until(lambda: lab.phase(name) == "Ready")
    real, faults = actor.hosted.check, [RuntimeError("a fault")]

    async def check(path: Any, timeout_s: float) -> str:
        if faults:
            raise faults.pop()
        return str(await real(path, timeout_s))

    actor.hosted.check = check
    await lab.until(lambda: not faults)
    actor.hosted.sick = "500"
    await lab.until(lambda: lab.phase(name) == "Unhealthy")


async def test_one_that_drains_serves_on_when_it_is_taken_back(lab: FakeEngineLab) -> None:
    name, actor = await replica(lab, "busy:app")
    await lab.until(lambda: lab.phase(name) == "Ready")
    await lab.cluster.stop_replica(name, drain_s=0.5)
    assert await lab.cluster.take_back(name)
    assert lab.phase(name) == "Ready"
    await asyncio.sleep(0.7)
    assert (lab.phase(name), actor.why_dead) == ("Ready", "")
    actor.die()
    await lab.until(lambda: lab.phase(name) == "Failed")  # it is watched again


@pytest.mark.parametrize("why", ["never stopped", "was not well", "too late", "ended", "stopped again", "unknown"])
async def test_one_that_can_not_serve_on_is_not_taken_back_and_goes(lab: FakeEngineLab, why: str) -> None:
    name, actor = await replica(lab, "busy:app", **QUICK)
    await lab.until(lambda: lab.phase(name) == "Ready")
    match why:
        case "never stopped":
            assert not await lab.cluster.take_back(name)
            assert lab.phase(name) == "Ready"
            return
        case "unknown":
            assert not await lab.cluster.take_back("nobody")
            return
        case "was not well":
            actor.hosted.sick = "500"
            await lab.until(lambda: lab.phase(name) == "Unhealthy")
    await lab.cluster.stop_replica(name, drain_s=0.2)
    match why:
        case "too late":

            async def too_late() -> bool:
                return False

            actor.hosted.take_back = too_late
        case "ended":
            actor.end()
        case "stopped again":
            actor.hung.clear()
            back = asyncio.create_task(lab.cluster.take_back(name))
            await asyncio.sleep(0)
            await lab.cluster.stop_replica(name, drain_s=0)
            actor.hung.set()
            assert not await back
    assert not await lab.cluster.take_back(name)
    assert lab.phase(name) in ("Draining", None)
    await lab.until(lambda: lab.phase(name) is None)


async def test_what_ran_on_a_node_out_of_reach_leaves_at_once_and_is_ended_when_the_node_answers_again(
    lab: FakeEngineLab, monkeypatch: Any, free_port: int
) -> None:
    monkeypatch.setattr(node_watch, "NODES_PERIOD_S", 0.01)
    monkeypatch.setattr(node_watch, "KNOCK_S", 0.05)
    head = lab.fake.live_nodes[0]
    with socket.create_server(("127.0.0.1", free_port)):
        other = replace(head, id="other", is_head=False, ip="127.0.0.1", port=free_port, total={"CPU": 65.0})
        lab.fake.live_nodes = (head, other)
        await lab.cluster.refresh()
        names = [(await replica_number(lab, number)) for number in (1, 2)]
        await lab.until(lambda: all(lab.phase(name) == "Ready" for name in names))
        (far,) = [r.id for r in lab.cluster.observe().replicas if r.node_id == "other"]
        following = asyncio.create_task(lab.actors.keep_nodes_fresh())
        await asyncio.sleep(0.3)
        assert lab.phase(far) == "Ready"
    lab.fake.actors[REPLICA_PREFIX + far].leave()  # its node is gone, and the engine takes it for alive
    await lab.until(lambda: lab.phase(far) == "Unhealthy")
    assert [node.id for node in lab.cluster.nodes()] == [head.id]
    await lab.cluster.stop_replica(far, drain_s=60)
    await lab.until(lambda: lab.phase(far) is None)
    with socket.create_server(("127.0.0.1", free_port)):
        await lab.until(lambda: len(lab.cluster.nodes()) == 2)
    assert REPLICA_PREFIX + far not in lab.fake.actors
    following.cancel()


async def replica_number(lab: FakeEngineLab, number: int) -> str:
    """One of several of one deployment."""
    order = lab.order(number)
    await lab.cluster.start_replica(order)
    return order.id


async def test_replicas_of_one_deployment_are_spread_over_the_nodes_that_have_room(lab: FakeEngineLab) -> None:
    head = lab.fake.live_nodes[0]
    full, drains = ({"available": {"CPU": 0.0}}, {"drains": True})
    others = [replace(head, id=name, is_head=False, **said) for name, said in (("full", full), ("going", drains))]
    lab.fake.live_nodes = (head, replace(head, id="second", is_head=False), *others)
    await lab.cluster.refresh()
    for number in range(4):
        await replica_number(lab, number)
    assert sorted(r.node_id for r in lab.cluster.observe().replicas) == sorted([head.id, "second"] * 2)
