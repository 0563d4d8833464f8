"""One owner for every fact: whatever is at work on a stack at once, each fact has one value and every apply one result."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world import World, request

from serveconf.errors import CodeFailed, Conflict, NotFound, OperatorError
from serveconf.plan.state import ProxyPhase
from serveconf.reconcile.operations import Operation
from serveconf.reconcile.records import Failure, Ledger, Revision, StackHead
from serveconf.testing import MemoryStore

A = {"name": "a", "import_path": "a:app"}
B = {"name": "b", "import_path": "b:app"}
NEW = {"a.py": "2", "b.py": "1", "c.py": "1"}
NEWER = {"a.py": "3", "b.py": "1", "c.py": "1"}
BAKED = {**A, "rollout": {"bake_s": 60}}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    """The loop as it is in a controller: every stack in a task of its own; the cluster settles all the time."""

    async def settle() -> None:
        while True:
            await asyncio.sleep(0.005)
            world.cluster.settle()

    world.reconciler.start()
    settling = asyncio.create_task(settle())
    try:
        yield
    finally:
        await world.reconciler.stop()
        settling.cancel()


async def result(operation: Operation, limit_s: float = 40) -> dict[str, Any]:
    """What a follower hears at the end."""

    async def last() -> dict[str, Any]:
        return [event async for event in operation.follow()][-1]

    return await asyncio.wait_for(last(), limit_s)


# -- an apply has one result, whoever is beside it


async def test_a_cancelled_queued_apply_has_a_result_and_is_never_applied(world: World) -> None:
    await world.apply(BAKED)
    first = world.plane.apply(request(BAKED, files=NEW))
    for _ in range(20):
        await world.look()
    queued = world.plane.apply(request(BAKED, files=NEWER))
    await asyncio.sleep(0)
    follower = asyncio.create_task(result(queued))
    assert (await world.plane.cancel(queued.id)).undone
    assert (await follower)["outcome"] == "rolled_back"
    world.clock.advance(61)
    assert (await world.run(first))["outcome"] == "applied"
    assert max(world.ledger.revisions["default"]) == 2


@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_a_cancel_at_any_moment_and_the_result_say_the_same(world: World, turns: int) -> None:
    await world.apply(A)
    async with running(world):
        operation = world.plane.apply(request(A, files=NEW))
        for _ in range(turns):
            await asyncio.sleep(0)
        cancelled = await world.plane.cancel(operation.id)
        outcome = (await result(operation))["outcome"]
        assert outcome == ("rolled_back" if cancelled.undone else "applied")
        head = world.ledger.heads["default"]
        assert (head.current, head.target) == ((1, None) if cancelled.undone else (2, None))


@pytest.mark.parametrize("turns", range(0, 60, 4))
async def test_a_resume_beside_an_apply_neither_loses_nor_revives_a_target(world: World, turns: int) -> None:
    await world.apply(A)
    async with running(world):
        operation = world.plane.apply(request(A, files=NEW))
        for _ in range(turns):
            await asyncio.sleep(0)
        await world.plane.resume("default")
        assert (await result(operation))["outcome"] == "applied"
        head = world.ledger.heads["default"]
        assert (head.current, head.target, head.pinned) == (2, None, False)


async def test_an_apply_taken_over_keeps_the_receipt_that_it_has(world: World) -> None:
    await world.apply(A)
    revision = world.ledger.revisions["default"][1]
    counted = {**revision.receipt, "requests": 7}
    await world.stacks.ledger.write(revision=msgspec.structs.replace(revision, receipt=counted))
    await world.restart()
    again = world.plane.operation(revision.operation)
    assert (await world.run(again))["receipt"]["requests"] == 7
    assert world.ledger.revisions["default"][1].receipt["requests"] == 7


async def test_a_controller_that_comes_back_sees_the_apply_through_and_counts_it(world: World) -> None:
    await world.apply(A)
    operation = world.plane.apply(request(A, files=NEW))
    while world.ledger.heads["default"].target != 2:
        await asyncio.sleep(0)
    await world.look()
    await world.restart()
    world.plane.resume_operations()
    done = await world.run(world.plane.operation(operation.id))
    assert done["outcome"] == "applied"
    assert "requests" in world.ledger.revisions["default"][2].receipt


async def test_proxies_that_do_not_count_are_not_left_out_silently(world: World) -> None:
    await world.apply(A)
    real = world.cluster.count

    async def count(proxy_id: str, operation: str, *, begin: bool) -> Any:
        if not begin:
            raise OperatorError("no answer")
        return await real(proxy_id, operation, begin=begin)

    world.cluster.count = count  # type: ignore[method-assign]
    receipt = (await world.apply(A, files=NEW))["receipt"]
    assert receipt["uncounted"] == 1


# -- transitions are refused from a state that is gone


async def test_transitions_are_refused_from_a_state_that_is_gone(world: World) -> None:
    await world.apply(A)
    assert not await world.stacks.give_up("default", 1, Failure(code="x", message="x"))
    assert not await world.stacks.give_up("default", 9, Failure(code="x", message="x"))
    async with world.stacks.switching("default", 9, final=True) as mine:
        assert not mine
    await world.stacks.forget("default")
    assert world.ledger.heads["default"].current == 1
    old = world.ledger.revisions["default"][1]
    with pytest.raises(Conflict):
        await world.stacks.begin(old, base=1, deleting=False, pinned=False)
    with pytest.raises(Conflict):
        await world.stacks.begin(msgspec.structs.replace(old, number=2), base=None, deleting=False, pinned=False)


async def test_nobody_gives_up_a_target_while_it_is_switched_to(world: World) -> None:
    await world.apply(A)
    revision = msgspec.structs.replace(world.ledger.revisions["default"][1], number=2, outcome="applying")
    await world.stacks.begin(revision, base=1, deleting=False, pinned=False)
    async with world.stacks.switching("default", 2, final=True) as mine:
        assert mine
        giving_up = asyncio.create_task(world.stacks.give_up("default", 2, Failure(code="x", message="x")))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not giving_up.done()
    assert not await giving_up
    assert world.ledger.heads["default"].current == 2


class Dying(MemoryStore):
    """Takes so many writes, then the controller dies."""

    def __init__(self, values: dict[str, bytes], writes: int) -> None:
        super().__init__()
        self.values = values
        self._left = writes

    async def put(self, key: str, value: bytes) -> None:
        if self._left == 0:
            raise RuntimeError("the process is gone")
        self._left -= 1
        await super().put(key, value)


@pytest.mark.parametrize("writes", range(9))
async def test_a_controller_that_dies_between_two_writes_leaves_nothing_half(tmp_path: Path, writes: int) -> None:
    world = World(tmp_path)
    await world.apply(A)
    world.store = Dying(world.store.values, writes)
    await world.restart()
    operation = world.plane.apply(request(A, files=NEW))
    for _ in range(20):
        await asyncio.sleep(0)
        with contextlib.suppress(RuntimeError):
            await world.look()
    assert operation.task is not None
    operation.task.cancel()
    values = dict(world.store.values)
    world.store = MemoryStore()
    world.store.values = values
    await world.restart()
    for _ in range(20):
        await world.look()
    head = world.ledger.heads["default"]
    assert head.target is None
    assert {r.outcome for r in world.ledger.revisions["default"].values()} <= {"applied", "rolled_back"}
    assert world.ledger.revisions["default"][head.current or 0].outcome == "applied"


async def test_a_record_of_a_newer_serveconf_is_refused_and_left_alone() -> None:
    store = MemoryStore()
    newer = msgspec.json.encode({"name": "a", "format": 99})
    await store.put("stacks/a/head", newer)
    with pytest.raises(OperatorError, match="newer serveconf"):
        await Ledger(store).load()
    assert store.values["stacks/a/head"] == newer


async def test_a_record_from_before_formats_is_understood() -> None:
    store = MemoryStore()
    old = {key: value for key, value in msgspec.to_builtins(StackHead(name="a", last=3)).items() if key != "format"}
    await store.put("stacks/a/head", msgspec.json.encode(old))
    ledger = Ledger(store)
    await ledger.load()
    assert ledger.heads["a"].last == 3


# -- no stack, and no proxy, holds up another


async def test_a_stack_whose_middleware_hangs_holds_up_no_other(world: World) -> None:
    async with running(world):
        assert (await result(world.plane.apply(request(A, stack="one"))))["outcome"] == "applied"
        world.cluster.slow["two"] = asyncio.Event()
        hangs = world.plane.apply(request({**B, "route_prefix": "/two"}, stack="two"))
        await asyncio.sleep(0.1)
        for files in (NEW, NEWER):
            assert (await result(world.plane.apply(request(A, stack="one", files=files))))["outcome"] == "applied"
        assert hangs.result is None
        world.cluster.slow.clear()
        for event in [world.cluster.slow.pop("two", None)]:
            assert event is None
        await world.plane.cancel(hangs.id)


async def test_who_staged_on_a_table_that_has_moved_stages_on_the_new_one(world: World) -> None:
    async with running(world):
        await result(world.plane.apply(request(A, stack="one")))
        gate = world.cluster.slow["two"] = asyncio.Event()
        slow = world.plane.apply(request({**B, "route_prefix": "/two"}, stack="two"))
        await asyncio.sleep(0.1)
        await result(world.plane.apply(request(A, stack="one", files=NEW)))
        one = [r.version for r in world.live.routes if r.stack == "one"]
        gate.set()
        assert (await result(slow))["outcome"] == "applied"
        assert [r.version for r in world.live.routes if r.stack == "one"] == one
        assert {r.stack for r in world.live.routes} == {"one", "two"}


async def test_a_proxy_that_hangs_holds_up_nobody_and_is_brought_forward(tmp_path: Path) -> None:
    world = World(tmp_path, nodes=2)
    everywhere = {"location": "EveryNode"}
    async with running(world):
        await result(world.plane.apply(request(A, http_options=everywhere)))
        hung = world.cluster.observe().proxies[0].id
        world.cluster.hung.add(hung)
        assert (await result(world.plane.apply(request(A, files=NEW, http_options=everywhere))))["outcome"] == "applied"
        phases = {p.id: p.phase for p in world.cluster.observe().proxies}
        assert phases[hung] is ProxyPhase.UNHEALTHY
        world.cluster.hung.clear()
        for _ in range(6_000):
            await asyncio.sleep(0.01)
            if {p.generation for p in world.cluster.observe().proxies} == {world.ledger.generation.number}:
                break
        assert len({generation.number for generation in world.cluster.live.values()}) == 1


async def test_what_a_proxy_that_is_behind_may_still_send_to_is_not_stopped(tmp_path: Path) -> None:
    world = World(tmp_path, nodes=2)
    everywhere = {"location": "EveryNode"}
    async with running(world):
        await result(world.plane.apply(request(A, http_options=everywhere)))
        old = set(world.replicas())
        world.cluster.hung.add(world.cluster.observe().proxies[0].id)
        await result(world.plane.apply(request(A, files=NEW, http_options=everywhere)))
        assert old <= set(world.replicas())
        world.cluster.hung.clear()
        for _ in range(6_000):
            await asyncio.sleep(0.01)
            if not old & set(world.replicas()):
                break
        assert not old & set(world.replicas())


async def test_a_table_that_no_proxy_takes_is_not_committed(world: World) -> None:
    await world.apply(A)
    before = world.ledger.generation

    async def no_answer(proxy_id: str, generation: Any) -> None:
        raise OperatorError("no answer", code="no_answer")

    real, world.cluster.stage = world.cluster.stage, no_answer  # type: ignore[method-assign]
    operation = world.plane.apply(request(A, files=NEW))
    for _ in range(6):
        await world.look()
    assert world.ledger.generation is before
    world.cluster.stage = real  # type: ignore[method-assign]
    assert (await world.run(operation))["outcome"] == "applied"


async def test_while_no_proxy_answers_nothing_is_applied(world: World) -> None:
    async with running(world):
        await result(world.plane.apply(request(A)))
        world.cluster.hung.update(p.id for p in world.cluster.observe().proxies)
        await asyncio.sleep(0.05)
        operation = world.plane.apply(request(A, files=NEW))
        await asyncio.sleep(0.2)
        assert operation.result is None
        world.cluster.hung.clear()
        assert (await result(operation))["outcome"] == "applied"
        assert [r.version for r in world.live.routes] == [
            d.version for d in world.ledger.current("default").deployments
        ]


async def test_bringing_a_proxy_forward_never_runs_beside_a_move(tmp_path: Path) -> None:
    """Staging one number twice at a proxy would leave the commit of the first with nothing staged."""
    world = World(tmp_path, nodes=2)
    staged: list[tuple[str, int]] = []
    real = world.cluster.stage

    async def stage(proxy_id: str, generation: Any) -> None:
        staged.append((proxy_id, generation.number))
        await real(proxy_id, generation)

    world.cluster.stage = stage  # type: ignore[method-assign]
    everywhere = {"location": "EveryNode"}
    async with running(world):
        await result(world.plane.apply(request(A, http_options=everywhere)))
        for number in range(2, 12):
            files = {"a.py": str(number), "b.py": "1", "c.py": "1"}
            await result(world.plane.apply(request(A, files=files, http_options=everywhere)))
    assert len(staged) == len(set(staged))


async def test_an_error_in_one_pass_is_tried_again_and_touches_no_other_stack(world: World) -> None:
    real, failures = world.cluster.start_replica, [RuntimeError("a fault"), RuntimeError("another")]

    async def start_replica(order: Any) -> None:
        if order.stack == "one" and failures:
            raise failures.pop()
        await real(order)

    world.cluster.start_replica = start_replica  # type: ignore[method-assign]
    async with running(world):
        broken = world.plane.apply(request(A, stack="one"))
        assert (await result(world.plane.apply(request({**B, "route_prefix": "/b"}, stack="two"))))["outcome"]
        assert (await result(broken))["outcome"] == "applied"
        assert not failures


async def test_one_empty_look_at_the_nodes_stops_no_proxy(world: World) -> None:
    await world.apply(A)
    nodes = world.cluster.nodes()
    world.cluster.set_nodes()
    await world.look()
    assert [p.phase for p in world.cluster.observe().proxies] == [ProxyPhase.READY]
    world.cluster.set_nodes(*nodes)


async def test_the_last_stack_takes_its_proxies_with_it_and_starts_none(world: World) -> None:
    await world.apply(A, http_options={"port": 9000})
    started = [what for what in world.cluster.log if what[0] == "start_proxy"]
    assert (await world.run(world.plane.delete("default", None, request())))["outcome"] == "applied"
    assert [what for what in world.cluster.log if what[0] == "start_proxy"] == started
    assert world.cluster.observe().proxies == ()


async def test_deleted_stacks_keep_little(world: World) -> None:
    for number in range(8):
        await world.apply(A, files={"a.py": str(number), "b.py": "1", "c.py": "1"})
    await world.run(world.plane.delete("default", None, request()))
    for _ in range(3):
        await world.look()
    assert not world.ledger.heads
    assert len(world.ledger.revisions["default"]) == 3
    assert len([key for key in world.store.values if key.startswith("stacks/")]) == 3


async def test_a_replica_that_gets_unhealthy_again_and_again_is_replaced_later_and_later(world: World) -> None:
    await world.apply(A)
    starts: list[int] = []
    for _ in range(30):
        for replica in world.cluster.observe().replicas:
            world.cluster.sicken(replica.id)
        await world.reconciler.pass_once()
        world.cluster.settle()
        world.clock.advance(1)
        starts.append(sum(what == "start" for what, _ in world.cluster.log))
    assert starts[-1] <= 8
    assert starts[-1] >= 4


WHO = st.lists(st.sampled_from(["apply", "cancel", "resume", "delete", "rollback", "restart", "wait"]), max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(WHO, st.randoms())
def test_every_apply_has_a_result_whoever_is_at_work_on_its_stack(what: list[str], dice: Any) -> None:
    async def play() -> None:
        world = World(Path("/nowhere"))
        operations: list[Operation] = []
        async with running(world):
            for number, one in enumerate(what):
                files = {"a.py": str(dice.randint(1, 9)), "b.py": "1", "c.py": "1"}
                match one:
                    case "apply":
                        operations.append(world.plane.apply(request(A, files=files)))
                    case "cancel" if operations:
                        await world.plane.cancel(dice.choice(operations).id)
                    case "resume" if "default" in world.ledger.heads:
                        with contextlib.suppress(NotFound):  # deleted meanwhile
                            await world.plane.resume("default")
                    case "delete":
                        operations.append(world.plane.delete("default", None, request()))
                    case "rollback":
                        operations.append(world.plane.rollback("default", None, request()))
                    case _:
                        await asyncio.sleep(0.01)
                for _ in range(dice.randint(0, 8) * (number % 3)):
                    await asyncio.sleep(0)
            for operation in operations:
                assert (await result(operation))["outcome"] in {
                    "applied",
                    "unchanged",
                    "rolled_back",
                    "conflict",
                    "failed",
                }
            for head in world.ledger.heads.values():
                assert head.target is None
            for revisions in world.ledger.revisions.values():
                assert all(revision.outcome != "applying" for revision in revisions.values())

    asyncio.run(asyncio.wait_for(play(), 120))


def test_code_that_fails_in_the_proxies_gives_the_target_up(tmp_path: Path) -> None:
    async def play() -> None:
        world = World(tmp_path)
        await world.apply(A)
        world.cluster.unstageable = CodeFailed("middleware m:M cannot be built")
        async with running(world):
            operation = world.plane.apply(request(A, files=NEW))
            done = await result(operation)
        assert (done["outcome"], done["problems"][0]["code"]) == ("rolled_back", "code_failed")

    asyncio.run(play())


def test_every_revision_knows_its_format() -> None:
    assert "format" in Revision.__struct_fields__
    assert "format" in StackHead.__struct_fields__


async def test_no_pass_of_one_stack_takes_back_what_another_has_just_switched(world: World) -> None:
    """Between the commit of a table and the record of it stacks move the table, and must not go by the record."""
    seen: list[set[str]] = []
    async with running(world):
        await result(world.plane.apply(request(A, stack="one")))
        before = world.ledger.generation.number  # 1, or 2 where the proxy was up before there was anything to serve
        real = world.store.put

        async def slow(key: str, value: bytes) -> None:
            await real(key, value)
            if key == "stacks/two/revisions/000000001":
                for _ in range(20):  # the target's outcome is being written
                    world.reconciler.look_again()
                    await asyncio.sleep(0.005)
                    seen.append({route.stack for route in world.ledger.generation.routes})

        world.store.put = slow  # type: ignore[method-assign]
        await result(world.plane.apply(request({**B, "route_prefix": "/two"}, stack="two")))
        numbers = world.ledger.generation.number
    assert {"one", "two"} in seen
    switched = seen.index({"one", "two"})
    assert all(stacks == {"one", "two"} for stacks in seen[switched:])
    assert numbers == before + 1


async def test_a_replica_that_is_killed_again_and_again_makes_nobody_hopeless(world: World) -> None:
    """Its next life is on its way: requests wait for it. Only one that does not even start turns them away."""
    await world.apply(A)
    for _ in range(3):
        (replica,) = [r for r in world.cluster.observe().replicas if r.phase == "Ready"]
        world.cluster.kill(replica.id)
        await world.reconciler.pass_once()
        assert [route.hopeless for route in world.ledger.generation.routes] == [False]
        world.clock.advance(3)
        for _ in range(4):
            await world.look()
    (version,) = {d.version for d in world.ledger.current("default").deployments}
    world.cluster.broken.add(version)
    (replica,) = [r for r in world.cluster.observe().replicas if r.phase == "Ready"]
    world.cluster.kill(replica.id)
    for _ in range(6):
        world.clock.advance(9)
        await world.look()
    await world.reconciler.pass_once()
    assert [route.hopeless for route in world.ledger.generation.routes] == [True]
