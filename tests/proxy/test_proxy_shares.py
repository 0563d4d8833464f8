"""Canaries and mirrors at the proxy: exact shares, clients that stay, and copies that never touch their originals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
from test_proxy_app import Bench, route, run

from serveconf.proxy.mirror import MOST_BODY_BYTES
from serveconf.routing import Mirror, Route


def changed(of: Route, **fields: Any) -> Route:
    return Route(**{name: fields.get(name, getattr(of, name)) for name in Route.__struct_fields__})


def sides(share: float, sticky: str | None = None) -> tuple[Route, Route]:
    return route(version="1"), changed(route(version="2", replicas=("a2",)), share=share, sticky=sticky)


async def until(look: Callable[[], object]) -> None:
    """Copies run beside their originals."""
    async with asyncio.timeout(120):
        while not look():
            await asyncio.sleep(0.005)


async def versions(bench: Bench, requests: int, client: httpx.AsyncClient | None = None) -> list[str]:
    return [(await (client or bench.client).get("/a/x")).json()["version"] for _ in range(requests)]


@run
async def test_a_canary_gets_its_share_of_the_requests_exactly(bench):
    await bench.serve(*sides(10))
    taken = (await versions(bench, 2000)).count("2")
    assert 190 <= taken <= 210
    assert (await bench.get("/-/routes")).json() == {"/a": "a"}


@run
async def test_what_each_side_answers_is_counted_while_it_runs(bench):
    await bench.serve(*sides(50))
    await versions(bench, 20)
    counted = bench.app.sides()
    old, new = counted["s/a@1"], counted["s/a@2"]
    assert old.given + new.given == 20
    assert 8 <= new.given <= 12
    assert sum(old.slowness) == old.given
    await bench.serve(route(version="2", replicas=("a2",)), number=2)
    await versions(bench, 20)
    assert sum(side.given for side in bench.app.sides().values()) == 20


@run
async def test_a_client_stays_on_the_new_side_as_the_share_grows(bench):
    clients = [httpx.AsyncClient(transport=bench.client._transport, base_url="http://test") for _ in range(40)]
    seen = {}
    for number, share in enumerate((25, 50), 1):
        await bench.serve(*sides(share, sticky="side"), number=number)
        for index, client in enumerate(clients):
            drawn = set(await versions(bench, 4, client))
            assert len(drawn) == 1  # for as long as the step lasts
            if seen.get(index) == "2":
                assert drawn == {"2"}
            seen[index] = drawn.pop()
        assert abs(list(seen.values()).count("2") - 40 * share / 100) <= 3


@run
async def test_a_cookie_that_is_none_of_ours_draws_anew(bench):
    await bench.serve(*sides(50, sticky="side"))
    for wrong in ("side=99999", "side=x", "other=1", "side"):
        answer = await bench.get("/a/x", headers={"cookie": wrong})
        assert answer.headers["set-cookie"].startswith("side=")
        assert answer.headers["set-cookie"].endswith("Path=/a; HttpOnly; SameSite=Lax")
    assert "set-cookie" not in (await bench.get("/a/x", headers={"cookie": "x=1; side=12"})).headers


@run
async def test_a_canary_that_is_promoted_serves_everybody(bench):
    await bench.serve(*sides(10))
    await bench.serve(route(version="2", replicas=("a2",)), number=2)
    assert await versions(bench, 20) == ["2"] * 20


# Mirrors


class Copies:
    """What a mirror's target was asked."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.seen: list[dict[str, Any]] = []

    async def serve(self, percent: float = 100.0, prefix: str = "") -> None:
        original = changed(route("/a", "a"), mirror=Mirror("next", percent))
        await self.bench.serve(original, changed(route("/b", "next", replicas=("n1",)), prefix=prefix))
        target = next(one for one in self.bench.backends if one.route.deployment == "next")
        real = type(target).__call__

        async def noting(scope: Any, receive: Any, send: Any) -> None:
            body = (await receive())["body"]
            self.seen.append({"headers": dict(scope["headers"]), "path": scope["path"], "body": body})
            await real(target, scope, receive, send)

        mount = self.bench.app._builder._leading["s", "next"]
        mount.backend = noting
        self.target = target


@run
async def test_a_copy_has_all_of_the_request_and_a_mark(bench):
    copies = Copies(bench)
    await copies.serve()
    answer = await bench.client.post("/a/x", content=b"hello", headers={"x-own": "1"})
    assert answer.json()["deployment"] == "a"
    await bench.get("/a/y")
    await until(lambda: copies.seen)
    assert [(one["path"], one["body"]) for one in copies.seen] == [("/a/y", b"")]  # the fake app reads no body
    assert copies.seen[0]["headers"][b"x-serveconf-mirrored"] == b"1"
    assert (await bench.get("/-/routes")).json() == {"/a": "a"}


@run
async def test_a_copy_is_not_copied_again(bench):
    copies = Copies(bench)
    await copies.serve()
    assert (await bench.get("/a/x", headers={"x-serveconf-mirrored": "1"})).json()["deployment"] == "a"
    await asyncio.sleep(0.05)
    assert copies.seen == []


@run
async def test_a_share_of_the_requests_is_copied(bench):
    copies = Copies(bench)
    await copies.serve(percent=25)
    await versions(bench, 200)
    await until(lambda: len(copies.seen) >= 48)
    await asyncio.sleep(0.05)
    assert 48 <= len(copies.seen) <= 52


@run
async def test_a_mirror_that_hangs_takes_nothing_from_its_originals(bench):
    copies = Copies(bench)
    await copies.serve()
    copies.target.release.clear()

    async def hang(scope, receive, send):
        copies.seen.append({})
        await asyncio.Event().wait()

    bench.app._builder._leading["s", "next"].backend = hang
    assert await versions(bench, 200) == ["1"] * 200
    assert len(copies.seen) <= 64
    assert bench.app.edge.tally.refused["copy_dropped"] >= 136


@run
async def test_a_mirror_that_fails_takes_nothing_from_its_originals(bench):
    copies = Copies(bench)
    await copies.serve()

    async def fail(scope, receive, send):
        raise RuntimeError("broken")

    bench.app._builder._leading["s", "next"].backend = fail
    assert await versions(bench, 20) == ["1"] * 20

    def counted():
        found = bench.app.figures().deployments["s/next"].durations.get("GET", {})
        return {status: histogram.count for status, histogram in found.items()}

    await until(lambda: counted() == {500: 20})


@run
async def test_the_body_is_copied_as_the_app_reads_it_up_to_a_limit(bench):
    copies = Copies(bench)
    await copies.serve()
    original = bench.app._builder._leading["s", "a"]

    async def read(scope, receive, send):
        more = True
        while more:
            more = (await receive()).get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    original.backend = read
    for size in (0, 5, MOST_BODY_BYTES, MOST_BODY_BYTES + 1):
        assert (await bench.client.post("/a/x", content=b"x" * size)).status_code == 200

    async def pieces():
        for _ in range(3):
            yield b"ab"

    await bench.client.post("/a/x", content=pieces())
    await until(lambda: len(copies.seen) == 4)
    assert [len(one["body"]) for one in copies.seen] == [0, 5, MOST_BODY_BYTES, 6]
