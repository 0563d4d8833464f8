"""The number of replicas follows what the proxies report."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace

from serveconf.errors import Conflict, NotFound, OperatorError
from serveconf.figures import DeploymentLoad, LoadReport
from serveconf.plan.desired import make_desired
from serveconf.plan.moving import with_names
from serveconf.plan.scaling import Answer
from serveconf.plan.state import DesiredStack, Observed, ProxyPhase, ProxyState, ReplicaPhase, ReplicaState
from serveconf.reconcile.loads import Loads
from serveconf.reconcile.scaling import Scaling
from serveconf.spec.models import StackSpec
from serveconf.testing import ManualClock, MemoryStore

pytestmark = pytest.mark.anyio


def stack(*deployments: dict[str, Any], name: str = "shop") -> DesiredStack:
    spec = {"name": name, "deployments": [{"import_path": "m:app"} | d for d in deployments]}
    return make_desired(StackSpec.model_validate_json(json.dumps(spec)), revision=1, code="", files_for=lambda _: {})


def cart(**config: Any) -> dict[str, Any]:
    return {"name": "cart", "autoscaling_config": {"max_replicas": 10, **config}}


def seen(ready: int, *, starting: int = 0, proxies: tuple[str, ...] = ("p",)) -> Observed:
    phases = [ReplicaPhase.READY] * ready + [ReplicaPhase.STARTING] * starting
    return Observed(
        replicas=tuple(
            ReplicaState(id=f"r{n}", stack="shop", deployment="cart", version="v", phase=phase)
            for n, phase in enumerate(phases)
        ),
        proxies=tuple(ProxyState(id=one, node_id="n", phase=ProxyPhase.READY, pid=1) for one in proxies),
    )


class Reports:
    """Processes that say what the test has them say, and are silent otherwise."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, float]] = []
        self.answers: asyncio.Queue[LoadReport | OperatorError] = asyncio.Queue()

    async def load_report(self, source: str, seen: int, *, slower: float) -> LoadReport:
        self.asked.append((source, seen, slower))
        answer = await self.answers.get()
        if isinstance(answer, OperatorError):
            raise answer
        return answer


class Room:
    """Scaling, and all that it talks to."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.clock, self.store, self.reports = ManualClock(), store or MemoryStore(), Reports()
        self.scaling = Scaling(self.reports, self.store, self.clock)
        self.changed: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.scaling.on_change = self.changed.append
        self.scaling.note = lambda **event: self.events.append(event)
        self.clock.advance(100)

    def number(self, stack: DesiredStack, name: str = "cart") -> int:
        scaled = self.scaling.scaled(stack)
        deployment = scaled.deployment(name) if scaled else None
        assert deployment is not None
        return deployment.num_replicas

    def report(self, source: str = "p", name: str = "shop/cart", **load: Any) -> None:
        self.scaling.take(source, LoadReport(number=1, loads={name: DeploymentLoad(**load)}))

    def pass_time(self, seconds: float) -> None:
        """A process without requests reports that it has none."""
        for quarter in range(round(seconds * 4)):
            self.clock.advance(0.25)
            if quarter % 40 == 0:
                self.scaling.take("p", LoadReport(number=1))
            self.scaling.tick()


@pytest.fixture
def room() -> Room:
    return Room()


# the signal


def test_reports_of_several_processes_are_added_up() -> None:
    loads = Loads()
    for source in ("p", "q"):
        loads.take(source, LoadReport(loads={"s/d": DeploymentLoad(arrivals=5, ongoing=2, ongoing_s=1.0)}), 10.0)
        loads.take(source, LoadReport(loads={"s/d": DeploymentLoad(arrivals=9, ongoing=1, ongoing_s=3.0)}), 11.0)
    sample = loads.sample("s/d", 11.0)
    assert (sample.arrivals, sample.ongoing, sample.ongoing_s) == (8, 2, 4.0)


def test_between_two_reports_what_was_there_is_taken_to_be_there() -> None:
    loads = Loads()
    loads.take(
        "p", LoadReport(loads={"s/d": DeploymentLoad(ongoing=4, waiting=2, oldest_wait_s=0.5, ongoing_s=7)}), 10.0
    )
    sample = loads.sample("s/d", 10.5)
    assert (sample.ongoing_s, sample.waiting_s, sample.oldest_wait_s) == (2.0, 1.0, 1.0)


def test_a_process_that_begins_anew_counts_from_nothing() -> None:
    loads = Loads()
    loads.take("p", LoadReport(loads={"s/d": DeploymentLoad(arrivals=50, completions=50, ongoing_s=9.0)}), 10.0)
    loads.take(
        "p", LoadReport(loads={"s/d": DeploymentLoad(arrivals=3, completions=1, ongoing=2, ongoing_s=0.5)}), 11.0
    )
    sample = loads.sample("s/d", 11.0)
    assert (sample.arrivals, sample.completions, sample.ongoing_s, sample.ongoing) == (3, 1, 0.5, 2)


def test_a_deployment_that_gets_another_name_goes_on_with_its_sums_under_whichever_name_it_is_reported() -> None:
    loads = Loads()
    loads.take("p", LoadReport(loads={"s/d": DeploymentLoad(arrivals=50, ongoing=1, ongoing_s=9.0)}), 10.0)
    loads.move("s/d", "s/e")
    assert loads.take("p", LoadReport(loads={"s/d": DeploymentLoad(arrivals=52, ongoing=2, ongoing_s=10)}), 11.0) == [
        "s/e"
    ]
    loads.take("p", LoadReport(loads={"s/e": DeploymentLoad(arrivals=53, ongoing=3, ongoing_s=12.0)}), 12.0)
    sample = loads.sample("s/e", 12.0)
    assert (sample.arrivals, sample.ongoing, sample.ongoing_s) == (3, 3, 3.0)
    loads.move("s/e", "s/d")  # it is taken back
    loads.take("p", LoadReport(loads={"s/d": DeploymentLoad(arrivals=54, ongoing=0, ongoing_s=12.0)}), 13.0)
    assert (loads.sample("s/d", 13.0).arrivals, loads.sample("s/e", 13.0).arrivals) == (4, 0)


def test_a_name_that_another_deployment_takes_is_its_own() -> None:
    loads = Loads()
    loads.move("s/d", "s/e")
    loads.own("s/d")
    loads.take("p", LoadReport(), 9.0)
    assert loads.take("p", LoadReport(loads={"s/d": DeploymentLoad(arrivals=1, ongoing=1)}), 10.0) == ["s/d"]


async def test_what_is_known_of_a_load_goes_with_a_new_name_and_comes_back_with_the_old_one(room: Room) -> None:
    room.scaling.look("shop", stack(cart()), seen(1))
    load = DeploymentLoad(arrivals=8, ongoing=8, waiting=5, oldest_wait_s=0.2)
    room.reports.answers.put_nowait(LoadReport(number=7, loads={"shop/cart": load}))
    for _ in range(4):
        await asyncio.sleep(0)
    assert room.number(stack(cart())) == 4
    moves = {"cart": "new"}
    new = with_names(stack(cart()), moves)
    assert new is not None
    room.scaling.look("shop", new, seen(4), frozenset(), moves)
    state = room.scaling.state("shop", "new")
    assert state is not None and (state["desired"], state["ongoing"]) == (4, 8)
    assert room.scaling.state("shop", "cart") is None
    room.scaling.look("shop", stack(cart()), seen(4))
    assert room.scaling.state("shop", "cart") == state


def test_what_ran_at_a_process_that_ended_is_gone() -> None:
    loads = Loads()
    loads.take("p", LoadReport(loads={"s/d": DeploymentLoad(arrivals=3, ongoing=3)}), 10.0)
    assert loads.lose("p") == ["s/d"]
    assert loads.sample("s/d", 11.0).ongoing == 0


def test_a_process_with_requests_is_silent_after_seconds_and_one_without_after_a_minute() -> None:
    loads = Loads()
    loads.take("p", LoadReport(loads={"s/d": DeploymentLoad(ongoing=1)}), 10.0)
    loads.take("q", LoadReport(), 10.0)
    assert [loads.sample("s/d", 10.0 + age).silent for age in (2.0, 4.0)] == [False, True]
    assert [loads.sample("s/e", 10.0 + age).silent for age in (4.0, 41.0)] == [False, True]


async def test_every_process_has_a_pending_call_which_says_what_was_heard(room: Room) -> None:
    room.scaling.look("shop", stack(cart()), seen(1))
    await asyncio.sleep(0)
    assert room.reports.asked == [("p", 0, 1.0)]
    room.reports.answers.put_nowait(
        LoadReport(number=7, loads={"shop/cart": DeploymentLoad(arrivals=8, ongoing=8, waiting=5, oldest_wait_s=0.2)})
    )
    for _ in range(3):
        await asyncio.sleep(0)
    assert room.reports.asked[1:] == [("p", 7, 1.0)]
    assert room.number(stack(cart())) == 4 and room.changed == ["shop"]


async def test_a_process_that_cannot_be_asked_is_asked_anew(room: Room) -> None:
    room.scaling.look("shop", stack(cart()), seen(1))
    room.reports.answers.put_nowait(LoadReport(number=3))
    room.reports.answers.put_nowait(OperatorError("gone"))
    for _ in range(6):
        await asyncio.sleep(0)
    assert [number for _, number, _ in room.reports.asked] == [0, 3, 0]


async def test_a_process_that_has_not_reported_yet_keeps_the_number(room: Room) -> None:
    desired = stack(cart(downscale_delay_s=1, initial_replicas=3))
    room.scaling.look("shop", desired, seen(3, proxies=("p", "q")))
    room.pass_time(30)
    assert room.number(desired) == 3
    state = room.scaling.state("shop", "cart")
    assert state is not None and state["reason"] == "a proxy is silent"
    room.scaling.take("q", LoadReport(number=1))
    room.pass_time(30)
    assert room.number(desired) == 1


async def test_nobody_is_asked_where_no_number_follows_the_load(room: Room) -> None:
    room.scaling.look("shop", stack({"name": "cart", "num_replicas": 2}), seen(2))
    await asyncio.sleep(0)
    assert room.reports.asked == []


async def test_replicas_that_call_a_deployment_by_handle_are_asked_too(room: Room) -> None:
    desired = stack({"name": "shop"}, cart() | {"name": "shop.Stock"})
    bound = tuple(replace(d, bound="Stock" if d.name == "shop.Stock" else "") for d in desired.deployments)
    replicas = tuple(
        ReplicaState(id=name, stack="shop", deployment=name, version="v", phase=ReplicaPhase.READY)
        for name in ("shop", "shop.Stock", "other")
    )
    room.scaling.look("shop", replace(desired, deployments=bound), Observed(replicas=replicas))
    await asyncio.sleep(0)
    assert sorted(source for source, _, _ in room.reports.asked) == ["shop", "shop.Stock"]
    room.report("shop", "shop/shop.Stock", arrivals=12, ongoing=12, waiting=9, oldest_wait_s=0.15)
    assert room.number(replace(desired, deployments=bound), "shop.Stock") == 6


async def test_the_calls_of_scripts_count_until_nothing_more_is_heard_of_them(room: Room) -> None:
    desired = stack(cart(downscale_delay_s=5), {"name": "fixed", "num_replicas": 1})
    room.scaling.hear("1", {"shop/cart": DeploymentLoad(arrivals=9, ongoing=9)})  # nobody follows anything yet
    room.scaling.look("shop", desired, seen(1))
    room.scaling.hear("1", {})
    room.clock.advance(0.25)
    waiting = {"shop/cart": DeploymentLoad(arrivals=12, ongoing=12, waiting=9, oldest_wait_s=0.15)}
    room.scaling.hear("1", waiting | {"shop/fixed": DeploymentLoad(ongoing=1), "x/y": DeploymentLoad(ongoing=1)})
    assert room.number(desired) == 6
    room.scaling.look("shop", desired, seen(6))
    room.pass_time(2)
    state = room.scaling.state("shop", "cart")
    assert state is not None and state["ongoing"] == 12
    room.pass_time(30)  # it has ended
    state = room.scaling.state("shop", "cart")
    assert state is not None and (state["ongoing"], room.number(desired)) == (0, 1)


async def test_many_processes_report_less_often(room: Room) -> None:
    room.scaling.look("shop", stack(cart()), seen(1, proxies=tuple(f"p{n}" for n in range(400))))
    await asyncio.sleep(0)
    assert {slower for _, _, slower in room.reports.asked} == {4.0}


# the number


async def test_a_queue_starts_replicas_in_the_moment_in_which_it_is_reported(room: Room) -> None:
    desired = stack(cart())
    room.scaling.look("shop", desired, seen(1))
    assert room.number(desired) == 1
    room.report(arrivals=12, ongoing=12, waiting=9, oldest_wait_s=0.15)
    assert room.number(desired) == 6 and room.changed == ["shop"]
    (event,) = room.events
    assert (event["kind"], event["stack"], event["deployment"]) == ("scale", "shop", "cart")
    assert event["message"] == "cart went from 1 to 6: requests wait: 9 of 12"
    assert event["data"]["before"] == 1 and event["data"]["cause"] == "queue"


async def test_without_load_the_number_falls_by_itself_down_to_none(room: Room) -> None:
    desired = stack(cart(min_replicas=0, downscale_delay_s=20, downscale_to_zero_delay_s=60))
    room.scaling.look("shop", desired, seen(1))
    room.report(arrivals=12, ongoing=12, waiting=9, oldest_wait_s=0.15)
    room.scaling.look("shop", desired, seen(6))
    room.pass_time(5)
    room.report(arrivals=12, completions=12, ongoing_s=5.0, waiting_s=2.0)
    room.pass_time(50)
    assert room.number(desired) == 1
    room.pass_time(30)
    assert room.number(desired) == 0
    assert [event["data"]["cause"] for event in room.events] == ["queue", "falling", "idle"]
    room.scaling.look("shop", desired, seen(0))
    room.report(arrivals=13, completions=12, ongoing_s=5.0, waiting_s=2.0, ongoing=1, waiting=1)
    assert room.number(desired) == 1


async def test_the_number_does_not_turn_before_what_it_rose_for_has_come(room: Room) -> None:
    """A queue of twelve is gone with the second replica; the others have been asked for, and get ready one by one."""
    shop = stack(cart(downscale_delay_s=0))
    room.scaling.look("shop", shop, seen(1))
    room.clock.advance(1)
    room.report(arrivals=12, ongoing=12, waiting=9, oldest_wait_s=0.2)
    assert room.number(shop) == 6
    for ready in range(1, 6):
        room.scaling.look("shop", shop, seen(ready, starting=1))
        for _ in range(10):
            room.clock.advance(0.25)
            room.report(arrivals=12, completions=11, ongoing_s=3.0, waiting_s=1.0, ongoing=1)
            assert room.number(shop) == 6
    room.scaling.look("shop", shop, seen(6))
    for _ in range(60):
        room.clock.advance(0.25)
        room.report(arrivals=12, completions=11, ongoing_s=3.0, waiting_s=1.0, ongoing=1)
    assert room.number(shop) == 1


async def test_a_dry_run_only_says_what_it_would_do(room: Room) -> None:
    desired = stack(cart(dry_run=True, initial_replicas=2))
    room.scaling.look("shop", desired, seen(2))
    for arrivals in (40, 41):
        room.clock.advance(0.25)
        room.report(arrivals=arrivals, ongoing=12, waiting=9, oldest_wait_s=0.15)
    assert room.number(desired) == 2 and room.changed == []
    assert [event["message"] for event in room.events] == ["cart would go from 2 to 6: requests wait: 9 of 12"]
    state = room.scaling.state("shop", "cart")
    assert state is not None and state["desired"] == 6


async def test_the_number_survives_the_controller(room: Room) -> None:
    desired = stack(cart())
    room.scaling.look("shop", desired, seen(1))
    room.report(arrivals=12, ongoing=12, waiting=9, oldest_wait_s=0.15)
    await room.scaling.flush()
    later = Room(room.store)
    await later.scaling.load()
    assert later.number(desired) == 6
    later.scaling.look("shop", desired, seen(6))
    later.pass_time(50)
    assert later.number(desired) == 6
    later.pass_time(20)
    assert later.number(desired) == 1


async def test_another_file_keeps_the_number_within_its_bounds_and_a_fixed_one_ends_it(room: Room) -> None:
    room.scaling.look("shop", stack(cart()), seen(1))
    room.report(arrivals=12, ongoing=12, waiting=9, oldest_wait_s=0.15)
    for config, number in (({"max_replicas": 4}, 4), ({"min_replicas": 5}, 5)):
        room.scaling.look("shop", stack(cart(**config)), seen(6))
        assert room.number(stack(cart(**config))) == number
    fixed = stack({"name": "cart", "num_replicas": 2})
    room.scaling.look("shop", fixed, seen(6))
    assert room.number(fixed) == 2


async def test_a_deployment_that_is_gone_is_forgotten(room: Room) -> None:
    room.scaling.look("shop", stack(cart()), seen(1))
    room.report(arrivals=12, ongoing=12, waiting=9, oldest_wait_s=0.15)
    await room.scaling.flush()
    room.scaling.look("shop", stack({"name": "other"}), seen(0))
    room.report(arrivals=99, ongoing=50, waiting=9, oldest_wait_s=0.15)
    await room.scaling.flush()
    assert room.number(stack(cart())) == 1 and "scaling/shop" not in room.store.values
    room.scaling.forget("shop")


# by hand


async def test_a_number_set_by_hand_stays_whatever_the_load(room: Room) -> None:
    desired = stack(cart())
    room.scaling.look("shop", desired, seen(1))
    assert room.scaling.hold("shop", "cart", 3) == (1, 3)
    room.clock.advance(1)
    room.report(arrivals=12, ongoing=12, waiting=9, oldest_wait_s=0.15)
    assert room.number(desired) == 3
    state = room.scaling.state("shop", "cart")
    assert state is not None and state["reason"] == "set by hand"
    room.scaling.release("shop")
    room.pass_time(1)
    assert room.number(desired) == 6


async def test_a_fixed_number_is_set_by_hand_until_an_apply(room: Room) -> None:
    desired = stack({"name": "cart", "num_replicas": 2})
    room.scaling.look("shop", desired, seen(2))
    assert room.scaling.hold("shop", "cart", 5) == (2, 5)
    assert room.number(desired) == 5 and room.changed == ["shop"]
    room.scaling.release("shop")
    assert room.number(desired) == 2


async def test_a_number_outside_of_the_bounds_is_refused(room: Room) -> None:
    room.scaling.look("shop", stack(cart(), {"name": "fixed"}), seen(1))
    for name, number in (("cart", 0), ("cart", 11), ("fixed", 0)):
        with pytest.raises(Conflict):
            room.scaling.hold("shop", name, number)
    with pytest.raises(NotFound):
        room.scaling.hold("shop", "nobody", 1)


# policies


async def test_a_policy_is_asked_with_the_load_and_its_answer_is_the_number(room: Room) -> None:
    asked: list[dict[str, Any]] = []

    async def policy(stack: str, deployment: Any, context: dict[str, Any]) -> Answer:
        asked.append(context)
        return Answer(number=7)

    room.scaling.ask_policy = policy
    desired = stack(cart(policy="m:rule"))
    room.scaling.look("shop", desired, seen(1))
    room.report(arrivals=4, ongoing=4, waiting=1)
    room.clock.advance(1)
    for _ in range(3):
        await asyncio.sleep(0)
    assert room.number(desired) == 7
    assert (asked[0]["ongoing"], asked[0]["queued"], asked[0]["max_replicas"]) == (4, 1, 10)


async def test_a_policy_that_fails_keeps_the_number_and_says_so_once(room: Room) -> None:
    async def policy(stack: str, deployment: Any, context: dict[str, Any]) -> Answer:
        return Answer(failure="ZeroDivisionError: division by zero")

    room.scaling.ask_policy = policy
    desired = stack(cart(policy="m:rule", min_replicas=2))
    room.scaling.look("shop", desired, seen(2))
    for _ in range(8):
        room.clock.advance(1)
        room.scaling.tick()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert room.number(desired) == 2
    assert [event["message"] for event in room.events] == [
        "the policy of cart failed, its number stays: ZeroDivisionError: division by zero"
    ]


async def test_a_listener_that_a_fault_has_ended_begins_anew() -> None:
    class Faulty(Reports):
        async def load_report(self, source: str, seen: int, *, slower: float) -> LoadReport:
            if not self.asked:
                self.asked.append((source, seen, slower))
                raise RuntimeError("a fault")
            return await super().load_report(source, seen, slower=slower)

    reports = Faulty()
    scaling = Scaling(reports, MemoryStore(), ManualClock())
    goal = stack(cart())
    for _ in range(3):
        scaling.look("shop", goal, seen(1))
        for _ in range(10):
            await asyncio.sleep(0)
    assert len(reports.asked) == 2
    await scaling._tasks.close()
