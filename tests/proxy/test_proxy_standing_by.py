"""Two proxies of one port, as the controller starts them: which serves, and that clients meet one whoever goes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from serveconf.cluster.engine import Surroundings
from serveconf.cluster.proxy import Proxy
from serveconf.cluster.settings import ClusterSettings
from serveconf.reconcile.ports import ProxyOrder
from serveconf.routing import Generation, encode
from serveconf.testing import MemoryStore

pytestmark = pytest.mark.anyio


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
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            return (await client.get(self.url)).status_code


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    monkeypatch.setattr("serveconf.cluster.proxy.node_folder", lambda _cluster: tmp_path)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    made = Pair(port)
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


async def test_one_that_serves_beside_the_other_goes_on_when_that_one_ends(pair: Pair) -> None:
    await pair.second.serve_beside()
    await pair.first.drain(5)
    assert [await pair.answers() for _ in range(5)] == [200] * 5
    await pair.second.drain(5)
    with pytest.raises(httpx.ConnectError):
        await pair.answers()
