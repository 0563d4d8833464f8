"""A whole controller over an engine in memory, asked over its real control API: it dies at any moment, and the next one goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from serveconf.client import Client
from serveconf.cluster import controller as controllers
from serveconf.cluster.controller import Controller, start_controller
from serveconf.cluster.engine import Surroundings
from serveconf.cluster.settings import ControllerAddress, ControllerSettings
from serveconf.errors import OperatorError, ServeconfError, Unauthorized
from serveconf.plan.state import Phase
from serveconf.spec.load import load_file
from serveconf.submit import submit
from serveconf.testing import FakeEngine, FakePreflight, MemoryStore

pytestmark = pytest.mark.anyio

WITHIN_S = 120.0  # far more than anything takes
SPEC = (
    "name: shop\ndeployments:\n  - {name: web, import_path: '%s', route_prefix: /, graceful_shutdown_timeout_s: 30}\n"
)


class Preflight(FakePreflight):
    """No child process is kept warm."""

    async def warm_up(self) -> None:
        """Nothing to do."""


class Whole:
    """The store and the engine stay; controllers come and go."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.store = MemoryStore()
        self.engine = FakeEngine(store=self.store)
        self.ended: list[bool] = []  # whether it is to be restarted
        monkeypatch.setattr(controllers, "RayEngine", lambda: self.engine)
        monkeypatch.setattr(controllers, "EnginePreflight", lambda *_: Preflight())
        monkeypatch.setattr(controllers, "node_folder", lambda cluster_id: folder / cluster_id)
        monkeypatch.setattr(controllers, "find_actor", lambda name: object())
        monkeypatch.setattr(controllers, "kill_actor", lambda actor, restart=False: self.ended.append(restart))
        monkeypatch.setattr(controllers, "LAST_WORD_S", 0.0)
        monkeypatch.setattr(controllers, "FIRST_PAUSE_S", 0.01)

    async def begin(self, *, restarted: bool = False) -> Client:
        """Another one."""
        place = Surroundings(store=self.store, node_id="node0", node_ip="127.0.0.1", restarted=restarted)
        self.controller = Controller(ControllerSettings(port=0), place)
        self._running = asyncio.ensure_future(self.controller.run())
        async with asyncio.timeout(WITHIN_S):
            self.address = await self.controller.address()
        assert not self.address.error, self.address.error
        return Client(self.address.url, self.address.token)

    async def die(self) -> None:
        """Its process ends; what it has begun stays as it is."""
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self.controller._drop_everything()

    async def begin_apply(self, client: Client, path: str = "web:app", code: str = "1") -> str:
        """The id of the operation."""
        app = self.folder / "app"
        app.mkdir(exist_ok=True)
        (app / f"{path.partition(':')[0]}.py").write_text(code)
        (app / "serve.yaml").write_text(SPEC % path)

        def begin() -> str:
            submission = submit(load_file(app / "serve.yaml", env={}, env_files=()), client)
            return client.begin(submission.stack, "apply", submission.body)

        return await asyncio.to_thread(begin)

    async def result(self, client: Client, operation: str) -> dict[str, Any]:
        """How it ends."""
        async with asyncio.timeout(WITHIN_S):
            return (await asyncio.to_thread(lambda: list(client.events(operation))))[-1]

    async def until(self, what: Callable[[], object]) -> None:
        """Return when that is the case."""
        async with asyncio.timeout(WITHIN_S):
            while not what():
                await asyncio.sleep(0.01)

    def replicas(self) -> list[str]:
        """The names of the actors that are replicas."""
        return sorted(name for name in self.engine.actors if "shop.web." in name)


@pytest.fixture
async def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Whole]:
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    whole = Whole(tmp_path, monkeypatch)
    yield whole
    await whole.die()


async def status(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = await asyncio.to_thread(client.status)
    return found


async def test_the_next_one_finds_everything_again_and_starts_nothing(whole: Whole) -> None:
    client = await whole.begin()
    result = await whole.result(client, await whole.begin_apply(client))
    assert result["outcome"] == "applied", result
    before = {name: actor.hosted for name, actor in whole.engine.actors.items() if "standby" not in name}
    await whole.die()

    again = await whole.begin(restarted=True)
    assert again.token == client.token
    found = await status(again)
    assert [one["name"] for one in found["stacks"]] == ["shop"] and found["stacks"][0]["state"] == "Healthy"
    assert {name: whole.engine.actors[name].hosted for name in before} == before
    events = await asyncio.to_thread(again.recent_events)
    told = [one["message"] for one in events if one["kind"] == "controller"]
    assert told[-1] == "the controller died and has come back"  # what was told in the last second went with the first


async def test_one_that_dies_while_replicas_start_leaves_an_apply_that_the_next_one_ends(whole: Whole) -> None:
    client = await whole.begin()
    operation = await whole.begin_apply(client, "slow:app")
    await whole.until(whole.replicas)
    await whole.die()

    again = await whole.begin(restarted=True)
    (name,) = whole.replicas()
    replica = whole.engine.actors[name].hosted
    replica.state = replace(replica.state, phase=Phase.READY)
    replica._ready.set()
    result = await whole.result(again, operation)
    assert (result["outcome"], result["revision"]) == ("applied", 1)
    assert whole.replicas() == [name]


async def test_one_that_dies_while_an_old_replica_drains_leaves_no_ghost(whole: Whole) -> None:
    client = await whole.begin()
    await whole.result(client, await whole.begin_apply(client, "busy:app"))
    (old,) = whole.replicas()
    busy = whole.engine.actors[old].hosted
    await whole.begin_apply(client, "busy:app", code="2")
    await whole.until(lambda: busy.state.phase.value == "Draining")
    await whole.die()

    again = await whole.begin(restarted=True)
    busy.drained.set()
    await whole.until(lambda: old not in whole.engine.actors)
    ((web,),) = [one["deployments"] for one in (await status(again))["stacks"]]
    assert [one["state"] for one in web["replicas"]] == ["Ready"]


async def test_what_is_shut_down_is_forgotten_and_the_next_one_is_another(whole: Whole) -> None:
    client = await whole.begin()
    await whole.result(client, await whole.begin_apply(client))
    await asyncio.to_thread(client._json, "POST", "/shutdown")
    await whole.until(lambda: whole.ended)
    assert whole.ended == [False]
    assert whole.engine.actors == {} and whole.store.values == {}
    await whole.die()

    again = await whole.begin()
    assert again.token != client.token
    assert (await status(again))["stacks"] == []


async def test_a_token_that_is_replaced_holds_for_the_next_controller(whole: Whole) -> None:
    client = await whole.begin()
    first = client.token
    second = await asyncio.to_thread(client.rotate_token)
    assert second != first
    await whole.die()
    again = await whole.begin(restarted=True)
    assert again.token == second
    with pytest.raises(Unauthorized):
        await asyncio.to_thread(Client(again.address, first).status)


@pytest.mark.parametrize("installed", [True, False])
async def test_it_makes_way_only_for_a_version_that_would_come_up(
    whole: Whole, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    handed: list[set[str]] = []

    def try_out(records: dict[str, bytes], *, version: str) -> None:
        handed.append({key.partition("/")[0] for key in records})
        if not installed:
            raise OperatorError("serveconf 0.1.0 is installed", code="not_installed")

    monkeypatch.setattr(controllers, "try_out", try_out)
    client = await whole.begin()
    await whole.result(client, await whole.begin_apply(client))
    if installed:
        await asyncio.to_thread(client.upgrade_controller, "9.0.0")
        await whole.until(lambda: whole.ended)
        assert whole.ended == [True]
    else:
        with pytest.raises(ServeconfError, match=r"serveconf 0\.1\.0 is installed"):
            await asyncio.to_thread(client.upgrade_controller, "9.0.0")
        assert (await status(client))["stacks"][0]["state"] == "Healthy" and not whole.ended
    assert handed == [{"stacks", "generation", "orders"}]  # its records, and no secret


async def test_a_start_that_fails_says_why_and_is_tried_again(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    get, broken = whole.store.get, asyncio.Event()

    async def failing(key: str) -> bytes | None:
        if not broken.is_set():
            raise OSError("the store is silent")
        return await get(key)

    monkeypatch.setattr(whole.store, "get", failing)
    with pytest.raises(AssertionError, match="OSError: the store is silent"):
        await whole.begin(restarted=True)
    broken.set()
    await whole.until(lambda: whole.controller._address.url)
    address = await whole.controller.address()
    assert not address.error
    assert (await status(Client(address.url, address.token)))["stacks"] == []


@pytest.mark.parametrize("ours", [True, False])
async def test_a_controller_that_can_not_start_is_taken_away_by_whoever_started_it(
    monkeypatch: pytest.MonkeyPatch, ours: bool
) -> None:
    killed: list[object] = []
    actor = object()
    monkeypatch.setattr(controllers, "find_actor", lambda name: None if ours else actor)
    monkeypatch.setattr(controllers, "start_actor", lambda *_, **__: actor)
    monkeypatch.setattr(controllers, "kill_actor", killed.append)
    address = ControllerAddress(error="port 8001 is taken")
    monkeypatch.setattr(controllers, "call_actor", lambda *_, **__: address)
    with pytest.raises(OperatorError, match="port 8001 is taken"):
        start_controller(ControllerSettings())
    assert killed == ([actor] if ours else [])
    address = ControllerAddress(url="http://127.0.0.1:8001", token="t")
    assert start_controller(ControllerSettings()) == address
