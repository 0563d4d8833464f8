"""Applies against the fakes: what is promised of a change, of a failure and of a crash."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from world import World, request

from serveconf.errors import CodeFailed, Conflict, OperatorError
from serveconf.plan.state import ReplicaPhase
from serveconf.reconcile.operations import Operation
from serveconf.reconcile.ports import NodeState, TargetReport
from serveconf.routing import SessionAffinity, Tracing

pytestmark = pytest.mark.anyio

A: dict[str, Any] = {"name": "a", "import_path": "a:app", "num_replicas": 2}
B: dict[str, Any] = {"name": "b", "import_path": "b:app"}


async def test_first_apply_starts_replicas_and_publishes_the_table(world: World) -> None:
    result = await world.apply(A, B)
    assert (result["outcome"], result["revision"], result["changed"]) == ("applied", 1, True)
    assert len(world.serving("/a")) == 2
    assert len(world.serving("/b")) == 1


async def test_the_same_again_changes_nothing(world: World) -> None:
    await world.apply(A, B)
    before = world.replicas()
    result = await world.apply(A, B)
    assert (result["outcome"], result["revision"], result["changed"], result["actions"]) == ("unchanged", 1, False, [])
    assert world.replicas() == before


async def test_changed_code_rolls_only_who_imports_it(world: World) -> None:
    await world.apply(A, B)
    a, b = world.serving("/a"), world.serving("/b")
    result = await world.apply(A, B, files={"a.py": "2", "b.py": "1", "c.py": "1"})
    assert [(x["action"], x["deployment"]) for x in result["actions"]] == [("roll", "a")]
    assert world.serving("/b") == b
    assert not set(world.serving("/a")) & set(a)
    assert set(world.replicas()) == {*world.serving("/a"), *b}


async def test_moved_prefix_restarts_no_replica(world: World) -> None:
    await world.apply(A, B)
    before = world.replicas()
    await world.apply(A, {**B, "route_prefix": "/moved"})
    assert world.replicas() == before
    assert {route.prefix for route in world.live.routes} == {"/a", "/moved"}


async def test_where_sessions_are_named_is_a_matter_of_the_table(world: World) -> None:
    await world.apply(A, B)
    before = world.replicas()
    await world.apply({**A, "session_affinity": {}}, {**B, "session_affinity": {"header": None, "cookie": "replica"}})
    assert world.replicas() == before
    assert [route.session_affinity for route in world.live.routes] == [
        SessionAffinity(header="x-session-id"),
        SessionAffinity(header=None, cookie="replica"),
    ]
    await world.apply(A, B)
    assert [route.session_affinity for route in world.live.routes] == [None, None]


async def test_removed_deployment_leaves_the_table_before_its_replica_stops(world: World) -> None:
    await world.apply(A, B)
    (b,) = world.serving("/b")
    await world.apply(A)
    log = world.cluster.log
    stopped = log.index(("stop", b))
    assert any(kind == "commit" for kind, _ in log[:stopped])
    assert {route.prefix for route in world.live.routes} == {"/a"}
    assert b not in world.replicas()


async def test_failure_before_the_switch_leaves_what_ran(world: World) -> None:
    await world.apply(A, B)
    before, table = world.replicas(), world.live
    new = await _version_of(world, A, {"a.py": "2", "b.py": "1", "c.py": "1"})
    world.cluster.broken.add(new)
    result = await world.apply(A, B, files={"a.py": "2", "b.py": "1", "c.py": "1"})
    assert result["outcome"] == "rolled_back"
    assert result["problems"][0]["deployment"] == "a"
    assert "broken" in result["problems"][0]["message"]
    assert world.replicas() == before
    assert world.live == table
    assert world.ledger.heads["default"].current == 1


async def test_failed_first_apply_leaves_nothing(world: World) -> None:
    world.cluster.broken.add(await _version_of(world, B, {"a.py": "1", "b.py": "1", "c.py": "1"}))
    result = await world.apply(B)
    assert result["outcome"] == "rolled_back"
    assert world.replicas() == []
    assert world.ledger.heads == {}


async def test_code_that_cannot_be_imported_touches_nothing(world: World) -> None:
    world.preflight.reports["b:app"] = TargetReport(ok=False, error="ImportError: no b", traceback="Traceback …")
    result = await world.apply(A, B)
    assert result["outcome"] == "rolled_back"
    assert [(p["path"], p["message"]) for p in result["problems"]] == [
        ("deployments[1].import_path", "ImportError: no b")
    ]
    assert world.cluster.log == []


async def test_all_routes_of_a_stack_switch_in_one_generation(world: World) -> None:
    await world.apply(A, B)
    number = world.live.number
    await world.apply(A, B, files={"a.py": "2", "b.py": "2", "c.py": "1"})
    assert world.live.number == number + 1


async def test_killed_replica_is_replaced_and_the_others_stay(world: World) -> None:
    await world.apply(A, B)
    first, second = world.serving("/a")
    world.cluster.kill(first)
    for _ in range(5):
        await world.look()
    now = world.serving("/a")
    assert second in now
    assert first not in now
    assert len(now) == 2


async def test_crash_looping_replica_is_started_less_and_less_often(world: World) -> None:
    await world.apply(B)
    for _ in range(40):
        for replica in world.cluster.observe().replicas:
            if replica.phase in (ReplicaPhase.READY, ReplicaPhase.STARTING):
                world.cluster.kill(replica.id)
        await world.reconciler.pass_once()
        world.clock.advance(1.0)
    started = sum(kind == "start" for kind, _ in world.cluster.log)
    assert 4 <= started <= 10


async def test_controller_that_comes_back_keeps_every_replica(world: World) -> None:
    await world.apply(A, B)
    before, table = world.replicas(), world.live
    await world.restart()
    for _ in range(3):
        await world.look()
    assert world.replicas() == before
    assert world.live == table
    assert (await world.apply(A, B))["outcome"] == "unchanged"


async def test_controller_that_dies_during_an_apply_goes_on_with_it(world: World) -> None:
    await world.apply(A, B)
    operation = world.plane.apply(request(A, B, files={"a.py": "2", "b.py": "1", "c.py": "1"}))
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.ledger.heads["default"].target == 2
    assert operation.task is not None
    operation.task.cancel()
    await world.restart()
    for _ in range(6):
        await world.look()
    head = world.ledger.heads["default"]
    assert (head.current, head.target) == (2, None)
    assert len(world.replicas()) == 3


async def test_restarted_proxy_gets_the_live_generation(world: World) -> None:
    await world.apply(B)
    (proxy,) = world.cluster.observe().proxies
    world.cluster.kill_proxy(proxy.id)
    for _ in range(3):
        await world.look()
    (proxy,) = world.cluster.observe().proxies
    assert proxy.generation == world.ledger.generation.number


async def test_moved_port_has_a_new_listener_before_the_old_one_goes(world: World) -> None:
    await world.apply(B)
    (old,) = world.cluster.observe().proxies
    await world.apply(B, http_options={"port": 9000})
    log = world.cluster.log
    (new,) = world.cluster.observe().proxies
    assert new.address == "127.0.0.1:9000"
    committed = next(i for i, (kind, what) in enumerate(log) if kind == "commit" and what.startswith(new.id))
    assert committed < log.index(("stop_proxy", old.id))


async def test_every_node_has_a_proxy_and_a_node_that_joins_gets_one(world: World) -> None:
    await world.apply(B, http_options={"location": "EveryNode"})
    one = world.cluster.nodes()[0]
    world.cluster.set_nodes(one, NodeState(id="late", is_head=False))
    for _ in range(4):
        await world.look()
    assert {p.node_id for p in world.cluster.observe().proxies} == {one.id, "late"}
    assert len(world.cluster.live) == 2
    world.cluster.set_nodes(one)
    for _ in range(4):
        await world.look()
    assert {p.node_id for p in world.cluster.observe().proxies} == {one.id}


async def test_no_server_runs_replicas_without_a_proxy(world: World) -> None:
    result = await world.apply(B, http_options={"location": "NoServer"})
    assert result["outcome"] == "applied"
    assert len(world.replicas()) == 1
    assert world.cluster.observe().proxies == ()


async def test_user_config_is_handed_over_without_a_restart(world: World) -> None:
    await world.apply({**B, "user_config": {"x": 1}})
    before = world.replicas()
    result = await world.apply({**B, "user_config": {"x": 2}})
    assert [a["cost"] for a in result["actions"]] == ["reconfigure"]
    assert world.replicas() == before
    assert ("reconfigure", before[0]) in world.cluster.log


async def test_a_replica_that_can_not_be_told_its_user_config_is_told_again_later_and_later(world: World) -> None:
    """Not as fast as the loop turns: each failure wakes the loop itself."""
    await world.apply({**A, "user_config": {"x": 1}})
    asked: Counter[str] = Counter()

    async def reconfigure(replica_id: str, user_config: object, config_hash: str) -> None:
        asked[replica_id] += 1
        raise OperatorError("out of reach", code="no_answer")

    real, world.cluster.reconfigure = world.cluster.reconfigure, reconfigure  # type: ignore[method-assign]
    operation = world.plane.apply(request({**A, "user_config": {"x": 2}}))
    for _ in range(60):
        world.clock.advance(0.5)
        await world.look()
    assert operation.result is None
    assert len(asked) == 2
    assert all(3 <= times <= 7 for times in asked.values()), asked
    world.cluster.reconfigure = real  # type: ignore[method-assign]
    world.clock.advance(40)
    assert (await world.run(operation))["outcome"] == "applied"


async def test_refused_user_config_keeps_the_old_one(world: World) -> None:
    await world.apply({**A, "user_config": {"x": 1}})
    old = world.ledger.current("default")
    await world.apply({**A, "user_config": {"x": 2}})
    refused = world.ledger.current("default")
    assert old is not None
    assert refused is not None
    await world.apply({**A, "user_config": {"x": 1}})
    world.cluster.refuses.add(refused.deployments[0].config_hash)
    result = await world.apply({**A, "user_config": {"x": 2}})
    assert result["outcome"] == "rolled_back"
    assert "no such threshold" in result["problems"][0]["message"]
    hashes = {r.config_hash for r in world.cluster.observe().replicas}
    assert hashes == {old.deployments[0].config_hash}


async def test_middleware_that_does_not_build_fails_the_apply_and_changes_nothing(world: World) -> None:
    await world.apply(B)
    table = world.live
    world.cluster.unstageable = CodeFailed("middleware x:Y cannot be built", traceback="TypeError")
    result = await world.apply(B, http_options={"root_path": "/x"})
    assert result["outcome"] == "rolled_back"
    world.cluster.unstageable = None
    await world.look()
    assert world.live == table


async def test_waves_never_go_under_the_floor(world: World) -> None:
    wave = {**A, "num_replicas": 4, "rollout": {"max_surge": 1, "max_unavailable": 0}}
    await world.apply(wave)
    operation = world.plane.apply(request(wave, files={"a.py": "2", "b.py": "1", "c.py": "1"}))
    counts = []
    for _ in range(40):
        await asyncio.sleep(0)
        await world.look()
        counts.append(len(world.serving("/a")))
        assert len(world.replicas()) <= 5
    result = await world.run(operation)
    assert result["outcome"] == "applied"
    assert min(counts) == 4


async def test_two_stacks_that_claim_one_prefix_are_refused(world: World) -> None:
    await world.apply(B, stack="one")
    result = await world.apply({**A, "route_prefix": "/b"}, stack="two")
    assert result["outcome"] == "conflict"
    assert "'one'" in result["problems"][0]["message"]
    assert "'two'" in result["problems"][0]["message"]


async def test_two_stacks_with_contradicting_fronts_are_refused(world: World) -> None:
    await world.apply(B, stack="one", http_options={"port": 8000})
    result = await world.apply(A, stack="two", http_options={"port": 8100})
    assert result["outcome"] == "conflict"
    assert (await world.apply(A, stack="two"))["outcome"] == "applied"


async def test_deployment_that_fits_nowhere_is_refused_before_anything_is_touched(world: World) -> None:
    result = await world.apply({**A, "ray_actor_options": {"num_gpus": 8}})
    assert result["outcome"] == "failed"
    assert "GPU 8" in result["problems"][0]["message"]
    assert world.cluster.log == []


async def test_stale_base_revision_is_a_conflict(world: World) -> None:
    await world.apply(B)
    await world.apply(A, B)
    result = await world.apply(B, base_revision=1)
    assert (result["outcome"], result["problems"][0]["code"]) == ("conflict", "stale")
    with pytest.raises(Conflict):
        world.plane.check_revision("default", 1)


async def test_deadline_takes_back_what_was_started(world: World) -> None:
    await world.apply(B)
    operation = world.plane.apply(request(A, B, timeout_s=0.01))
    for _ in range(20):
        await asyncio.sleep(0)
    await world.reconciler.pass_once()
    while world.ledger.heads["default"].target is not None:  # until its deadline
        await asyncio.sleep(0.01)
    result = await world.run(operation)
    assert result["outcome"] == "timeout"
    assert {r.rpartition(".")[0].split(".")[1] for r in world.replicas()} == {"b"}


async def test_cancel_before_the_switch_undoes(world: World) -> None:
    await world.apply(B)
    before = world.replicas()
    operation = world.plane.apply(request(A, B))
    for _ in range(20):
        await asyncio.sleep(0)
    await world.reconciler.pass_once()
    assert (await world.plane.cancel(operation.id)).undone
    result = await world.run(operation)
    assert result["outcome"] == "rolled_back"
    assert world.replicas() == before


async def drain(world: World, operation: Operation) -> None:
    """Until what it brought is live and what it replaced drains."""
    while not any(r.phase is ReplicaPhase.DRAINING for r in world.cluster.observe().replicas):
        assert operation.result is None
        await asyncio.sleep(0)
        await world.reconciler.pass_once()
        for replica in world.cluster.observe().replicas:
            if replica.phase is ReplicaPhase.STARTING:
                world.cluster.get_ready(replica.id)
    assert operation.result is None


async def test_who_waits_for_an_apply_does_not_wait_for_what_it_replaced(world: World) -> None:
    await world.apply(A)
    first = world.plane.apply(request(A, files={"a.py": "2"}))
    await drain(world, first)
    second = world.plane.apply(request({**A, "route_prefix": "/other"}, files={"a.py": "2"}))
    for _ in range(40):
        await asyncio.sleep(0)
        await world.reconciler.pass_once()
    assert first.result is not None
    assert first.result["outcome"] == "applied"
    assert {route.prefix for route in world.live.routes} == {"/other"}
    assert [r.phase for r in world.cluster.observe().replicas].count(ReplicaPhase.DRAINING) == 2
    assert (await world.run(second))["outcome"] == "applied"


async def test_an_apply_whose_last_replicas_drain_is_completed_by_a_cancel(world: World) -> None:
    await world.apply(A)
    operation = world.plane.apply(request(A, files={"a.py": "2"}))
    await drain(world, operation)
    told = world.events.last
    assert not (await world.plane.cancel(operation.id)).undone
    for _ in range(40):
        await asyncio.sleep(0)
    assert operation.result is not None
    assert operation.result["outcome"] == "applied"
    assert world.events.last == told  # it was not stopped


async def test_rollback_goes_back_and_pins_until_an_apply_by_hand(world: World) -> None:
    await world.apply(B)
    await world.apply({**B, "route_prefix": "/other"})
    result = await world.run(world.plane.rollback("default", None, request()))
    assert result["outcome"] == "applied"
    assert {route.prefix for route in world.live.routes} == {"/b"}
    automatic = await world.apply(A, B, automatic=True)
    assert (automatic["outcome"], automatic["problems"][0]["code"]) == ("conflict", "pinned")
    assert (await world.apply(A, B))["outcome"] == "applied"
    assert not world.ledger.heads["default"].pinned


async def test_deleted_stack_leaves_nothing_running(world: World) -> None:
    await world.apply(A, B)
    result = await world.run(world.plane.delete("default", None, request()))
    assert result["outcome"] == "applied"
    assert world.replicas() == []
    assert world.cluster.observe().proxies == ()
    assert world.ledger.heads == {}
    assert (await world.apply(B))["revision"] == 3


async def test_deleted_deployment_leaves_the_others(world: World) -> None:
    await world.apply(A, B)
    b = world.serving("/b")
    await world.run(world.plane.delete("default", ["a"], request()))
    assert world.serving("/b") == b
    assert world.replicas() == b
    unknown = await world.run(world.plane.delete("default", ["zzz"], request()))
    assert (unknown["outcome"], unknown["changed"]) == ("failed", False)


async def _version_of(world: World, deployment: dict[str, Any], files: dict[str, str]) -> str:
    """The version that a deployment will have with these files."""
    from serveconf.reconcile.prepare import prepare

    asked = request(deployment, files=files)
    desired = await prepare(asked, revision=1, current=None, preflight=world.preflight)
    return desired.deployments[0].version


async def test_second_stack_that_says_the_same_of_the_front_does_not_touch_it(world: World) -> None:
    await world.apply(B, stack="one", http_options={"port": 8100})
    proxies = world.cluster.observe().proxies
    result = await world.apply(A, stack="two", http_options={"port": 8100})
    assert [(a["action"], a["deployment"]) for a in result["actions"]] == [("create", "a")]
    assert [p.id for p in world.cluster.observe().proxies] == [p.id for p in proxies]


async def test_tracing_without_its_extra_is_refused_before_anything_is_touched(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.apply(A)
    tracing = {"endpoint": "http://127.0.0.1:4318"}
    with monkeypatch.context() as patched:
        patched.setattr("serveconf.reconcile.prepare.is_installed", lambda: False)
        refused = await world.apply(A, http_options={"tracing": tracing})
    (problem,) = refused["problems"]
    assert (refused["outcome"], problem["path"]) == ("rolled_back", "http_options.tracing")
    assert problem["hint"] == "pip install 'serveconf[otel]'"
    assert world.live.front.tracing is None
    done = await world.apply(A, http_options={"tracing": tracing})
    assert [(action["action"], action["cost"]) for action in done["actions"]] == [("route", "route")]
    assert world.live.front.tracing == Tracing(endpoint="http://127.0.0.1:4318", sample=1.0)


async def test_what_a_removed_middleware_imported_is_no_reason_for_anything_later(world: World) -> None:
    files = {"a.py": "1", "b.py": "1", "mw.py": "1"}
    await world.apply({**A, "middlewares": [{"import_path": "mw:M"}]}, files=files)
    await world.apply(A, files=files)
    deployment = world.ledger.current("default").deployments[0]
    assert deployment.middleware_modules == {}
    done = await world.apply(A, files={**files, "mw.py": "2"})
    assert done["outcome"] == "unchanged"


async def test_of_two_middlewares_the_one_that_stays_is_looked_at_again(world: World) -> None:
    files = {"a.py": "1", "mw.py": "1", "other.py": "1"}
    both = [{"import_path": "mw:M"}, {"import_path": "other:N"}]
    await world.apply({**A, "middlewares": both}, files=files)
    await world.apply({**A, "middlewares": both[:1]}, files=files)
    assert set(world.ledger.current("default").deployments[0].middleware_modules) == {"mw.py"}
