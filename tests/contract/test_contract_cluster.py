"""What every ``Cluster`` does: the fakes that all other tests stand on do as Ray does."""

from __future__ import annotations

import asyncio
from os.path import basename

import pytest
from labs import ActorLab, FakeEngineLab, Lab
from msgspec.structs import replace

from serveconf.cluster.settings import REPLICA_PREFIX
from serveconf.errors import CodeFailed, OperatorError
from serveconf.reconcile.asked import kind_of
from serveconf.reconcile.ports import ProcessOrder, StandbyOrder
from serveconf.routing import Generation, Middleware

pytestmark = pytest.mark.anyio


async def ready(lab: Lab, number: int = 1, **said: object) -> str:
    """A replica that is ready."""
    order = lab.order(number, **said)
    await lab.cluster.start_replica(order)
    await lab.until(lambda: lab.phase(order.id) == "Ready")
    return order.id


async def listening(lab: Lab, port: int) -> str:
    """A proxy that is ready."""
    order = lab.proxy_order(port)
    await lab.cluster.start_proxy(order)
    await lab.until(lambda: lab.phase(order.id) == "Ready")
    return order.id


async def test_a_replica_starts_serves_and_goes(lab: Lab, free_port: int) -> None:
    heard: list[str | None] = []
    order = lab.order(1)
    lab.cluster.on_change = lambda: heard.append(lab.phase(order.id))
    await lab.cluster.start_replica(order)
    assert lab.phase(order.id) == "Starting"
    await lab.until(lambda: lab.phase(order.id) == "Ready")
    state = lab.replica(order.id)
    assert state is not None
    assert (state.stack, state.deployment, state.version) == ("default", "a", order.deployment.version)
    assert state.uds
    assert state.node_id == lab.cluster.nodes()[0].id
    await lab.cluster.stop_replica(order.id, drain_s=5)
    assert lab.phase(order.id) in ("Draining", None)
    await lab.until(lambda: lab.phase(order.id) is None)
    assert heard.index("Starting") < heard.index("Ready")
    assert heard[-1] is None
    lab.cluster.on_change = lambda: None


async def test_a_replica_that_cannot_start_says_why_and_is_cleared_away(lab: Lab) -> None:
    order = lab.order(1, lab.broken)
    await lab.cluster.start_replica(order)
    await lab.until(lambda: lab.phase(order.id) == "Failed")
    state = lab.replica(order.id)
    assert state is not None
    assert state.message
    await lab.cluster.stop_replica(order.id, drain_s=0)
    await lab.until(lambda: lab.phase(order.id) is None)


async def test_a_replica_that_is_stopped_while_it_starts_goes(lab: Lab) -> None:
    order = lab.order(1)
    await lab.cluster.start_replica(order)
    await lab.cluster.stop_replica(order.id, drain_s=5)
    await lab.until(lambda: lab.phase(order.id) is None)


async def test_a_killed_replica_is_seen_as_failed(lab: Lab) -> None:
    replica = await ready(lab)
    await lab.kill_replica(replica)
    await lab.until(lambda: lab.phase(replica) == "Failed")


async def test_a_config_is_taken_and_observed(lab: Lab) -> None:
    replica = await ready(lab)
    await lab.cluster.reconfigure(replica, None, "new")
    state = lab.replica(replica)
    assert state is not None
    assert state.config_hash == "new"


async def test_a_renamed_replica_is_the_same_under_its_name(lab: Lab) -> None:
    replica = await ready(lab)
    before = lab.replica(replica)
    assert before is not None
    await lab.cluster.rename_replica(replica, "new")
    assert lab.replica(replica) == replace(before, deployment="new")
    await lab.cluster.rename_replica("default.nobody", "new")
    await lab.cluster.stop_replica(replica, drain_s=1)
    await lab.until(lambda: lab.phase(replica) is None)


async def until_told(actors: ActorLab, replica: str, name: str) -> None:
    """Until the replica itself says that it is of that deployment: it is told beside."""
    remote = await actors.engine.find(REPLICA_PREFIX + replica)
    assert remote is not None
    async with asyncio.timeout(actors.limit_s):
        while (await remote.call("describe")).deployment != name:
            await asyncio.sleep(0.01)


async def test_a_renamed_replica_is_found_again_under_its_name(actors: ActorLab) -> None:
    replica = await ready(actors)
    await actors.cluster.rename_replica(replica, "new")
    await actors.until(lambda: (found := actors.replica(replica)) is not None and found.deployment == "new")
    await until_told(actors, replica, "new")
    await actors.another_controller()
    found = actors.replica(replica)
    assert found is not None
    assert (found.deployment, found.phase) == ("new", "Ready")


async def test_a_replica_gives_its_address_for_other_nodes_and_its_log(lab: Lab) -> None:
    replica = await ready(lab)
    address = await lab.cluster.tcp_address(replica)
    assert address
    state = lab.replica(replica)
    assert state is not None
    assert state.tcp == address
    part = await lab.cluster.read_log(replica, None, 10)
    assert part.position
    assert (await lab.cluster.read_log(replica, part.position, 10)).lines == ()
    await lab.cluster.refresh_load()


async def test_nothing_answers_for_what_is_not_there(lab: Lab) -> None:
    for asked in (
        lab.cluster.stage("nobody", Generation(number=1)),
        lab.cluster.commit("nobody", 1),
        lab.cluster.abort("nobody", 1),
    ):
        with pytest.raises(OperatorError) as raised:
            await asked
        assert raised.value.code == "no_answer"
    await lab.cluster.stop_replica("nobody", drain_s=0)
    await lab.cluster.stop_proxy("nobody", drain_s=0)
    lab.cluster.tend_replica("nobody", {})


async def test_a_proxy_takes_a_generation_in_two_steps_and_never_goes_back(lab: Lab, free_port: int) -> None:
    proxy = await listening(lab, free_port)
    for number in (1, 2, 3):
        await lab.cluster.stage(proxy, Generation(number=number))
    await lab.cluster.abort(proxy, 1)
    await lab.cluster.commit(proxy, 2)
    state = lab.proxy(proxy)
    assert state is not None
    assert state.generation == 2
    await lab.cluster.commit(proxy, 3)
    await lab.cluster.commit(proxy, 2)
    state = lab.proxy(proxy)
    assert state is not None
    assert state.generation == 3
    await lab.cluster.count(proxy, "op", begin=True)
    assert (await lab.cluster.count(proxy, "op", begin=False)).failed == 0
    assert (await lab.cluster.totals(proxy)).failed == 0


async def test_a_replica_that_calls_others_takes_a_generation_in_two_steps_and_is_forgotten_with_its_process(
    lab: Lab,
) -> None:
    replica, other = await ready(lab), await ready(lab, 2)
    assert await lab.cluster.callers() == ()
    await lab.begin_to_call(replica)
    assert await lab.cluster.callers() == (replica,)
    for number in (1, 2, 3):
        await lab.cluster.stage(replica, Generation(number=number))
    await lab.cluster.abort(replica, 1)
    for number in (2, 3, 2, 4):  # what it has not is nothing to it: it finds the newest one in the store
        await lab.cluster.commit(replica, number)
    assert lab.calls_by(replica) in (3, None)
    for one in (replica, other):
        await lab.cluster.stop_replica(one, drain_s=1)
    await lab.until(lambda: not lab.cluster.observe().replicas)
    assert await lab.cluster.callers() == ()


async def test_of_a_process_with_several_replicas_one_is_told(lab: Lab) -> None:
    order = process(lab)
    await lab.cluster.start_process(order)
    ids = [one.id for one in order.replicas]
    await lab.until(lambda: [lab.phase(one) for one in ids] == ["Ready", "Ready"])
    await lab.begin_to_call(ids[0], "both")
    (caller,) = await lab.cluster.callers()
    await lab.cluster.stage(caller, Generation(number=1))
    await lab.cluster.commit(caller, 1)
    await lab.cluster.stop_replica(caller, drain_s=1)
    await lab.until(lambda: lab.phase(caller) is None)
    assert await lab.cluster.callers() == tuple(one for one in ids if one != caller)
    await lab.cluster.stop_replica(next(one for one in ids if one != caller), drain_s=1)
    await lab.until(lambda: not lab.cluster.observe().replicas)


async def test_a_killed_proxy_comes_back_by_itself(lab: Lab, free_port: int) -> None:
    proxy = await listening(lab, free_port)
    seen: list[str | None] = []
    lab.cluster.on_change = lambda: seen.append(lab.phase(proxy))
    await lab.kill_proxy(proxy)
    await lab.until(lambda: "Starting" in seen and lab.phase(proxy) == "Ready")
    lab.cluster.on_change = lambda: None
    await lab.cluster.stop_proxy(proxy, drain_s=1)
    await lab.until(lambda: lab.phase(proxy) is None)


# -- a controller that comes back


async def test_everything_is_found_again(actors: ActorLab, free_port: int) -> None:
    replica, proxy = await ready(actors), await listening(actors, free_port)
    before = actors.cluster.observe()
    await actors.another_controller()
    assert actors.cluster.observe() == before
    await actors.kill_replica(replica)
    await actors.until(lambda: actors.phase(replica) == "Failed")
    assert actors.phase(proxy) == "Ready"


async def test_what_drained_when_the_controller_died_goes(actors: ActorLab, free_port: int) -> None:
    replica, proxy = await ready(actors), await listening(actors, free_port)
    await actors.cluster.stop_replica(replica, drain_s=30)
    await actors.cluster.stop_proxy(proxy, drain_s=30)
    await asyncio.sleep(0)
    await actors.another_controller()
    for actor in (replica, proxy):
        await actors.cluster.stop_replica(actor, drain_s=1)
        await actors.cluster.stop_proxy(actor, drain_s=1)
        await actors.until(lambda actor=actor: actors.phase(actor) is None)


async def test_what_died_while_there_was_no_controller_is_seen_as_failed(actors: ActorLab) -> None:
    replica = await ready(actors)
    actors.actors.close()
    await actors.kill_replica(replica)
    await asyncio.sleep(0.3)
    await actors.another_controller(replica)
    await actors.until(lambda: actors.phase(replica) in ("Failed", None))


async def test_code_that_a_proxy_cannot_build_is_the_authors_fault(actors: ActorLab, free_port: int) -> None:
    from serveconf.routing import Front

    proxy = await listening(actors, free_port)
    front = Front(middlewares=(Middleware("broken:X"),))
    with pytest.raises(CodeFailed):
        await actors.cluster.stage(proxy, Generation(number=1, front=front))


# -- standbys


async def test_a_replica_starts_in_a_standby_of_its_kind(lab: Lab, free_port: int) -> None:
    node = lab.cluster.nodes()[0].id
    await lab.cluster.start_standby(standby("one", node, 0.1))
    await lab.cluster.start_standby(standby("other", node, 0.3))
    await lab.until(lambda: [s.phase.value for s in lab.cluster.observe().standbys] == ["Ready", "Ready"])
    replica = await ready(lab)
    state = lab.replica(replica)
    assert state is not None
    assert state.was_standby
    assert [s.id for s in lab.cluster.observe().standbys] == ["other"]
    other = await ready(lab, 2)
    state = lab.replica(other)
    assert state is not None
    assert not state.was_standby
    await lab.cluster.stop_replica(replica, drain_s=1)
    await lab.until(lambda: lab.phase(replica) is None)
    await lab.cluster.stop_standby("other")
    await lab.until(lambda: not lab.cluster.observe().standbys)


async def test_standbys_and_what_they_became_are_found_again(actors: ActorLab) -> None:
    node = actors.cluster.nodes()[0].id
    for name in ("one", "two"):
        await actors.cluster.start_standby(standby(name, node, 0.1))
    await actors.until(lambda: [s.phase.value for s in actors.cluster.observe().standbys] == ["Ready", "Ready"])
    replica = await ready(actors)
    before = actors.cluster.observe()
    await actors.another_controller(replica)
    assert actors.cluster.observe() == before
    await actors.cluster.stop_replica(replica, drain_s=1)
    await actors.until(lambda: actors.phase(replica) is None)
    (left,) = actors.cluster.observe().standbys
    await actors.cluster.stop_standby(left.id)
    await actors.until(lambda: not actors.cluster.observe().standbys)


@pytest.mark.parametrize("moment", ["before", "become", "wait_ready"])
async def test_a_standby_that_ends_at_any_moment_is_no_fault_of_the_replica(moment: str) -> None:
    lab = FakeEngineLab()
    await lab.cluster.refresh()
    await lab.cluster.start_standby(standby("one", lab.cluster.nodes()[0].id, 0.1))
    await lab.until(lambda: [s.phase.value for s in lab.cluster.observe().standbys] == ["Ready"])
    (actor,) = lab.fake.actors.values()
    real = actor._answer

    async def answer(method: str, *args: object) -> object:
        if method == moment:
            actor.end("killed")
            await asyncio.sleep(5)
        return await real(method, *args)

    actor._answer = answer  # type: ignore[method-assign]
    if moment == "before":
        actor.end("killed")
    order = lab.order(1)
    await lab.cluster.start_replica(order)
    await lab.until(lambda: lab.phase(order.id) in ("Ready", "Failed"))
    state = lab.replica(order.id)
    assert state is not None
    assert (state.phase.value, state.cut_short) == (("Failed", True) if moment == "wait_ready" else ("Ready", False))
    await lab.close()


def standby(name: str, node: str, num_cpus: float) -> StandbyOrder:
    options = {"num_cpus": num_cpus}
    return StandbyOrder(
        id=name, node_id=node, kind=kind_of(options) or "", options=options, modules=("no_such_module", "colorsys")
    )


async def test_replicas_of_one_process_are_seen_each_by_itself_and_end_together(lab: Lab) -> None:
    order = process(lab)
    await lab.cluster.start_process(order)
    ids = [one.id for one in order.replicas]
    await lab.until(lambda: [lab.phase(one) for one in ids] == ["Ready", "Ready"])
    states = [lab.replica(one) for one in ids]
    assert [(s.deployment, s.process) for s in states if s is not None] == [("a", "both"), ("b", "both")]
    assert len({s.pid for s in states if s is not None}) == 1
    assert len({s.uds for s in states if s is not None}) == 2
    await lab.cluster.reconfigure(ids[1], None, "new")
    await lab.until(lambda: [getattr(lab.replica(one), "config_hash", "") == "new" for one in ids] == [False, True])
    await lab.cluster.stop_replica(ids[0], drain_s=1)
    await lab.until(lambda: lab.phase(ids[0]) is None)
    assert lab.phase(ids[1]) == "Ready"
    await lab.cluster.stop_replica(ids[1], drain_s=1)
    await lab.until(lambda: lab.phase(ids[1]) is None)


async def test_a_shared_process_is_found_again(actors: ActorLab) -> None:
    order = process(actors)
    await actors.cluster.start_process(order)
    ids = [one.id for one in order.replicas]
    await actors.until(lambda: [actors.phase(one) for one in ids] == ["Ready", "Ready"])
    before = actors.cluster.observe()
    await actors.another_controller(*ids)
    assert actors.cluster.observe() == before
    for one in ids:
        await actors.cluster.stop_replica(one, drain_s=1)
    await actors.until(lambda: not actors.cluster.observe().replicas)


def process(lab: Lab) -> ProcessOrder:
    """Two deployments in one process."""
    a, b = lab.order(1), lab.order(2)
    b = replace(b, id="default.b.2", deployment=replace(b.deployment, name="b"))
    return ProcessOrder(id="both", replicas=(a, b))


async def test_a_placement_group_ends_with_its_replica_however_that_ends(actors: ActorLab) -> None:
    said = {"placement_group_bundles": [{"CPU": 0.5}, {"CPU": 1}], "placement_group_strategy": "STRICT_PACK"}
    one, two = await ready(actors, 1, **said), await ready(actors, 2, **said)
    assert actors.groups() == [REPLICA_PREFIX + one, REPLICA_PREFIX + two]
    state = actors.replica(one)
    assert state is not None and state.bundle_nodes == (state.node_id, state.node_id)
    await actors.cluster.stop_replica(one, drain_s=1)
    await actors.until(lambda: actors.groups() == [REPLICA_PREFIX + two])
    await actors.kill_replica(two)
    await actors.until(lambda: actors.phase(two) == "Failed")
    await actors.another_controller()  # it has died before it could clear away what had failed
    await actors.until(lambda: not actors.groups())


async def test_a_group_that_has_no_room_waits_says_what_is_missing_and_goes_with_its_order(actors: ActorLab) -> None:
    order = actors.order(1, placement_group_bundles=[{"CPU": 1}, {"CPU": 100}])
    await actors.cluster.start_replica(order)
    following = asyncio.ensure_future(actors.actors.keep_nodes_fresh())
    await actors.until(lambda: "no room just now" in getattr(actors.replica(order.id), "message", ""))
    assert actors.phase(order.id) == "Starting"
    assert "a placement group (PACK) of CPU 1 + CPU 100 (left: node" in getattr(actors.replica(order.id), "message", "")
    following.cancel()
    await actors.cluster.stop_replica(order.id, drain_s=1)
    await actors.until(lambda: not actors.groups())


async def test_a_function_is_called_on_the_node_that_is_named(actors: ActorLab) -> None:
    (node,) = actors.cluster.nodes()
    answer = await actors.engine.run(basename, "/shop/app.py", runtime_env={}, timeout_s=60, node_id=node.id)
    assert answer == "app.py"
