"""An upgrade: which processes make way for which, and what stays where a new one does not get ready."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from world import World

from serveconf import __version__
from serveconf.errors import Conflict
from serveconf.plan.state import Observed, Phase, StandbyState
from serveconf.reconcile.ports import ProxyOrder

pytestmark = pytest.mark.anyio

WEB: dict[str, Any] = {"name": "web", "import_path": "a:app", "num_replicas": 2}
FRONT = {"workers": 2}


@pytest.fixture
async def world(tmp_path: Path) -> World:
    """Two proxies and two replicas of an older version, and a controller of this one."""
    world = World(tmp_path)
    world.cluster.serveconf = "0.0.1"
    await world.apply(WEB, http_options=FRONT)
    world.cluster.serveconf = __version__
    world.cluster.log.clear()
    return world


def versions(world: World) -> list[str]:
    """Of all proxies and replicas."""
    observed = world.cluster.observe()
    return [one.serveconf for one in (*observed.proxies, *observed.replicas)]


async def upgrade(world: World) -> dict[str, Any]:
    """Its result, and what is left when all has settled."""
    return await world.run(world.plane.upgrade(__version__), looks=200)


async def test_everything_old_is_replaced_and_the_next_upgrade_changes_nothing(world: World) -> None:
    result = await upgrade(world)
    assert result["outcome"] == "applied", result
    assert [action["reason"] for action in result["actions"]] == [
        "upgrade",
        "upgrade",
        f"upgrade: serveconf {__version__}",
    ]
    assert versions(world) == [__version__] * 4
    assert (await upgrade(world))["outcome"] == "unchanged"


async def test_a_new_proxy_serves_before_the_old_one_goes_one_at_a_time(world: World) -> None:
    await upgrade(world)
    steps = [what for what, _ in world.cluster.log if what in ("start_proxy", "stop_proxy")]
    assert steps == ["start_proxy", "stop_proxy", "start_proxy", "stop_proxy"]


async def test_a_new_proxy_starts_when_nothing_else_starts_on_its_node(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (node,) = world.cluster.nodes()
    look, start, beside = world.cluster.observe, world.cluster.start_proxy, []
    warm = StandbyState(id="warm", kind="", node_id=node.id, phase=Phase.STARTING)
    looks = [warm] * 30

    def observe() -> Observed:
        return replace(look(), standbys=(looks.pop(),)) if looks else look()

    async def start_proxy(order: ProxyOrder) -> None:
        beside.append(len(looks))
        await start(order)

    monkeypatch.setattr(world.cluster, "observe", observe)
    monkeypatch.setattr(world.cluster, "start_proxy", start_proxy)
    assert (await upgrade(world))["outcome"] == "applied"
    assert beside == [0, 0]


async def test_the_new_proxies_are_those_that_are_wanted_also_for_the_next_controller(world: World) -> None:
    await upgrade(world)
    before = sorted(p.id for p in world.cluster.observe().proxies)
    await world.restart()
    for _ in range(4):
        await world.look()
    assert sorted(p.id for p in world.cluster.observe().proxies) == before


async def test_a_proxy_that_does_not_start_leaves_the_old_ones(world: World) -> None:
    before = sorted(p.id for p in world.cluster.observe().proxies)
    world.cluster.broken_proxies = True
    result = await upgrade(world)
    assert result["outcome"] == "rolled_back" and "ImportError: broken" in result["problems"][0]["message"]
    assert sorted(p.id for p in world.cluster.observe().proxies) == before
    assert versions(world) == ["0.0.1"] * 4


async def test_a_node_with_the_old_version_installed_stops_the_upgrade(world: World) -> None:
    world.cluster.serveconf = "0.0.1"
    result = await upgrade(world)
    assert (result["outcome"], result["problems"][0]["code"]) == ("rolled_back", "not_installed")
    assert versions(world) == ["0.0.1"] * 4


async def test_a_replica_that_does_not_start_leaves_the_old_ones(world: World) -> None:
    before = world.replicas()
    current = world.ledger.current("default")
    assert current is not None
    world.cluster.broken.add(f"{current.deployments[0].version}+{__version__}")
    result = await upgrade(world)
    assert (result["outcome"], result["problems"][0]["code"]) == ("rolled_back", "replica_failed")
    assert world.replicas() == before and world.serving("/web") == before


async def test_an_upgrade_is_no_change_of_the_stack_and_nothing_to_go_back_from(world: World) -> None:
    await world.apply({**WEB, "user_config": {"new": True}}, http_options=FRONT)
    await upgrade(world)
    assert (await world.apply({**WEB, "user_config": {"new": True}}, http_options=FRONT))["outcome"] == "unchanged"
    replicas = world.replicas()
    result = await world.run(world.plane.rollback("default", None, world_request()))
    assert [action["action"] for action in result["actions"]] == ["reconfigure"]
    assert world.replicas() == replicas  # the same processes: they run the new version


async def test_a_pinned_stack_stays_pinned(world: World) -> None:
    await world.stacks.pin("default", pinned=True)
    await upgrade(world)
    head = world.stacks.head("default")
    assert head is not None and head.pinned


async def test_a_controller_of_another_version_refuses(world: World) -> None:
    with pytest.raises(Conflict, match="the controller runs"):
        world.plane.upgrade("99.0.0")


def world_request() -> Any:
    """Nothing but the stack's name."""
    from serveconf.reconcile.requests import ApplyRequest

    return ApplyRequest(spec={"name": "default"})
