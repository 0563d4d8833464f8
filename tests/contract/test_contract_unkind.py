"""Replicas of an engine that is unkind while they end or are told something: in the end the cluster says what is so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from labs import QUICK, FakeEngineLab, replica

from serveconf.cluster import handle
from serveconf.cluster.engine import Silent
from serveconf.testing.engine import FakeActor

pytestmark = pytest.mark.anyio


async def test_one_that_hangs_while_it_drains_is_ended_by_force_and_gone() -> None:
    lab = FakeEngineLab()
    name, actor = await replica(lab, **QUICK)
    await lab.until(lambda: lab.phase(name) == "Ready")
    actor.hung.clear()
    await lab.cluster.stop_replica(name, drain_s=0)
    await lab.until(lambda: lab.phase(name) is None)
    assert lab.fake.actors == {}
    lab.actors.close()


async def test_one_whose_word_that_it_is_ready_was_lost_on_its_way_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    really = FakeActor.call

    async def loses_the_first(actor: FakeActor, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        asked.append(method)
        if method == "wait_ready" and asked.count(method) == 1:
            assert timeout_s is not None
            await asyncio.sleep(timeout_s)
            raise Silent("no answer")
        return await really(actor, method, *args, timeout_s=timeout_s)

    monkeypatch.setattr(handle, "LOST_S", 0.05)
    monkeypatch.setattr(FakeActor, "call", loses_the_first)
    lab = FakeEngineLab()
    name, _ = await replica(lab, **QUICK)
    await lab.until(lambda: lab.phase(name) in ("Ready", "Failed"))
    assert lab.phase(name) == "Ready" and asked.count("wait_ready") >= 2
    lab.actors.close()


async def test_two_controllers_in_a_row_stop_it_once() -> None:
    lab = FakeEngineLab()
    name, _ = await replica(lab, **QUICK)
    await lab.until(lambda: lab.phase(name) == "Ready")
    await lab.cluster.stop_replica(name, drain_s=30)
    await lab.another_controller()  # of a table that names it no more
    await lab.cluster.stop_replica(name, drain_s=0)
    await lab.cluster.stop_replica(name, drain_s=0)
    await lab.until(lambda: lab.phase(name) is None)
    await lab.cluster.stop_replica(name, drain_s=0)  # it is gone
    lab.actors.close()


@pytest.mark.parametrize("event", ["die", "leave"])
async def test_a_replica_that_is_lost_while_a_config_is_handed_over_is_said_to_be(event: str) -> None:
    lab = FakeEngineLab()
    name, actor = await replica(lab, **QUICK)
    await lab.until(lambda: lab.phase(name) == "Ready")
    actor.hung.clear()
    handing = asyncio.ensure_future(lab.cluster.reconfigure(name, {"x": 1}, "c2"))
    await asyncio.sleep(0.01)
    getattr(actor, event)()
    (outcome,) = await asyncio.gather(handing, return_exceptions=True)
    assert isinstance(outcome, Exception)
    actor.hung.set()
    actor.return_()
    await lab.until(lambda: lab.phase(name) == ("Failed" if event == "die" else "Ready"))
    await lab.close()
    lab.actors.close()
