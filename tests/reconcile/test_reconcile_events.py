"""What the control plane does is told with why: applies on their way, replicas and proxies that fail, nodes, pins."""

from __future__ import annotations

import re
from typing import Any

import pytest
from msgspec.structs import replace
from world import World, request

from serveconf.reconcile.ports import Answers, NodeState

pytestmark = pytest.mark.anyio

WEB = {"name": "web", "import_path": "a:app"}
BAKED = {**WEB, "rollout": {"bake_s": 10}}


def told(world: World, *kinds: str) -> list[str]:
    """The messages of these kinds, ids of replicas as ``ID``."""
    found = [event.as_json() for event in world.events.recent()]
    return [_without_ids(event["message"]) for event in found if not kinds or event["kind"] in kinds]


def _without_ids(message: str) -> str:
    return re.sub(r"[\w-]+\.[\w-]+\.[0-9a-f]{8}\.[0-9a-f]{6}", "ID", message)


def last(world: World) -> dict[str, Any]:
    return world.events.recent()[-1].as_json()


async def test_an_apply_is_told_with_who_and_from_where(world: World) -> None:
    await world.apply(WEB, author="ada", source="serve.yaml", commit="c0ffee")
    assert told(world, "apply") == [
        "revision 1 is being applied by ada: 1 created, front started",
        "revision 1 is applied",
    ]
    event = last(world)
    assert (event["kind"], event["stack"]) == ("apply", "default")
    assert event["data"].items() >= {"revision": 1, "author": "ada", "source": "serve.yaml", "commit": "c0ffee"}.items()


async def test_an_apply_that_changes_nothing_is_no_event_but_is_counted(world: World) -> None:
    await world.apply(WEB)
    before = told(world)
    await world.apply(WEB)
    assert told(world) == before
    counted = {outcome: h.count for outcome, h in world.figures.controller.applies["default"].items()}
    assert counted == {"applied": 1, "unchanged": 1}


async def test_an_apply_that_is_taken_back_says_why_and_what_goes_on(world: World) -> None:
    await world.apply(WEB)
    operation = world.plane.apply(request(WEB, files={"a.py": "2"}))
    world.cluster.broken |= await _coming_versions(world)
    await world.run(operation)
    assert told(world, "apply", "heal")[-2:] == [
        "replica ID did not start: RuntimeError: broken",
        "revision 2 was taken back: RuntimeError: broken; revision 1 goes on",
    ]
    assert last(world)["data"].items() >= {"code": "replica_failed", "deployment": "web"}.items()


async def test_a_refused_apply_is_told_once_however_often_it_is_tried(world: World) -> None:
    await world.apply(WEB)
    for _ in range(3):
        await world.apply(WEB, base_revision=7, author="bob")
    event = last(world)
    assert "changed nothing" in event["message"] and "revision 7" in event["message"]
    assert (event["count"], event["data"]["code"], event["data"]["author"]) == (3, "stale", "bob")


async def test_a_bake_that_is_taken_back_is_a_rollback_by_the_system_itself(world: World) -> None:
    await world.apply(BAKED)
    operation = world.plane.apply(request(BAKED, files={"a.py": "2"}))
    while world.ledger.heads["default"].baking_until is None:
        await world.look()
    await world.look()
    world.cluster.answered["default/web"] = Answers(100, 50)
    world.clock.advance(1)
    await world.run(operation)
    assert told(world, "apply", "rollback")[-2:] == [
        "revision 2 serves, and its errors are watched",
        "revision 2 was taken back: 50 of 100 answers failed after the switch, more than max_error_rate 0.05; "
        "revision 1 goes on",
    ]
    assert last(world)["kind"] == "rollback"


async def test_a_rollback_and_the_end_of_its_pin_are_told(world: World) -> None:
    await world.apply(WEB)
    await world.apply(WEB, files={"a.py": "2"})
    await world.run(world.plane.rollback("default", 1, request(author="ada")))
    await world.plane.resume("default")
    assert told(world, "rollback", "pin") == [
        "revision 3 is being applied by ada: back to 1: 1 rolled",
        "pinned by ada: what watches its files leaves it alone",
        "revision 3 is applied",
        "the pin is ended",
    ]


async def test_a_stack_that_is_taken_away_is_told_to_its_end(world: World) -> None:
    await world.apply(WEB)
    await world.run(world.plane.delete("default", None, request(author="ada")))
    assert told(world, "apply")[-3:] == [
        "revision 2 takes the stack away by ada: 1 removed",
        "revision 2 is applied: the stack serves nothing any more",
        "the stack is gone",
    ]


async def test_a_replica_that_ends_and_what_takes_its_place(world: World) -> None:
    await world.apply(WEB)
    world.cluster.kill(world.replicas()[0])
    for _ in range(3):
        await world.look()
    assert told(world, "heal", "replace") == [
        "replica ID has ended: killed",
        "replica ID has taken the place of a lost one, ready after 0.0 s",
    ]
    assert last(world)["deployment"] == "web"


async def test_a_replica_that_fails_its_checks_is_lost_once(world: World) -> None:
    await world.apply(WEB)
    world.cluster.sicken(world.replicas()[0])
    for _ in range(4):
        await world.look()
    assert told(world, "heal", "replace") == [
        "replica ID fails its health checks",
        "replica ID has taken the place of a lost one, ready after 0.0 s",
    ]


async def test_replicas_that_lose_their_nodes_again_and_again_are_replaced_at_once(world: World) -> None:
    await world.apply(WEB)
    (node,) = world.cluster.nodes()
    for number in range(5):
        node = replace(node, id=f"next{number}")
        world.cluster.set_nodes(node)
        world.cluster.sicken(world.replicas()[0])
        await world.look()
        await world.look()
    found = {_without_ids(e.message): e.count for e in world.events.recent() if e.kind in ("heal", "replace")}
    assert found == {
        "replica ID fails its health checks": 5,
        "replica ID has taken the place of a lost one, ready after 0.0 s": 5,
    }


async def test_a_replica_that_keeps_ending_is_one_event_with_a_count(world: World) -> None:
    await world.apply(WEB)
    for _ in range(4):
        world.cluster.kill(world.replicas()[0])
        for _ in range(4):
            world.clock.advance(10)
            await world.look()
    found = {_without_ids(e.message): e.count for e in world.events.recent() if e.kind in ("heal", "replace")}
    assert found == {
        "replica ID has ended: killed": 4,
        "replicas keep failing: the next one is started in 4 s": 3,
        "replica ID has taken the place of a lost one, ready after 0.0 s": 4,
    }


async def test_a_new_version_does_not_wait_for_what_the_old_one_has_failed(world: World) -> None:
    await world.apply(WEB)
    for _ in range(4):
        world.cluster.kill(world.replicas()[0])
        for _ in range(4):
            world.clock.advance(10)
            await world.look()
    await world.apply(WEB, files={"a.py": "2"})
    (first,) = world.replicas()
    world.cluster.kill(first)
    for _ in range(3):
        await world.look()
    (second,) = world.replicas()
    assert second != first
    assert world.serving("/web") == [second]


async def test_starts_are_timed_and_counted(world: World) -> None:
    await world.apply({**WEB, "num_replicas": 3})
    assert world.figures.controller.starts["default/web"]["false"].count == 3


async def test_a_proxy_that_dies_or_hangs_is_told(world: World) -> None:
    await world.apply(WEB)
    proxy = world.cluster.observe().proxies[0].id
    world.cluster.kill_proxy(proxy)
    await world.look()
    world.cluster.hung.add(proxy)
    world.cluster.settle()
    world.cluster.hung.clear()
    world.cluster.settle()
    assert [message.replace(proxy, "P") for message in told(world, "proxy")] == [
        "proxy P died and is restarted",
        "proxy P listens on 127.0.0.1:8000",
        "proxy P does not answer",
        "proxy P answers again",
    ]


async def test_nodes_that_come_and_go_are_told(world: World) -> None:
    first = world.cluster.nodes()[0]
    world.cluster.set_nodes(first, NodeState(id="n2", is_head=False, ip="10.0.0.2", total={"CPU": 8.0, "memory": 1.0}))
    world.cluster.set_nodes(first)
    world.cluster.set_nodes()  # not known just now
    world.cluster.set_nodes(first)
    assert told(world, "node") == ["node n2 has come (CPU 8)", "node n2 is gone (CPU 8)"]


async def test_a_controller_that_comes_back_tells_nothing_anew(world: World) -> None:
    await world.apply(WEB)
    await world.events.flush()
    before = told(world)
    await world.restart()
    await world.events.load()
    for _ in range(3):
        await world.look()
    assert told(world) == before


async def test_an_apply_that_another_controller_sees_through_is_told_and_counted_once(world: World) -> None:
    operation = world.plane.apply(request(WEB))
    while world.stacks.head("default") is None:
        await world.look()
    await world.look()
    await world.events.flush()
    assert operation.task is not None
    operation.task.cancel()
    await world.restart()
    await world.events.load()
    world.plane.resume_operations()
    for _ in range(10):
        await world.look()
    assert told(world, "apply") == ["revision 1 is being applied: 1 created, front started", "revision 1 is applied"]
    assert {outcome: h.count for outcome, h in world.figures.controller.applies["default"].items()} == {"applied": 1}


async def _coming_versions(world: World) -> set[str]:
    """Versions of replicas that are started for a target, as soon as it is one."""
    serving = {replica.version for replica in world.cluster.observe().replicas}
    while (target := world.ledger.target("default")) is None:
        await world.look()
    return {deployment.version for deployment in target.deployments} - serving
