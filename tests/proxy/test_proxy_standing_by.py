"""Two proxies of one port, as the controller starts them: which serves, and that clients meet one whoever goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serveconf.cluster.engine import Surroundings
from serveconf.cluster.proxy import Proxy
from serveconf.cluster.settings import ClusterSettings
from serveconf.errors import EngineSilent
from serveconf.local_ray import free_port
from serveconf.plan.state import Phase
from serveconf.reconcile.ports import ProxyOrder
from serveconf.routing import Generation, ReplicaAddress, Route, encode
from serveconf.testing import MemoryStore
from serveconf.wire import WireServer

pytestmark = pytest.mark.anyio

SECRET = b"s" * 32


class Pair:
    """One that serves, and one that stands by."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/-/healthz"
        self.first, self.second = self.proxy(port, "0"), self.proxy(port, "s")

    def proxy(self, port: int, name: str) -> Proxy:
        """Not started yet."""
        order = ProxyOrder(
            id=name,
            node_id="n",
            index=0,
            host="127.0.0.1",
            port=port,
            listener=str(port),
            shares_port=True,
            stands_by=name == "s",
        )
        settings = ClusterSettings(cluster_id="standing-by", secret=b"s" * 32)
        return Proxy(order, settings, name == "0", Surroundings(store=MemoryStore(), node_id="n", node_ip="127.0.0.1"))

    async def answers(self) -> int:
        """The status of one request on a connection of its own."""
        async with httpx.AsyncClient(trust_env=False, timeout=120) as client:
            return (await client.get(self.url)).status_code


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    monkeypatch.setattr("serveconf.cluster.proxy.node_folder", lambda _cluster: tmp_path)
    made = Pair(free_port())
    for proxy in (made.first, made.second):
        await proxy.run()
        await proxy.stage(encode(Generation(number=1)))
        await proxy.commit(1)
    yield made
    for proxy in (made.second, made.first):
        await proxy.drain(0)


async def roles(pair: Pair) -> list[bool]:
    """Which of them stands by."""
    return [(await proxy.check()).stands_by for proxy in (pair.first, pair.second)]


async def test_one_serves_and_when_it_drains_the_other_goes_on(pair: Pair) -> None:
    assert await roles(pair) == [False, True]
    asked = [asyncio.create_task(pair.answers()) for _ in range(20)]
    await pair.first.drain(5)
    assert await roles(pair) == [False, False]
    assert set(await asyncio.gather(*asked)) <= {200, 503}  # 503: by the one that goes
    assert [await pair.answers() for _ in range(5)] == [200] * 5


async def test_one_that_stands_by_and_drains_is_nothing_to_the_other(pair: Pair) -> None:
    await pair.second.drain(5)
    assert [await pair.answers() for _ in range(5)] == [200] * 5


async def test_one_that_served_beside_the_other_and_drains_leaves_it_the_port(pair: Pair) -> None:
    await pair.second.serve_beside()
    assert await roles(pair) == [False, False]
    assert [await pair.answers() for _ in range(5)] == [200] * 5
    await pair.second.drain(5)
    assert [await pair.answers() for _ in range(5)] == [200] * 5


async def test_one_that_served_beside_the_other_stands_by_again_and_cuts_nobody(pair: Pair) -> None:
    await pair.second.serve_beside()
    async with httpx.AsyncClient(trust_env=False, timeout=120) as client:  # whichever of them it is connected to
        assert (await client.get(pair.url)).status_code == 200
        assert not await pair.first.stand_by_again()  # the port is its own
        assert await pair.second.stand_by_again() and await pair.second.stand_by_again()
        assert await roles(pair) == [False, True]
        assert (await client.get(pair.url)).status_code == 200
    assert [await pair.answers() for _ in range(5)] == [200] * 5
    await pair.first.drain(5)
    assert not await pair.second.stand_by_again()
    assert await roles(pair) == [False, False]
    assert [await pair.answers() for _ in range(5)] == [200] * 5


async def test_one_that_serves_beside_the_other_goes_on_when_that_one_ends(pair: Pair) -> None:
    await pair.second.serve_beside()
    await pair.first.drain(5)
    assert [await pair.answers() for _ in range(5)] == [200] * 5
    await pair.second.drain(5)
    with pytest.raises(httpx.ConnectError):
        await pair.answers()


async def test_one_that_comes_back_listens_although_a_replica_of_the_stored_table_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It connects behind: what lives is served at once, and nobody has had to tell it anything."""
    monkeypatch.setattr("serveconf.cluster.proxy.node_folder", lambda _cluster: tmp_path)
    alive = WireServer(hello, secret=SECRET, max_ongoing=10)
    await alive.listen_unix(str(tmp_path / "alive"))
    store = MemoryStore()
    routes = tuple(
        Route(
            prefix=f"/{name}",
            stack="s",
            deployment=name,
            replicas=(ReplicaAddress(id=name, node_id="n", uds=str(tmp_path / name)),),
        )
        for name in ("alive", "dead")
    )
    await store.put("generation", encode(Generation(number=7, routes=routes)))
    order = ProxyOrder(id="0", node_id="n", index=0, host="127.0.0.1", port=free_port(), listener="l")
    surroundings = Surroundings(store=store, node_id="n", node_ip="127.0.0.1", restarted=True)
    proxy = Proxy(order, ClusterSettings(cluster_id="comes-back", secret=SECRET), True, surroundings)
    await proxy.run()
    state = await proxy.describe()
    assert (state.phase, state.generation, state.message) == (Phase.READY, 7, "")
    async with httpx.AsyncClient(trust_env=False, timeout=120, base_url=f"http://{state.address}") as client:
        assert (await client.get("/alive")).text == "hello"
        assert (await client.get("/-/healthz")).status_code == 200
        waiting = asyncio.create_task(client.get("/dead"))
        late = WireServer(hello, secret=SECRET, max_ongoing=10)
        await late.listen_unix(str(tmp_path / "dead"))  # it was only away
        assert (await waiting).text == "hello"
    await proxy.drain(0)
    await alive.close()
    await late.close()


class Silent(MemoryStore):
    """Nobody answers for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals = 2

    async def get(self, key: str) -> bytes | None:
        self.refusals -= 1
        if self.refusals >= 0:
            raise EngineSilent(4.0)
        return await super().get(key)


async def test_one_that_starts_while_nobody_answers_what_it_is_to_serve_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serveconf.cluster.proxy.node_folder", lambda _cluster: tmp_path)
    store = Silent()
    await store.put("generation", encode(Generation(number=7)))
    order = ProxyOrder(id="0", node_id="n", index=0, host="127.0.0.1", port=free_port(), listener="l")
    surroundings = Surroundings(store=store, node_id="n", node_ip="127.0.0.1")
    proxy = Proxy(order, ClusterSettings(cluster_id="waits", secret=SECRET), True, surroundings)
    await proxy.run()
    state = await proxy.describe()
    assert (state.phase, state.generation, store.refusals) == (Phase.READY, 7, -1)
    await proxy.drain(0)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
