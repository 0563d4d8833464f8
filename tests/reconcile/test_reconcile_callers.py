"""Replicas that call others take each generation beside the proxies, and none of them can hold a change up."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world import World

from serveconf.errors import CodeFailed, EngineSilent
from serveconf.reconcile import callers as callers_module
from serveconf.routing import Generation
from serveconf.testing import FakeCluster

pytestmark = pytest.mark.anyio

A: dict[str, Any] = {"name": "a", "import_path": "a:app", "num_replicas": 2}


class Watched(FakeCluster):
    """Looks, whenever a proxy commits, whether those that call others have the same table by then."""

    behind: list[str]

    async def commit(self, server_id: str, number: int) -> None:
        """See the port."""
        if server_id not in self.calling:
            well = [c for c in await self.callers() if c not in self.hung]
            self.behind += [c for c in well if self.calling[c] < number and (c, number) not in self._staged]
        await super().commit(server_id, number)


class Calling(World):
    """Each replica calls others from the moment in which it is ready."""

    def _build(self) -> None:
        if not isinstance(self.cluster, Watched):
            self.cluster = Watched()
            self.cluster.behind = []
        super()._build()

    async def look(self) -> None:
        """See World."""
        await super().look()
        self.cluster.calling |= {r: self.cluster.calling.get(r, 0) for r in self.replicas()}


@pytest.fixture
def world(tmp_path: Path) -> Calling:
    return Calling(tmp_path)


async def test_who_calls_others_has_each_table_before_a_proxy_serves_it_and_goes_by_it_then(world: Calling) -> None:
    await world.apply(A)
    await world.apply({**A, "init_args": [1]})
    await world.apply({**A, "init_args": [1], "num_replicas": 3})
    assert world.cluster.behind == []
    assert {world.cluster.calling[r] for r in world.replicas()} == {world.live.number}


async def test_a_table_that_proxies_refuse_is_forgotten_by_who_calls_others(world: Calling) -> None:
    await world.apply(A)
    before = world.live.number
    world.cluster.unstageable = CodeFailed("middleware m:M cannot be built")
    assert (await world.apply({**A, "route_prefix": "/b"}))["outcome"] == "rolled_back"
    assert not [key for key in world.cluster._staged if key[0] in world.cluster.calling and key[1] > before]


async def test_one_that_is_silent_is_waited_for_once_and_told_when_it_answers(
    world: Calling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers_module, "WAIT_S", 0.05)
    await world.apply(A)
    silent, well = world.replicas()
    world.cluster.hung.add(silent)
    assert (await world.apply({**A, "route_prefix": "/b"}))["outcome"] == "applied"
    monkeypatch.setattr(callers_module, "WAIT_S", 3600)  # whoever waits for it now waits for ever
    assert (await world.apply({**A, "route_prefix": "/c"}))["outcome"] == "applied"
    assert world.cluster.calling[well] == world.live.number
    assert world.cluster.calling[silent] < world.live.number
    world.cluster.hung.clear()
    assert (await world.apply({**A, "route_prefix": "/d"}))["outcome"] == "applied"
    assert world.cluster.calling[silent] == world.live.number


async def test_while_nobody_knows_who_calls_others_proxies_go_on(world: Calling) -> None:
    async def silent() -> tuple[str, ...]:
        raise EngineSilent(5.0)

    await world.apply(A)
    world.cluster.callers = silent  # type: ignore[method-assign]
    assert (await world.apply({**A, "route_prefix": "/b"}))["outcome"] == "applied"


STEPS = st.lists(st.sampled_from(["apply", "hang", "go on", "kill", "restart", "scale"]), min_size=2, max_size=8)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.randoms())
def test_whatever_happens_in_between_no_proxy_serves_a_table_before_those_that_answer_have_it(
    steps: list[str], dice: Any
) -> None:
    async def play() -> None:
        world, spec = Calling(Path(tempfile.gettempdir()) / "serveconf-none"), dict(A)
        await world.apply(spec)
        for number, step in enumerate(steps):
            replicas = world.replicas()
            match step:
                case "apply":
                    spec = {**spec, "init_args": [number]}
                    await world.apply(spec)
                case "scale":
                    spec = {**spec, "num_replicas": dice.randint(1, 3)}
                    await world.apply(spec)
                case "hang" if replicas:
                    world.cluster.hung.add(dice.choice(replicas))
                case "go on":
                    world.cluster.hung.clear()
                case "kill" if replicas:
                    world.cluster.kill(dice.choice(replicas))
                case "restart":
                    await world.restart()
            await world.look()
        assert world.cluster.behind == []
        world.cluster.hung.clear()
        await world.apply({**spec, "init_args": ["last"]})
        assert {world.cluster.calling[r] for r in world.replicas()} == {world.live.number}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callers_module, "WAIT_S", 0.05)
        asyncio.run(asyncio.wait_for(play(), 120))


def test_a_table_says_whose_replicas_call_others_and_older_processes_read_it_all_the_same() -> None:
    from serveconf.routing import Route, decode, encode

    table = Generation(number=1, routes=(Route(prefix="/", stack="s", deployment="d", calls=True),))
    assert decode(encode(table)) == table
    assert b"calls" not in encode(Generation(number=1, routes=(Route(prefix="/", stack="s", deployment="d"),)))
