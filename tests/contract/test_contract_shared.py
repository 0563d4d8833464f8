"""A process that several deployments share, and one that waits to become a replica, as the plain objects that they are."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from labs import SETTINGS, deployment
from msgspec.structs import replace
from test_contract_replica import HELLO, connected

from serveconf.cluster import shared
from serveconf.cluster.engine import Surroundings
from serveconf.cluster.ground import Ground
from serveconf.cluster.shared import SharedProcess
from serveconf.cluster.standby import Standby
from serveconf.handles.following import Following
from serveconf.plan.state import Phase
from serveconf.proxy.pool import ReplicaPool
from serveconf.reconcile.ports import ProcessOrder, ReplicaOrder, StandbyOrder
from serveconf.testing import MemoryStore

pytestmark = pytest.mark.anyio

SURROUNDINGS = Surroundings(store=MemoryStore(), node_id="n", node_ip="127.0.0.1")
SAYS = HELLO.replace('b"hello"', "NAME")


class House:
    """Where processes are made; ``entered`` counts how often one was prepared, ``closed`` whether its calls ended."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.entered = 0
        self.closed = False
        self.processes: list[SharedProcess] = []
        monkeypatch.setattr(shared, "enter", self._enter)

    async def _enter(self, order: Any, store: Any, packages: Any, pool: ReplicaPool, names: Any, **_: Any) -> Ground:
        self.entered += 1
        house = self

        class Watched(Following):
            async def close(self) -> None:
                house.closed = True
                await super().close()

        return Ground(code=self.folder, following=Watched(pool, lambda: store.get("generation")), writes=[])

    def process(self, **codes: str) -> SharedProcess:
        """One with a replica for each module; not started yet."""
        orders = []
        for name, code in codes.items():
            (self.folder / f"{name}.py").write_text(f"NAME = {name.encode()!r}\n{code}")
            made = replace(deployment(f"{name}:app"), name=name)
            orders.append(ReplicaOrder(id=f"default.{name}.1", stack="default", deployment=made, ready_timeout_s=60))
        self.processes.append(SharedProcess(ProcessOrder(id="p", replicas=tuple(orders)), SETTINGS, SURROUNDINGS))
        return self.processes[-1]


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    for module in ("replica", "shared"):
        monkeypatch.setattr(f"serveconf.cluster.{module}.node_folder", lambda cluster_id: tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "code").mkdir()
    before = {*sys.modules}
    house = House(tmp_path / "code", monkeypatch)
    yield house
    for process in house.processes:
        for replica in process._replicas:
            await process.room(replica, "drain", (0,))
    for name in {*sys.modules} - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def asked(process: SharedProcess, name: str) -> Callable[..., Any]:
    """What the controller asks of one of them."""
    return lambda method, *args: process.room(f"default.{name}.1", method, args)


async def test_each_has_a_socket_of_its_own_and_the_process_is_prepared_once(house: House) -> None:
    process = house.process(one_of_two=SAYS, two_of_two=SAYS)
    await process.run()
    for name in ("one_of_two", "two_of_two"):
        state = await asked(process, name)("wait_ready")
        assert (state.phase, state.deployment) == (Phase.READY, name)
        async with connected(f"unix:{state.uds}") as ask:
            assert await ask("/") == (200, name.encode())
    assert house.entered == 1


async def test_one_that_can_not_start_leaves_the_others(house: House) -> None:
    process = house.process(broken_one="raise ValueError('no such model')", whole_one=SAYS)
    await process.run()
    broken = await asked(process, "broken_one")("wait_ready")
    assert broken.phase is Phase.FAILED and "no such model" in broken.message
    assert (await asked(process, "whole_one")("wait_ready")).phase is Phase.READY
    assert await asked(process, "whole_one")("check", None, 5) == ""


async def test_one_that_is_sick_says_so_of_itself_alone(house: House) -> None:
    process = house.process(sick_one=SAYS, well_one=SAYS)
    await process.run()
    sys.modules["sick_one"].sick.append(1)
    assert "503" in await asked(process, "sick_one")("check", "/health", 5)
    assert await asked(process, "well_one")("check", "/health", 5) == ""


async def test_when_one_drains_the_others_serve_on_and_calls_end_with_the_last(house: House) -> None:
    process = house.process(leaves=SAYS, stays=SAYS)
    await process.run()
    state = await asked(process, "stays")("describe")
    assert await asked(process, "leaves")("drain", 5)
    assert not house.closed
    async with connected(f"unix:{state.uds}") as ask:
        assert await ask("/") == (200, b"stays")
    assert await asked(process, "leaves")("drain", 5)  # asked again, by another controller perhaps
    assert not house.closed
    await asked(process, "stays")("drain", 5)
    assert house.closed


async def test_one_that_drains_finishes_its_requests_before_it_says_that_it_is_done(house: House) -> None:
    process = house.process(busy_one=SAYS, idle_one=SAYS)
    await process.run()
    state = await asked(process, "busy_one")("describe")
    async with connected(f"unix:{state.uds}") as ask:
        waiting = asyncio.create_task(ask("/wait"))
        assert await ask("/") == (200, b"busy_one")  # so the other one is there, too
        draining = asyncio.create_task(asked(process, "busy_one")("drain", 30))
        await asyncio.sleep(0)
        sys.modules["busy_one"].go.set()
        assert await waiting == (200, b"busy_one")
        assert not draining.done()  # whoever is connected may still ask
    assert await draining


async def test_a_standby_is_ready_when_all_that_can_be_imported_is() -> None:
    order = StandbyOrder(id="s", kind="k", node_id="n", options={}, modules=("json", "no_such_module_anywhere", "wave"))
    sys.modules.pop("wave", None)
    standby = Standby(order, SURROUNDINGS)
    assert (await standby.describe()).phase is Phase.STARTING
    running = asyncio.create_task(standby.run())
    state = await standby.wait_ready()
    assert (state.phase, state.kind, await standby.check()) == (Phase.READY, "k", "")
    await running
    assert "wave" in sys.modules
