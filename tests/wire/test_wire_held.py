"""What proxies and callers hear of the models that a replica has."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import pytest
from wire_harness import SECRET, answer, in_loop, pair, until

from serveconf.wire import HeldModels, Limits, WireClient, WireServer, handshake


async def app(scope: Any, receive: Any, send: Any) -> None:
    await answer(send)


@contextlib.asynccontextmanager
async def another(server: WireServer) -> AsyncIterator[WireClient]:
    """One more proxy."""
    with tempfile.TemporaryDirectory() as folder:
        await server.listen_unix(f"{folder}/s")
        client = await WireClient.connect(f"unix:{folder}/s", secret=SECRET)
        try:
            yield client
        finally:
            client.abort()


@in_loop
async def test_whoever_is_connected_and_whoever_connects_later_knows_the_models() -> None:
    async with pair(app) as (server, client):
        assert client.models is None
        server.models.came("a")
        server.models.came("b")
        await until(lambda: client.models == {b"a", b"b"})
        server.models.went("a")
        await until(lambda: client.models == {b"b"})
        async with another(server) as later:
            await until(lambda: later.models == {b"b"})
            server.models.came("é")
            await until(lambda: later.models == client.models == {b"b", "é".encode()})
        await until(lambda: len(server._connections) == 1)
        server.models.came("c")
        await until(lambda: client.models is not None and b"c" in client.models)


@in_loop
async def test_a_replica_whose_requests_ask_for_models_says_so_before_the_first_one() -> None:
    async with pair(app) as (server, client):
        told: list[bool] = []
        client.on_models = lambda: told.append(True)
        server.models.begin()
        server.models.begin()
        await until(lambda: client.models == set())
        server.models.came("a")
        await until(lambda: client.models == {b"a"})
        assert told == [True]


@in_loop
async def test_a_model_of_two_loaders_is_there_until_both_have_let_it_go() -> None:
    async with pair(app) as (server, client):
        for _ in range(2):
            server.models.came("a")
        server.models.went("a")
        server.models.came("end")
        await until(lambda: client.models == {b"a", b"end"})
        server.models.went("a")
        await until(lambda: client.models == {b"end"})


@in_loop
async def test_names_that_no_request_can_have_are_not_told() -> None:
    async with pair(app) as (server, client):
        for name in ("x" * 257, "\udcff", ""):
            server.models.came(name)
            server.models.went(name)
        server.models.came("end")
        await until(lambda: client.models == {b"end"})


@in_loop
async def test_many_models_are_told_in_frames_that_fit() -> None:
    names = {f"{number:0256}" for number in range(5_000)}
    async with pair(app, limits=Limits()) as (server, _):
        for name in names:
            server.models.came(name)
        async with another(server) as later:
            await until(lambda: later.models is not None and len(later.models) == len(names))


@in_loop
async def test_a_proxy_of_the_version_before_hears_nothing_of_models(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(app) as (server, _):
        server.models.came("a")
        monkeypatch.setattr(handshake, "VERSION", 3)
        async with another(server) as old:
            server.models.came("b")
            await asyncio.sleep(0.01)
            assert old.models is None and old.open


@in_loop
async def test_models_may_come_and_go_in_any_thread_and_after_the_end() -> None:
    async with pair(app) as (server, client):
        await asyncio.to_thread(server.models.came, "a")
        await until(lambda: client.models == {b"a"})


def test_a_model_that_outlives_its_replica_s_loop_goes_quietly() -> None:
    async def make() -> HeldModels:
        return HeldModels()

    asyncio.run(make()).went("a")
