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
from serveconf.routing import SessionAffinity

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


async def told(backend: Backend, models: dict[str, set[bytes]]) -> None:
    """Until the backend knows of these models, by replica."""
    clients = {link.id: link.client for link in backend.links}
    await until(lambda: all(client is not None and models[name] == client.models for name, client in clients.items()))


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
        await told(backend, {"a": {*found}, "b": set(), "c": set()})
        assert {await where(backend, model) for model in found} == {b"a"}


@in_loop
async def test_of_those_that_have_the_model_the_least_loaded_one_takes_the_request() -> None:
    async with node() as n:
        apps, backend = await three(n)
        for name in ("a", "b"):
            apps[name].go.clear()
            n.servers[name].models.came("m")
        await told(backend, {"a": {b"m"}, "b": {b"m"}, "c": set()})
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
        await told(backend, {"a": set(), "b": {b"m"}, "c": set()})
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


class Named:
    """Answers with its name, and perhaps with a cookie of the app's own."""

    def __init__(self, name: str, cookie: bytes = b"") -> None:
        self.name, self.cookie = name, cookie
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.go.wait()
        headers = [(b"set-cookie", self.cookie)] if self.cookie else []
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept", "headers": headers, "subprotocol": self.name})
            await send({"type": "websocket.close"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.name.encode()})


async def sessions(n: Node, affinity: SessionAffinity, cookie: bytes = b"", **route: Any) -> Backend:
    addresses = [await n.start(name, Named(name, cookie)) for name in ("a", "b", "c")]
    return await n.backend(*addresses, session_affinity=affinity, **route)


async def served_by(backend: Backend, *headers: tuple[bytes, bytes], root_path: str = "") -> tuple[bytes, list[bytes]]:
    """Which replica, and the cookies that were set."""
    request = Request(backend, headers=headers, root_path=root_path)
    assert await request.status() == 200
    return request.body, [value for name, value in request.got[0]["headers"] if name == b"set-cookie"]


@in_loop
async def test_the_requests_of_a_session_go_to_one_replica_also_at_another_proxy() -> None:
    async with node() as n, node() as other:
        backend = await sessions(n, SessionAffinity())
        elsewhere = await other.backend(*backend.route.replicas, session_affinity=SessionAffinity())
        seen = set()
        for key in KEYS[:30]:
            name, cookies = await served_by(backend, (b"accept", b"*/*"), (b"x-session-id", key))
            seen.add(name)
            assert not cookies
            for one in (backend, elsewhere):
                assert (await served_by(one, (b"x-session-id", key)))[0] == name
        assert seen == {b"a", b"b", b"c"}


@in_loop
async def test_requests_without_a_session_are_spread_as_ever() -> None:
    async with node() as n:
        backend = await sessions(n, SessionAffinity(header="X-User"))
        seen = set()
        while len(seen) < 3:
            seen.add((await served_by(backend, (b"x-session-id", b"1"), (b"x-user", b"")))[0])


@in_loop
async def test_a_client_without_the_cookie_is_given_one_and_stays_where_it_was() -> None:
    async with node() as n:
        backend = await sessions(n, SessionAffinity(cookie="replica"))
        for root_path, path in (("", b"/"), ("/shop", b"/shop")):
            name, (cookie,) = await served_by(backend, root_path=root_path)
            value, *rest = cookie.split(b"; ")
            assert value.startswith(b"replica=") and rest == [b"Path=" + path, b"HttpOnly", b"SameSite=Lax"]
            for _ in range(5):
                assert await served_by(backend, (b"cookie", b"a=1; " + value + b"; b=2")) == (name, [])
        both = (b"x-session-id", KEYS[0]), (b"cookie", value)
        named, _ = await served_by(backend, (b"x-session-id", KEYS[0]))
        assert await served_by(backend, *both) == await served_by(backend, *both[::-1]) == (named, [])


@in_loop
async def test_a_websocket_is_given_the_cookie_too() -> None:
    async with node() as n:
        backend = await sessions(n, SessionAffinity(cookie="replica"))
        request = Request(backend, {"type": "websocket.connect"}, kind="websocket")
        await request.task
        (cookie,) = [value for name, value in request.got[0]["headers"] if name == b"set-cookie"]
        again = Request(
            backend, {"type": "websocket.connect"}, kind="websocket", headers=[(b"cookie", cookie.split(b";")[0])]
        )
        await again.task
        assert again.got[0]["subprotocol"] == request.got[0]["subprotocol"]


@in_loop
async def test_a_cookie_that_the_app_sets_itself_is_left_to_it() -> None:
    async with node() as n:
        backend = await sessions(n, SessionAffinity(header=None, cookie="sid"), cookie=b"sid=own; Path=/")
        assert (await served_by(backend, (b"x-session-id", b"1")))[1] == [b"sid=own; Path=/"]


@in_loop
async def test_a_session_whose_replica_is_full_or_gone_goes_to_the_next_one_and_comes_back() -> None:
    async with node() as n:
        backend = await sessions(n, SessionAffinity(), max_ongoing_requests=1)
        header = (b"x-session-id", KEYS[0])
        first, _ = await served_by(backend, header)
        app: Any = n.servers[first.decode()].app
        app.go.clear()
        holding = Request(backend, headers=[header])
        await until(lambda: n.servers[first.decode()].ongoing == 1)
        second, _ = await served_by(backend, header)
        assert second != first
        app.go.set()
        assert await holding.status() == 200
        assert (await served_by(backend, header))[0] == first
        await n.servers[first.decode()].close()
        await until(lambda: any(link.client is None for link in backend.links))
        assert (await served_by(backend, header))[0] == second


@in_loop
async def test_a_session_with_a_model_that_several_replicas_have_stays_on_one_of_them() -> None:
    async with node() as n:
        _, backend = await three(n, session_affinity=SessionAffinity())
        for name in ("a", "b"):
            n.servers[name].models.came("m")
        await told(backend, {"a": {b"m"}, "b": {b"m"}, "c": set()})
        seen = set()
        for key in KEYS[:20]:
            name, _ = await served_by(backend, (MODEL, b"m"), (b"x-session-id", key))
            assert (await served_by(backend, (MODEL, b"m"), (b"x-session-id", key)))[0] == name
            seen.add(name)
        assert seen == {b"a", b"b"}
