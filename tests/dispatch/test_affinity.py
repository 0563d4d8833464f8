"""Which replica takes a request that would rather have one than another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from dispatch_harness import Node, Request, answer, in_loop, node, until
from hypothesis import given, settings
from hypothesis import strategies as st

from serveconf.proxy.affinity import Wish, favourite, hash_of, wish_for
from serveconf.proxy.dispatch import Backend

KEYS = [b"session-%d" % number for number in range(20_000)]
MODEL = b"serve_multiplexed_model_id"


def owners(replicas: list[str], keys: list[bytes] = KEYS) -> list[str]:
    hashed = [(hash_of(name.encode()), name) for name in replicas]
    return [favourite(key, hashed) for key in keys]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=12, unique=True))
def test_a_replica_that_joins_takes_its_share_and_moves_no_other_key(names: list[str]) -> None:
    *there, joining = names
    before, after = owners(there), owners(names)
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) <= {joining}
    assert len(moved) <= 1.2 * len(KEYS) / len(there)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=12, unique=True))
def test_the_keys_of_a_replica_that_goes_spread_over_all_others(names: list[str]) -> None:
    before, after = owners(names), owners(names[1:])
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert len(moved) == before.count(names[0])
    for name in names[1:]:
        assert before.count(name) < 1.2 * len(KEYS) / len(names)
        assert moved.count(name) < 2 * len(moved) / (len(names) - 1)


def test_every_process_of_every_version_comes_to_the_same_result() -> None:
    assert hash_of(b"session-1") == 0xAE49BD2CD463E7AC
    assert "".join(owners(["a", "b", "c"], KEYS[:12])) == "bbbbbcbccabc"


@pytest.mark.parametrize(
    ("model", "session", "wish"),
    [(b"", b"", None), (b"m", b"", Wish(b"m", b"")), (b"", b"s", Wish(b"", b"s")), (b"m", b"s", Wish(b"m", b"s"))],
)
def test_a_request_wishes_for_what_it_names(model: bytes, session: bytes, wish: Wish | None) -> None:
    assert wish_for(model, session) == wish


class Replica:
    """Answers with its name; keeps the model that it was asked for, if it ``keeps`` any."""

    def __init__(self, n: Node, name: str, keeps: bool = True) -> None:
        self.n, self.name, self.keeps = n, name, keeps
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.keeps:
            self.n.servers[self.name].models.came(dict(scope["headers"])[MODEL].decode())
        await self.go.wait()
        await answer(send, self.name.encode())


async def where(backend: Backend, model: bytes) -> bytes:
    request = Request(backend, headers=[(b"accept", b"*/*"), (MODEL, model)])
    assert await request.status() == 200
    return request.body


async def three(n: Node, **route: Any) -> tuple[dict[str, Replica], Backend]:
    apps = {name: Replica(n, name) for name in ("a", "b", "c")}
    addresses = [await n.start(name, app, max_ongoing=2) for name, app in apps.items()]
    for server in n.servers.values():
        server.models.begin()
    backend = await n.backend(*addresses, **route)
    await until(lambda: all(link.client is not None and link.client.models is not None for link in backend.links))
    return apps, backend


@in_loop
async def test_requests_for_a_model_go_where_it_is() -> None:
    async with node() as n:
        _, backend = await three(n)
        found = {b"%d" % number: await where(backend, b"%d" % number) for number in range(30)}
        assert {*found.values()} == {b"a", b"b", b"c"}
        for model, name in found.items():
            assert await where(backend, model) == name
        for model, name in found.items():  # it moves: so do its requests
            n.servers[name.decode()].models.went(model.decode())
            n.servers[name.decode()].models.went(model.decode())
            n.servers["a"].models.came(model.decode())
        await asyncio.sleep(0.01)
        assert {await where(backend, model) for model in found} == {b"a"}


@in_loop
async def test_of_those_that_have_the_model_the_least_loaded_one_takes_the_request() -> None:
    async with node() as n:
        apps, backend = await three(n)
        for name in ("a", "b"):
            apps[name].go.clear()
            n.servers[name].models.came("m")
        await asyncio.sleep(0.01)
        requests = [Request(backend, headers=[(MODEL, b"m")]) for _ in range(4)]
        await until(lambda: n.servers["a"].ongoing == n.servers["b"].ongoing == 2)
        for name in ("a", "b"):
            apps[name].go.set()
        assert sorted([await one.status() and one.body for one in requests]) == [b"a", b"a", b"b", b"b"]


@in_loop
async def test_a_replica_that_is_full_or_gone_leaves_its_requests_to_the_next_one() -> None:
    async with node() as n:
        apps, backend = await three(n, max_ongoing_requests=1)
        first = (await where(backend, b"m")).decode()
        apps[first].go.clear()
        holding = Request(backend, headers=[(MODEL, b"m")])
        await until(lambda: n.servers[first].ongoing == 1)
        apps_after = await where(backend, b"m")
        assert apps_after != first.encode()
        apps[first].go.set()
        assert await holding.status() == 200
        await n.servers[first].close()
        await until(lambda: any(link.client is None for link in backend.links))
        assert await where(backend, b"m") == apps_after


@in_loop
async def test_a_request_that_waited_in_line_goes_where_its_model_is() -> None:
    async with node() as n:
        apps, backend = await three(n, max_ongoing_requests=1)
        n.servers["b"].models.came("m")
        await asyncio.sleep(0.01)
        for app in apps.values():
            app.go.clear()
        running = [Request(backend, headers=[(MODEL, b"x%d" % number)]) for number in range(3)]
        await until(lambda: all(server.ongoing == 1 for server in n.servers.values()))
        waiting = Request(backend, headers=[(MODEL, b"m")])
        await until(lambda: backend.queued == 1)
        for app in apps.values():
            app.go.set()
        assert [await one.status() for one in running] == [200, 200, 200]
        assert await waiting.status() == 200


@in_loop
async def test_requests_that_name_no_model_are_spread_as_ever() -> None:
    async with node() as n:
        apps, backend = await three(n)
        for app in apps.values():
            app.keeps = False
        seen = set()
        while len(seen) < 3:
            request = Request(backend)
            assert await request.status() == 200
            seen.add(request.body)


@in_loop
async def test_the_header_means_nothing_where_no_replica_has_models() -> None:
    async with node() as n:
        addresses = [await n.start(name, Replica(n, name, keeps=False)) for name in ("a", "b")]
        backend = await n.backend(*addresses)
        seen = set()
        while len(seen) < 2:
            seen.add(await where(backend, b"m"))
