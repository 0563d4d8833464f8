"""Stacks that rest: what happens to one is no work for the others, and whatever concerns one is seen at once."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from world import World, request

from serveconf.reconcile import stack_pass
from serveconf.reconcile.decide import Decision, StackView
from serveconf.reconcile.stack_pass import IDLE_S

pytestmark = pytest.mark.anyio

A: dict[str, Any] = {"name": "a", "import_path": "a:app", "num_replicas": 2, "route_prefix": "/a"}
B: dict[str, Any] = {"name": "b", "import_path": "b:app", "num_replicas": 2, "route_prefix": "/b"}


@pytest.fixture
async def looked(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two stacks that rest; the names of those that passes look at from now on."""
    await world.apply(A, stack="one", http_options={"location": "EveryNode"})
    await world.apply(B, stack="two")
    for _ in range(3):
        await world.look()
    names: list[str] = []
    decide = stack_pass.decide

    def noting(view: StackView) -> Decision:
        names.append(view.name)
        return decide(view)

    monkeypatch.setattr(stack_pass, "decide", noting)
    return names


async def test_nobody_looks_where_nothing_has_happened(world: World, looked: list[str]) -> None:
    await world.look()
    assert looked == []


async def test_what_befalls_one_stack_is_no_work_for_the_other(world: World, looked: list[str]) -> None:
    (killed, other) = world.serving("/a")
    world.cluster.kill(killed)
    for _ in range(4):
        await world.look()
    assert set(looked) == {"one"}
    assert len(world.serving("/a")) == 2 and other in world.serving("/a") and killed not in world.serving("/a")


async def test_everything_is_looked_at_now_and_then_all_the_same(world: World, looked: list[str]) -> None:
    world.clock.advance(IDLE_S)
    await world.look()
    assert sorted(looked) == ["one", "two"]


async def test_a_number_that_is_set_wakes_the_stack_it_is_set_for(world: World, looked: list[str]) -> None:
    world.reconciler.scaling.hold("two", "b", 3)
    for _ in range(3):
        await world.look()
    assert set(looked) == {"two"}
    assert len(world.serving("/b")) == 3


async def test_a_node_that_will_go_is_seen_by_all(world: World, looked: list[str]) -> None:
    (node,) = world.cluster.nodes()
    world.cluster.set_nodes(replace(node, drains=True), replace(node, id="another", is_head=False))
    await world.look()
    assert sorted(looked) == ["one", "two"]


async def test_what_a_stack_that_goes_has_said_of_the_front_counts_no_more(world: World, looked: list[str]) -> None:
    await world.apply(A, stack="one", http_options={"location": "EveryNode", "root_path": "/shop"})
    assert world.live.front.root_path == "/shop"
    await world.run(world.plane.delete("one", None, request(A)))
    for _ in range(3):
        await world.look()
    assert world.live.front.root_path != "/shop"
    assert [route.stack for route in world.live.routes] == ["two"]
