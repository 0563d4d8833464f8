"""Canaries as the controller leads them: shares by steps, back when they answer badly, on when the controller dies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from world import World, request

from serveconf.errors import Conflict, NotFound
from serveconf.figures import ProxyFigures, Side
from serveconf.plan.state import ReplicaPhase
from serveconf.reconcile.journal import EventKind
from serveconf.reconcile.operations import Operation
from serveconf.reconcile.ports import Answers, NodeState, TargetReport, Totals
from serveconf.reconcile.status import make_routes, make_status
from serveconf.routing import Route

pytestmark = pytest.mark.anyio

CANARY = {"steps": [10, 50], "step_s": 30, "min_requests": 20}
A: dict[str, Any] = {"name": "a", "import_path": "a:app", "num_replicas": 4, "rollout": {"canary": CANARY}}
B: dict[str, Any] = {"name": "b", "import_path": "b:app"}
NEW = {"a.py": "2", "b.py": "1", "c.py": "1"}
BOTH_NEW = {"a.py": "2", "b.py": "2", "c.py": "1"}


class Tried(World):
    """A world whose proxies count what both sides of a canary answer."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.sides: dict[str, Side] = {}
        self.cluster.totals = self._totals  # type: ignore[method-assign]

    async def _totals(self, proxy_id: str) -> Totals:
        await asyncio.sleep(0)
        return Totals(deployments=dict(self.cluster.answered), figures=ProxyFigures(sides=dict(self.sides)))

    async def begin(self, *deployments: dict[str, Any], files: dict[str, str] = NEW, **more: Any) -> Operation:
        """A change of the code, brought to its first step."""
        operation = self.plane.apply(request(*deployments, files=files, **more))
        for _ in range(6):
            await asyncio.sleep(0)
            await self.look()
        return operation

    async def spend(self, seconds: float, *, requests: int = 100, failing: float = 0.0) -> None:
        """So much time, in which so many requests a second come; of the new version's answers a share fails."""
        for _ in range(round(seconds * 2)):
            for canary in self.canaries():
                for version, part, bad in self._parts(canary, failing):
                    key, given = f"default/{canary.deployment}@{version}", round(requests / 2 * part)
                    before = self.sides.get(key, Side())
                    self.sides[key] = Side(given=before.given + given, failed=before.failed + round(given * bad))
            self.clock.advance(0.5)
            await self.look()

    def _parts(self, canary: Route, failing: float) -> list[tuple[str, float, float]]:
        old = next(r for r in self.live.routes if r.deployment == canary.deployment and r.share is None)
        share = (canary.share or 0.0) / 100
        return [(old.version, 1 - share, 0.0), (canary.version, share, failing)]

    def canaries(self) -> list[Route]:
        """The routes of new versions."""
        return [route for route in self.live.routes if route.share is not None]

    def shares(self) -> dict[str, float | None]:
        """By deployment."""
        return {route.deployment: route.share for route in self.canaries()}

    def old(self, deployment: str = "a") -> list[str]:
        """Replicas behind the deployment's own route."""
        return [r.id for x in self.live.routes if x.deployment == deployment and x.share is None for r in x.replicas]


@pytest.fixture
def world(tmp_path: Path) -> Tried:
    return Tried(tmp_path)


async def test_a_change_goes_through_its_steps_and_then_serves_everybody(world: Tried) -> None:
    await world.apply(A)
    old = world.old()
    operation = await world.begin(A)
    assert world.shares() == {"a": 10}
    assert (world.old(), len(world.canaries()[0].replicas)) == (old, 1)
    await world.spend(31)
    assert world.shares() == {"a": 50}
    assert len(world.canaries()[0].replicas) == 2
    await world.spend(28)
    assert world.shares() == {"a": 50}
    assert operation.result is None
    await world.spend(5)
    assert world.shares() == {}
    assert (await world.run(operation))["outcome"] == "applied"


async def promoted(world: Tried, operation: Operation) -> dict[str, Any]:
    await world.spend(70)
    return await world.run(operation)


async def test_at_the_end_the_new_version_has_all_replicas_and_the_old_ones_are_gone(world: Tried) -> None:
    await world.apply(A)
    old = world.old()
    result = await promoted(world, await world.begin(A))
    assert (result["outcome"], result["changed"]) == ("applied", True)
    assert world.shares() == {}
    assert len(world.old()) == 4
    assert not set(old) & set(world.replicas())
    assert len(world.replicas()) == 4
    assert world.ledger.heads["default"].canary is None
    (told,) = result["receipt"]["canary"]
    assert told["deployment"] == "a"
    assert told["new"]["requests"] > 1000


async def test_a_version_that_fails_is_taken_back_within_seconds_and_the_apply_says_why(world: Tried) -> None:
    await world.apply(A)
    old = world.old()
    operation = await world.begin(A)
    await world.spend(3, failing=0.5)
    result = await world.run(operation)
    assert (result["outcome"], result["changed"]) == ("rolled_back", False)
    (problem,) = result["problems"]
    assert (problem["code"], problem["deployment"]) == ("canary", "a")
    assert "of the new version failed" in problem["message"]
    assert world.shares() == {}
    assert (world.old(), world.replicas()) == (old, sorted(old))
    assert result["receipt"]["canary"][0]["new"]["failed"] > 0
    assert world.ledger.heads["default"].current == 1


async def test_what_has_no_canary_moves_with_the_promotion(world: Tried) -> None:
    await world.apply(A, B)
    old = world.old("b")
    operation = await world.begin(A, B, files=BOTH_NEW)
    assert world.shares() == {"a": 10}
    assert world.old("b") == old
    assert len(world.replicas()) == 4 + 1 + 1
    assert (await promoted(world, operation))["outcome"] == "applied"
    assert not set(old) & set(world.replicas())


async def test_two_deployments_with_different_steps_go_together(world: Tried) -> None:
    b = {**B, "rollout": {"canary": {"steps": [20], "step_s": 10, "min_requests": 0}}}
    await world.apply(A, b)
    operation = await world.begin(A, b, files=BOTH_NEW)
    assert world.shares() == {"a": 10, "b": 20}
    await world.spend(31)
    assert world.shares() == {"a": 50, "b": 20}
    assert (await promoted(world, operation))["outcome"] == "applied"


async def test_a_step_waits_for_its_replicas_and_keeps_the_share_until_then(world: Tried) -> None:
    await world.apply(A)
    await world.begin(A)
    await world.spend(29.5)
    world.clock.advance(0.5)
    await world.reconciler.pass_once()  # the next step: its replica is starting
    await world.reconciler.pass_once()
    assert world.shares() == {"a": 10}
    assert sum(r.phase is ReplicaPhase.STARTING for r in world.cluster.observe().replicas) == 1
    world.cluster.settle()
    await world.look()
    assert world.shares() == {"a": 50}


async def test_without_requests_a_step_goes_on(world: Tried) -> None:
    await world.apply(A)
    operation = await world.begin(A)
    await world.spend(600, requests=0)
    assert world.shares() == {"a": 10}
    assert operation.result is None
    await world.spend(3)
    assert world.shares() == {"a": 50}


async def test_a_new_version_that_does_not_start_changes_nothing(world: Tried) -> None:
    await world.apply(A)
    old = world.old()
    target = world.plane.apply(request(A, files=NEW))
    while world.ledger.target("default") is None:
        await asyncio.sleep(0)
    world.cluster.broken.update(d.version for d in world.ledger.target("default").deployments)
    result = await world.run(target)
    assert (result["outcome"], result["problems"][0]["code"]) == ("rolled_back", "replica_failed")
    assert (world.old(), world.replicas()) == (old, sorted(old))


async def test_a_replica_that_dies_in_a_step_is_replaced_and_the_step_goes_on(world: Tried) -> None:
    await world.apply(A)
    await world.begin(A)
    ((dead,),) = [route.replicas for route in world.canaries()]
    world.cluster.kill(dead.id)
    await world.look()
    world.clock.advance(10)
    for _ in range(3):
        await world.look()
    ((other,),) = [route.replicas for route in world.canaries()]
    assert other.id != dead.id
    assert world.shares() == {"a": 10}


async def test_an_old_replica_that_dies_in_a_step_is_replaced_by_one_of_the_old_version(world: Tried) -> None:
    await world.apply(A)
    await world.begin(A)
    before = world.old()
    world.cluster.kill(before[0])
    for _ in range(4):
        world.clock.advance(10)
        await world.look()
    versions = {r.id: r.version for r in world.cluster.observe().replicas}
    assert len(world.old()) == 4
    assert {versions[replica] for replica in world.old()} == {versions[before[1]]}


@pytest.mark.parametrize("after_a_look_s", [20, 0.2])
async def test_replicas_of_the_new_version_that_keep_ending_take_it_back(world: Tried, after_a_look_s: float) -> None:
    await world.apply(A)
    operation = await world.begin(A)
    for _ in range(3):
        for canary in world.canaries():
            world.cluster.kill(canary.replicas[0].id)
        world.clock.advance(after_a_look_s)
        await world.look()
        for _ in range(3):
            world.clock.advance(20)
            await world.look()
    result = await world.run(operation)
    assert result["outcome"] == "rolled_back"
    assert "3 replicas of the new version have ended" in result["problems"][0]["message"]


async def test_another_controller_goes_on_with_the_step(world: Tried) -> None:
    await world.apply(A)
    operation = await world.begin(A)
    await world.spend(31)
    operation.task.cancel()
    state = world.ledger.heads["default"].canary
    await world.restart()
    world.plane.resume_operations()
    assert world.ledger.heads["default"].canary == state
    for _ in range(3):
        await world.look()
    assert world.shares() == {"a": 50}
    again = world.plane.operation(operation.id)
    await world.spend(70)
    assert (await world.run(again))["outcome"] == "applied"


@pytest.mark.parametrize("set_by_s", [3600, -3600])
async def test_a_clock_that_is_set_makes_a_step_no_shorter_and_no_longer(world: Tried, set_by_s: float) -> None:
    await world.apply(A)
    await world.begin(A)
    await world.spend(1)
    world.clock.set_wall(set_by_s)
    await world.spend(27)
    assert world.shares() == {"a": 10}
    await world.spend(4)
    assert world.shares() == {"a": 50}


async def test_another_controller_takes_a_bad_version_back(world: Tried) -> None:
    await world.apply(A)
    operation = await world.begin(A)
    operation.task.cancel()
    await world.restart()
    await world.look()
    await world.spend(5, failing=0.5)
    assert world.shares() == {}
    assert world.ledger.revisions["default"][2].outcome == "rolled_back"


async def test_a_controller_that_died_before_it_wrote_the_step_begins_it_once_more(world: Tried) -> None:
    await world.apply(A)
    await world.begin(A)
    number = world.ledger.generation.number
    await world.restart()
    head = world.ledger.heads["default"]
    world.ledger.heads["default"] = type(head)(name="default", current=1, target=2, last=2)
    await world.look()
    assert world.ledger.heads["default"].canary is not None
    assert (world.shares(), world.ledger.generation.number) == ({"a": 10}, number)


async def test_cancelling_the_apply_takes_the_canary_back(world: Tried) -> None:
    await world.apply(A)
    old = world.old()
    operation = await world.begin(A)
    assert (await world.plane.cancel(operation.id)).undone
    assert (await world.run(operation))["outcome"] == "rolled_back"
    assert (world.shares(), world.replicas()) == ({}, sorted(old))


async def test_promote_ends_the_canary_at_once_whatever_it_answers(world: Tried) -> None:
    await world.apply(A)
    operation = await world.begin(A)
    assert await world.plane.promote("default", "a") is operation
    await world.spend(2, failing=1.0)
    assert (await world.run(operation))["outcome"] == "applied"
    assert world.shares() == {}
    assert {r.version for r in world.cluster.observe().replicas} == {world.live.routes[0].version}


async def test_abort_takes_it_back_and_the_apply_is_rolled_back(world: Tried) -> None:
    await world.apply(A)
    operation = await world.begin(A)
    assert await world.plane.abort("default") is operation
    result = await world.run(operation)
    assert (result["outcome"], result["problems"][0]["code"]) == ("rolled_back", "canary_aborted")
    assert world.shares() == {}


async def test_where_no_canary_runs_there_is_nothing_to_end(world: Tried) -> None:
    with pytest.raises(NotFound):
        await world.plane.promote("default")
    await world.apply(A)
    for end in (world.plane.promote, world.plane.abort):
        with pytest.raises(Conflict, match="has no canary that runs"):
            await end("default", "a")
    await world.begin(A)
    with pytest.raises(Conflict, match="deployment 'z'"):
        await world.plane.abort("default", "z")


async def test_a_bake_follows_a_canary_where_both_are_asked_for(world: Tried) -> None:
    both = {**A, "rollout": {"canary": CANARY, "bake_s": 20, "max_error_rate": 0.1}}
    await world.apply(both)
    old = world.old()
    operation = await world.begin(both)
    await world.spend(66)
    head = world.ledger.heads["default"]
    assert (head.canary, head.baking_until is not None) == (None, True)
    assert not set(old) & set(world.old())
    world.cluster.answered["default/a"] = Answers(100, 50)
    world.clock.advance(1)
    result = await world.run(operation)
    assert (result["outcome"], result["problems"][0]["code"]) == ("rolled_back", "error_rate")
    assert sorted(world.old()) == sorted(old)


async def test_a_way_back_tries_nothing(world: Tried) -> None:
    await world.apply(A)
    await promoted(world, await world.begin(A))
    result = await world.run(world.plane.rollback("default", None, request(A)))
    assert result["outcome"] == "applied"
    assert world.shares() == {}


async def test_waves_follow_a_canary_whose_surge_is_narrow(world: Tried) -> None:
    narrow = {**A, "rollout": {"canary": CANARY, "max_surge": 1}}
    await world.apply(narrow)
    operation = await world.begin(narrow)
    most = len(world.replicas())
    for _ in range(150):
        await world.spend(0.5)
        most = max(most, sum(r.phase is not ReplicaPhase.DRAINING for r in world.cluster.observe().replicas))
    assert (await world.run(operation))["outcome"] == "applied"
    assert most == 5
    assert len({r.version for r in world.cluster.observe().replicas}) == 1


async def test_without_room_beside_the_old_replicas_it_is_refused_before_anything_is_touched(world: Tried) -> None:
    wide = {
        **A,
        "num_replicas": 2,
        "ray_actor_options": {"num_cpus": 32},
        "rollout": {"canary": CANARY, "max_unavailable": 1},
    }
    await world.apply(wide)
    old = world.old()
    world.cluster.set_nodes(NodeState(id="node0", is_head=True, total={"CPU": 64}, available={"CPU": 0}))
    result = await world.run(world.plane.apply(request(wide, files=NEW)), looks=100)
    assert (result["outcome"], result["problems"][0]["code"]) == ("failed", "does_not_fit")
    assert world.replicas() == sorted(old)


async def test_another_stack_that_moves_leaves_the_canary_as_it_is(world: Tried) -> None:
    await world.apply({**A, "request_timeout_s": 5})
    await world.begin({**A, "request_timeout_s": 7})
    (before,) = world.canaries()
    await world.run(world.plane.apply(request({**B, "route_prefix": "/else"}, stack="two")))
    assert world.canaries() == [before]
    assert before.request_timeout_s == 7


async def test_status_plan_and_events_show_the_step(world: Tried) -> None:
    await world.apply(A)
    plan = await world.plane.plan(request(A, files=NEW))
    assert plan.actions[0].after["canary"] == {"steps": (10, 50), "step_s": 30}
    operation = await world.begin(A)
    status = make_status(world.ledger, world.cluster.observe(), pid=1, address="")
    (deployment,) = status["stacks"][0]["deployments"]
    assert deployment["canary"]["step"] == 1
    assert deployment["canary"]["percent"] == 10
    assert deployment["canary"]["until"].startswith("2023-")
    assert deployment["canary"]["message"] == "step 1 of 2: a 10 %"
    assert make_routes(world.live) == {"/a": "a"}
    await promoted(world, operation)
    said = [event.message for event in world.events.recent() if event.kind is EventKind.CANARY]
    assert said == [
        "step 1 of 2: a 10 %",
        "step 2 of 2: a 50 %",
        "all of the requests go to the new version as soon as its replicas are ready",
    ]
    status = make_status(world.ledger, world.cluster.observe(), pid=1, address="")
    assert status["stacks"][0]["deployments"][0]["canary"] is None


NEWER = {**NEW, "a.py": "3"}


async def test_a_newer_apply_takes_the_place_of_a_canary(world: Tried) -> None:
    await world.apply(A)
    old = world.old()
    first = await world.begin(A)
    second = await world.begin(A, files=NEWER)
    result = await world.run(first)
    assert (result["outcome"], result["problems"][0]["code"]) == ("rolled_back", "superseded")
    await world.spend(2)
    assert world.shares() == {"a": 10}
    assert world.old() == old
    third = await world.begin(A)  # the line is as it was
    assert (await world.run(second))["problems"][0]["code"] == "superseded"
    assert (await promoted(world, third))["outcome"] == "applied"


async def test_of_many_that_come_while_a_canary_runs_the_last_one_stays(world: Tried) -> None:
    await world.apply(A)
    operations = [await world.begin(A)]
    operations += [world.plane.apply(request(A, files={**NEW, "a.py": str(number)})) for number in range(3, 7)]
    *others, last = operations
    for other in others:
        assert (await world.run(other, looks=200))["problems"][0]["code"] == "superseded"
    async with asyncio.timeout(60):
        while world.ledger.target("default") is None:  # it may only be beginning
            await asyncio.sleep(0.001)
            await world.look()
    assert world.ledger.target("default").deployments[0].modules["a.py"] == "6"
    assert (await promoted(world, last))["outcome"] == "applied"


async def test_what_a_canary_tries_is_waited_for_by_who_wants_the_same(world: Tried) -> None:
    await world.apply(A)
    first = await world.begin(A)
    second = await world.begin(A)
    assert world.shares() == {"a": 10}
    assert (await promoted(world, first))["outcome"] == "applied"
    assert (await world.run(second))["outcome"] == "unchanged"


@pytest.mark.parametrize("refused", ["import_path", "merge"])
async def test_a_canary_stays_where_the_newer_apply_is_refused_or_is_about_something_else(
    world: Tried, refused: str
) -> None:
    await world.apply(A)
    first = await world.begin(A)
    if refused == "merge":  # Deployment.deploy() of another one
        second = await world.begin(B, merge=True)
        assert second.result is None
    else:
        world.preflight.reports["a:missing"] = TargetReport(ok=False, error="ImportError: no a")
        second = await world.begin({**A, "import_path": "a:missing"})
        assert (second.result or {}).get("outcome") == "rolled_back"
    assert world.shares() == {"a": 10}
    assert (await promoted(world, first))["outcome"] == "applied"


async def test_who_goes_back_or_takes_it_all_away_does_not_wait_for_a_canary(world: Tried) -> None:
    await world.apply(A)
    first = await world.begin(A)
    nothing = await world.run(world.plane.rollback("default", None, request(A)))
    assert nothing["problems"][0]["code"] == "canary_runs"
    assert world.shares() == {"a": 10}
    gone = await world.run(world.plane.delete("default", None, request(A)))
    assert gone["outcome"] == "applied"
    assert (await world.run(first))["problems"][0]["code"] == "superseded"
