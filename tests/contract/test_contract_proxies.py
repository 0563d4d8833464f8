"""One proxy's life, with everything that can go wrong in it: on an engine that does as it is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from labs import FakeEngineLab, proxy
from msgspec.structs import replace

from serveconf.cluster import node_watch
from serveconf.cluster.settings import PROXY_PREFIX
from serveconf.errors import OperatorError
from serveconf.reconcile.ports import ProxyOrder

pytestmark = pytest.mark.anyio


@pytest.fixture
def lab(quick_lab: FakeEngineLab) -> FakeEngineLab:
    """Everything that takes seconds takes hundredths."""
    return quick_lab


async def test_a_proxy_that_hangs_is_told_and_then_restarted(lab: FakeEngineLab) -> None:
    name, actor = await proxy(lab)
    actor.hung.clear()
    await lab.until(lambda: lab.phase(name) == "Unhealthy")
    await lab.until(lambda: lab.phase(name) == "Ready")
    state = lab.proxy(name)
    assert state is not None
    assert state.pid == 2  # another process


async def test_a_proxy_whose_death_nobody_heard_of_is_seen_to_be_another_process(lab: FakeEngineLab) -> None:
    name, actor = await proxy(lab)
    actor.hosted.state = replace(actor.hosted.state, pid=2)
    await lab.until(lambda: getattr(lab.proxy(name), "pid", None) == 2)
    assert lab.phase(name) == "Ready"


async def test_a_proxy_that_answers_again_in_time_is_left_alone(lab: FakeEngineLab) -> None:
    name, actor = await proxy(lab)
    actor.hung.clear()
    await lab.until(lambda: lab.phase(name) == "Unhealthy")
    actor.hung.set()
    await lab.until(lambda: lab.phase(name) == "Ready")
    state = lab.proxy(name)
    assert state is not None
    assert state.pid == 1


async def test_after_a_silence_one_of_two_proxies_stands_by_again(lab: FakeEngineLab) -> None:
    name, actor = await proxy(lab)
    spare = replace(lab.proxy_order(), id="spare", stands_by=True)
    await lab.cluster.start_proxy(spare)
    await lab.until(lambda: lab.phase("spare") == "Ready")

    def serving() -> list[str]:
        return [p.id for p in lab.cluster.observe().proxies if not p.stands_by]

    actor.hung.clear()
    await lab.until(lambda: lab.phase(name) == "Unhealthy")
    await lab.cluster.serve_beside("spare")
    actor.hung.set()
    await lab.until(lambda: lab.phase(name) == "Ready")
    assert serving() == [name, "spare"]
    assert not await lab.cluster.stand_by_again(name)
    assert await lab.cluster.stand_by_again("spare")
    assert serving() == [name]
    actor.hung.clear()
    with pytest.raises(OperatorError):
        await lab.cluster.stand_by_again(name)


def nodes_that_are_cut_off(monkeypatch: Any) -> set[str]:
    """Their ids, to be filled: nobody reaches them, and the engine has them for alive."""
    cut: set[str] = set()

    async def look(self: Any, nodes: Any) -> frozenset[str]:
        await asyncio.sleep(0)
        return frozenset(cut & {node.id for node in nodes})

    monkeypatch.setattr(node_watch, "NODES_PERIOD_S", 0.01)
    monkeypatch.setattr(node_watch.Reach, "look", look)
    return cut


async def proxy_on_another_node(lab: FakeEngineLab) -> tuple[ProxyOrder, asyncio.Task[None]]:
    """Its order, and the task that looks at the nodes."""
    (head,) = lab.fake.live_nodes
    lab.fake.live_nodes = (replace(head, id="head"), replace(head, is_head=False))
    await lab.cluster.refresh()
    order = replace(lab.proxy_order(), node_id=head.id)
    await lab.cluster.start_proxy(order)
    await lab.until(lambda: lab.phase(order.id) == "Ready")
    return order, asyncio.create_task(lab.actors.keep_nodes_fresh())


async def test_a_proxy_whose_node_is_cut_off_is_neither_shown_nor_ended_and_is_there_again_with_it(
    lab: FakeEngineLab, monkeypatch: Any
) -> None:
    cut = nodes_that_are_cut_off(monkeypatch)
    order, following = await proxy_on_another_node(lab)
    for _ in range(2):
        cut.add(order.node_id)
        await lab.until(lambda: lab.proxy(order.id) is None and len(lab.cluster.nodes()) == 1)
        cut.clear()
        await lab.until(lambda: lab.phase(order.id) == "Ready")
    actor = lab.fake.actors[PROXY_PREFIX + order.id]
    assert not actor.why_dead
    assert getattr(lab.proxy(order.id), "pid", None) == 1  # the very same

    cut.add(order.node_id)
    await lab.until(lambda: lab.proxy(order.id) is None)
    await lab.actors.end_what_is_adrift()  # the cluster ends while its node is out of reach
    assert actor.why_dead
    following.cancel()


async def test_a_proxy_whose_node_the_engine_gives_up_is_shown_to_be_cleared_away(
    lab: FakeEngineLab, monkeypatch: Any
) -> None:
    cut = nodes_that_are_cut_off(monkeypatch)
    order, following = await proxy_on_another_node(lab)
    cut.add(order.node_id)
    await lab.until(lambda: lab.proxy(order.id) is None)
    lab.fake.live_nodes = lab.fake.live_nodes[:1]
    await lab.until(lambda: lab.phase(order.id) == "Unhealthy")
    await lab.cluster.stop_proxy(order.id, drain_s=3600)
    await lab.until(lambda: lab.proxy(order.id) is None)
    assert PROXY_PREFIX + order.id not in lab.fake.actors
    following.cancel()
