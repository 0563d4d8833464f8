"""Generations: staged, committed, aborted; what a request keeps, what is reused, when replicas are free."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from msgspec.structs import replace
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from serveconf.errors import CodeFailed, InternalError, OperatorError
from serveconf.proxy.app import ProxyApp
from serveconf.routing import Front, Generation, Middleware, ReplicaAddress, Route, as_match


class FakePool:
    """Notes what is opened and released; refuses a replica called ``bad``."""

    def __init__(self):
        self.opened = set()
        self.released = []
        self.leaders = {}

    async def open(self, addresses):
        ids = {address.id for address in addresses}
        if "bad" in ids:
            raise OperatorError("replica bad does not answer")
        self.opened |= ids

    def lead(self, leaders, former=None, generation=0):
        self.leaders = dict(leaders)

    def release(self, ids):
        self.released += ids
        self.opened -= set(ids)


class FakeBackend:
    """Answers with its deployment, its version and what it sees; ``/wait`` waits for ``release``."""

    def __init__(self, route):
        self.route = route
        self.release = asyncio.Event()
        self.waiting = asyncio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        if scope["path"].endswith("/wait"):
            self.waiting.set()
            await self.release.wait()
        seen = {
            "deployment": self.route.deployment,
            "version": self.route.version,
            "root_path": scope["root_path"],
            "path": scope["path"],
            "raw_path": scope["raw_path"].decode(),
            "keys": sorted(key for key in scope if key.startswith("serveconf")),
        }
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(seen).encode()})


TAGS_MADE = []


class Tag:
    """A middleware that adds a word to the ``x-tags`` of an answer."""

    def __init__(self, app, word):
        self.app = app
        self.word = word
        TAGS_MADE.append(word)

    async def __call__(self, scope, receive, send):
        async def tagging(message):
            if message["type"].endswith("response.start"):
                message = {**message, "headers": [*message["headers"], (b"x-tags", self.word.encode())]}
            await send(message)

        await self.app(scope, receive, tagging)


CLASSES = {"tag:Tag": Tag, "cors:CORS": CORSMiddleware, "gzip:GZip": GZipMiddleware}


def import_fake(middleware):
    if middleware.import_path not in CLASSES:
        raise CodeFailed(f"middleware {middleware.import_path} cannot be imported")
    return CLASSES[middleware.import_path], middleware.args, middleware.kwargs


def tag(word):
    return Middleware("tag:Tag", (word,))


def replica(name):
    return ReplicaAddress(id=name, node_id="n", uds=f"/tmp/{name}")


def route(prefix="/a", deployment="a", version="1", replicas=("a1",), middlewares=(), grace_s=20.0, **match):
    return Route(
        prefix=prefix,
        stack="s",
        deployment=deployment,
        version=version,
        replicas=tuple(map(replica, replicas)),
        middlewares=middlewares,
        graceful_shutdown_timeout_s=grace_s,
        match=as_match(match),
    )


class Bench:
    """A ProxyApp on fakes, and a client of it."""

    def __init__(self):
        self.pool = FakePool()
        self.backends = []

        def make_backend(of):
            self.backends.append(FakeBackend(of))
            return self.backends[-1]

        self.app = ProxyApp(pool=self.pool, backend_factory=make_backend, import_middleware=import_fake)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self._as_asgi), base_url="http://test")

    async def _as_asgi(self, scope, receive, send):
        await self.app(scope, receive, send)

    async def serve(self, *routes, number=1, **front):
        await self.app.stage(Generation(number=number, front=Front(**front), routes=routes))
        self.app.commit(number)

    async def until_over(self, backend):
        """Until the time of every mount of this backend is over."""
        while not all(mount.over for mount in self.app._builder._mounts if mount.backend is backend):
            await asyncio.sleep(0.005)

    async def get(self, path, **options):
        return await self.client.get(path, **options)

    async def ask_websocket(self, path, extensions):
        sent = []

        async def receive():
            return {"type": "websocket.connect"}

        async def send(message):
            sent.append(message)

        scope = {"type": "websocket", "path": path, "raw_path": path.encode(), "root_path": "", "headers": []}
        await self.app({**scope, "extensions": extensions}, receive, send)
        return sent


def run(test):
    """Each test runs in a loop of its own."""

    def runner():
        async def main():
            await test(Bench())

        asyncio.run(main())

    runner.__name__ = test.__name__
    return runner


# Routing


@run
async def test_longest_prefix_answers_and_the_app_sees_the_whole_path_below_its_root_path(bench):
    await bench.serve(route("/a", "a"), route("/a/b", "b"), route("/", "root"))
    for path, deployment, root_path in [
        ("/a/x", "a", "/a"),
        ("/a/b", "b", "/a/b"),
        ("/ab", "root", ""),
        ("/", "root", ""),
    ]:
        seen = (await bench.get(path)).json()
        assert (seen["deployment"], seen["root_path"], seen["path"]) == (deployment, root_path, path)
        assert seen["keys"] == []


@run
async def test_hosts_methods_headers_and_query_decide_beside_the_prefix(bench):
    await bench.serve(
        route("/a", "any"),
        route("/a", "host", hosts=["*.example"]),
        route("/a", "beta", headers={"x-beta": "1"}),
        route("/a", "v2", query={"v": "2"}),
        route("/b", "b", methods=["POST"]),
    )
    for headers, query, deployment in [
        ({}, "", "any"),
        ({"host": "a.example:80"}, "?v=2", "host"),
        ({"x-beta": "1"}, "?v=2", "beta"),
        ({}, "?v=2", "v2"),
    ]:
        seen = (await bench.get(f"/a/x{query}", headers=headers)).json()
        assert (seen["deployment"], seen["root_path"], seen["path"]) == (deployment, "/a", "/a/x")
    assert (await bench.get("/-/healthz", headers={"host": "a.example"})).text == "success"
    routes = (await bench.get("/-/routes")).json()
    assert routes == {"/a": "any", "*.example/a": "host", "/a x-beta: 1": "beta", "/a ?v=2": "v2", "/b POST": "b"}


@run
async def test_method_that_no_rule_takes_gets_405_and_hears_which_are_taken(bench):
    await bench.serve(route("/a", "a", methods=["GET", "PUT"]), route("/b", "b", methods=["GET"]))
    answer = await bench.client.post("/a/x")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, PUT")
    assert (await bench.client.post("/c")).status_code == 404
    assert (await bench.client.head("/b")).status_code == 200


@run
async def test_root_path_of_the_front_is_found_in_the_path_again(bench):
    await bench.serve(route("/a", "a"), root_path="/api")
    seen = (await bench.get("/a/%C3%A4")).json()
    assert (seen["root_path"], seen["path"], seen["raw_path"]) == ("/api/a", "/api/a/ä", "/api/a/%C3%A4")
    assert (await bench.get("/-/healthz")).text == "success"


@run
async def test_path_without_a_route_gets_404_as_text_that_names_it(bench):
    await bench.serve(route("/a"))
    for path in ["/ab", "/", "/-", "/-/nothing"]:
        answer = await bench.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/plain")
        assert path in answer.text


@run
async def test_websocket_without_a_route_is_refused_with_404_where_the_server_can(bench):
    await bench.serve(route("/a"))
    start, _ = await bench.ask_websocket("/b", {"websocket.http.response": {}})
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 404)
    (close,) = await bench.ask_websocket("/b", {})
    assert close["type"] == "websocket.close"
    assert [message["type"] for message in await bench.ask_websocket("/a", {})] == ["websocket.accept"]


@run
async def test_health_says_what_is_missing(bench):
    answer = await bench.get("/-/healthz")
    assert (answer.status_code, answer.text) == (503, "no generation yet")
    early = await bench.get("/a")
    assert (early.status_code, early.headers["retry-after"]) == (503, "1")
    await bench.serve()
    assert (await bench.get("/-/healthz")).text == "success"
    bench.app.edge.draining = True
    answer = await bench.get("/-/healthz")
    assert (answer.status_code, answer.text) == (503, "draining")


@run
async def test_routes_are_listed_by_prefix(bench):
    await bench.serve(route("/a", "a"), route("/", "b"))
    assert (await bench.get("/-/routes")).json() == {"/a": "a", "/": "b"}


# Middlewares


@run
async def test_first_middleware_is_the_outermost_and_a_routes_own_are_inside(bench):
    front = (tag("one"), tag("two"))
    await bench.serve(route("/a", middlewares=(tag("three"), tag("four"))), middlewares=front)
    answer = await bench.get("/a")
    assert answer.headers.get_list("x-tags") == ["four", "three", "two", "one"]
    assert answer.json()["keys"] == []


@run
async def test_front_middlewares_cover_404_and_system_endpoints_and_preflight(bench):
    cors = Middleware("cors:CORS", (), {"allow_origins": ["*"], "allow_methods": ["*"]})
    await bench.serve(route("/a"), middlewares=(tag("out"), cors))
    for path in ["/none", "/-/healthz", "/-/routes", "/a"]:
        assert (await bench.get(path)).headers["x-tags"] == "out"
    asked = {"origin": "http://x", "access-control-request-method": "PUT"}
    preflight = await bench.client.options("/none", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "*"


@run
async def test_starlette_middleware_around_a_route_works_on_its_answers(bench):
    await bench.serve(route("/a", middlewares=(Middleware("gzip:GZip", (), {"minimum_size": 1}),)))
    answer = await bench.get("/a/x", headers={"accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json()["path"] == "/a/x"


@run
async def test_middlewares_change_live_and_unchanged_ones_are_not_built_again(bench):
    await bench.serve(route("/a", middlewares=(tag("mine"),)), middlewares=(tag("front"),))
    TAGS_MADE.clear()
    changed = route("/a", version="2", replicas=("a2",), middlewares=(tag("mine"),))
    await bench.serve(changed, middlewares=(tag("front"),), number=2)
    assert TAGS_MADE == []
    assert (await bench.get("/a")).json()["version"] == "2"
    await bench.serve(changed, number=3)
    assert (await bench.get("/a")).headers.get_list("x-tags") == ["mine"]


@run
async def test_middleware_that_cannot_be_imported_or_built_changes_nothing(bench):
    await bench.serve(route("/a", version="1"))
    wrong = [Middleware("no:where"), Middleware("tag:Tag", (), {"unknown": 1})]
    for number, middleware in enumerate(wrong, start=2):
        for generation in (
            Generation(number=number, routes=(route("/a", version="2", replicas=("new",), middlewares=(middleware,)),)),
            Generation(number=number, front=Front(middlewares=(middleware,)), routes=(route("/a", version="2"),)),
        ):
            with pytest.raises(CodeFailed):
                await bench.app.stage(generation)
            with pytest.raises(InternalError):
                bench.app.commit(number)
    assert (await bench.get("/a")).json()["version"] == "1"
    assert bench.pool.opened == {"a1"}


# Generations


@run
async def test_staged_generation_serves_nothing_until_it_is_committed(bench):
    await bench.serve(route(version="1"))
    await bench.app.stage(Generation(number=2, routes=(route(version="2", replicas=("a2",)),)))
    assert (await bench.get("/a")).json()["version"] == "1"
    assert bench.pool.opened == {"a1", "a2"}
    bench.app.commit(2)
    assert (await bench.get("/a")).json()["version"] == "2"
    assert bench.pool.opened == {"a2"}
    assert bench.app.generation == 2


@run
async def test_aborted_generation_leaves_no_connection_behind(bench):
    await bench.serve(route(replicas=("a1",)))
    await bench.app.stage(
        Generation(number=2, routes=(route(replicas=("a1", "a2")), route("/b", "b", replicas=("b1",))))
    )
    bench.app.abort(2)
    bench.app.abort(2)
    assert bench.pool.opened == {"a1"}
    with pytest.raises(InternalError):
        bench.app.commit(2)


@run
async def test_unreachable_replica_fails_the_stage_and_changes_nothing(bench):
    await bench.serve(route(replicas=("a1",)))
    with pytest.raises(OperatorError):
        await bench.app.stage(Generation(number=2, routes=(route(replicas=("a1", "bad")), route("/b", "b"))))
    assert "a1" not in bench.pool.released
    assert (await bench.get("/a")).status_code == 200


@run
async def test_a_generation_whose_middleware_takes_its_time_holds_up_no_other(bench):
    await bench.serve(route("/a", version="1"))
    opened, slow = bench.pool.open, asyncio.Event()

    async def open_pool(addresses):
        addresses = list(addresses)
        if any(address.id == "slow" for address in addresses):
            await slow.wait()
        await opened(addresses)

    bench.pool.open = open_pool
    hangs = asyncio.create_task(
        bench.app.stage(Generation(number=2, routes=(route("/a", version="1"), route("/b", "b", replicas=("slow",)))))
    )
    await asyncio.sleep(0)
    await bench.serve(route("/a", version="2", replicas=("a2",)), number=3)
    assert (await bench.get("/a")).json()["version"] == "2"
    slow.set()
    await hangs
    bench.app.commit(2)  # older than what is live: nothing happens, and nothing of it is left
    assert bench.app.generation == 3
    assert bench.pool.opened == {"a2"}


@run
async def test_two_generations_built_side_by_side_share_what_is_the_same(bench):
    both = [Generation(number=n, routes=(route("/a", middlewares=(tag("one"),)),)) for n in (1, 2)]
    await asyncio.gather(*(bench.app.stage(generation) for generation in both))
    bench.app.commit(1)
    await bench.get("/a")
    bench.app.commit(2)
    assert (await bench.get("/a")).status_code == 200
    assert bench.pool.opened == {"a1"}


@run
async def test_staging_is_repeatable_and_never_goes_back(bench):
    generation = Generation(number=1, routes=(route(),))
    await bench.app.stage(generation)
    await bench.app.stage(generation)
    bench.app.commit(1)
    await bench.app.stage(generation)
    bench.app.commit(1)
    assert bench.pool.opened == {"a1"}
    await bench.serve(route(version="2"), number=5)
    with pytest.raises(InternalError, match="older"):
        await bench.app.stage(Generation(number=4))


@run
async def test_unchanged_route_keeps_its_backend(bench):
    await bench.serve(route("/a"), route("/b", "b", replicas=("b1",)))
    kept = bench.backends[0]
    await bench.serve(route("/a"), route("/b", "b", version="2", replicas=("b2",)), number=2)
    assert [backend.route.deployment for backend in bench.backends] == ["a", "b", "b"]
    assert bench.backends[0] is kept
    assert bench.pool.released == ["b1"]


@run
async def test_request_stays_with_its_replica_which_is_free_when_it_has_ended(bench):
    await bench.serve(route(version="1", replicas=("a1",)), route("/b", "b", replicas=("b1",)))
    asked = asyncio.create_task(bench.get("/a/wait"))
    kept_open = asyncio.create_task(bench.get("/b/wait"))
    await bench.backends[0].waiting.wait()
    await bench.backends[1].waiting.wait()
    await bench.serve(route(version="2", replicas=("a2",)), route("/b", "b", replicas=("b1",)), number=2)
    await bench.serve(route(version="3", replicas=("a3",)), route("/b", "b", replicas=("b1",)), number=3)
    assert bench.pool.released == ["a2"]
    bench.backends[0].release.set()
    assert (await asked).json()["version"] == "1"
    assert bench.pool.released == ["a2", "a1"]
    bench.backends[1].release.set()
    await kept_open


@run
async def test_replica_that_both_generations_name_is_never_released(bench):
    await bench.serve(route(version="1", replicas=("a1", "a2")))
    await bench.serve(route(version="1", replicas=("a1", "a2", "a3")), number=2)
    await bench.serve(route(version="1", replicas=("a2",)), number=3)
    assert bench.pool.released == ["a1", "a3"]


@run
async def test_request_that_leaves_slow_front_middlewares_late_is_routed_by_the_table_of_that_moment(bench):
    entered, go = asyncio.Event(), asyncio.Event()

    class Slow:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            entered.set()
            await go.wait()
            await self.app(scope, receive, send)

    CLASSES["slow:Slow"] = Slow
    front = (Middleware("slow:Slow"),)
    await bench.serve(route(version="1"), middlewares=front)
    asked = asyncio.create_task(bench.get("/a"))
    await entered.wait()
    await bench.serve(route(version="2", replicas=("a2",)), middlewares=front, number=2)
    go.set()
    assert (await asked).json()["version"] == "2"


@run
async def test_front_settings_hold_from_the_commit_on(bench):
    await bench.serve(keep_alive_timeout_s=3.0, max_request_body_bytes=7)
    assert (bench.app.edge.idle_timeout_s, bench.app.edge.front.max_request_body_bytes) == (3.0, 7)


@run
async def test_receipt_has_the_retries_of_backends_that_are_gone_too(bench):
    await bench.serve(route(version="1"))
    bench.backends[0].retried = 3
    bench.app.start_receipt("op")
    bench.backends[0].retried = 5
    await bench.serve(route(version="2", replicas=("a2",)), number=2)
    bench.backends[1].retried = 1
    assert bench.app.receipt("op").retried == 3


@run
async def test_requests_that_wait_in_an_old_generation_find_the_newest_backend(bench):
    await bench.serve(route(version="1"))
    assert bench.pool.leaders == {("s", "a", False): bench.backends[0], ("s", "a", True): bench.backends[0]}
    await bench.serve(route(version="2", replicas=("a2",)), number=2)
    assert bench.pool.leaders == {("s", "a", False): bench.backends[1], ("s", "a", True): bench.backends[1]}
    await bench.serve(number=3)
    assert bench.pool.leaders == {}


@run
async def test_a_route_that_comes_back_after_its_time_is_served_afresh(bench):
    """What ran in the old mount is cut; nothing new may be."""
    brief = {"grace_s": 0.01}
    await bench.serve(route(version="1", **brief))
    slow = asyncio.create_task(bench.get("/a/wait"))
    await bench.backends[0].waiting.wait()
    await bench.serve(number=2)
    await bench.until_over(bench.backends[0])
    await bench.serve(route(version="1", **brief), number=3)
    assert len(bench.backends) == 2
    assert (await bench.get("/a")).status_code == 200
    bench.backends[0].release.set()
    await asyncio.gather(slow, return_exceptions=True)


@run
async def test_a_route_that_comes_back_in_time_has_its_whole_time_again(bench):
    brief = {"grace_s": 0.1}
    await bench.serve(route(version="1", **brief))
    slow = asyncio.create_task(bench.get("/a/wait"))
    await bench.backends[0].waiting.wait()
    await bench.app.stage(Generation(number=2))
    await bench.app.stage(Generation(number=3, routes=(route(version="1", **brief),)))
    bench.app.commit(2)
    bench.app.commit(3)  # in the same turn: however busy the machine is, it comes back in time
    assert len(bench.backends) == 1
    await asyncio.sleep(0.15)
    bench.backends[0].release.set()
    assert (await slow).status_code == 200


@run
async def test_what_runs_on_a_replica_that_stays_is_not_cut_however_many_others_come_and_go(bench):
    def brief(*replicas):
        return route(grace_s=0.02, replicas=replicas)

    await bench.serve(brief("a1", "a2"))
    slow = asyncio.create_task(bench.get("/a/wait"))
    await bench.backends[0].waiting.wait()
    for number, replicas in enumerate((("a1",), ("a1", "a3"), ("a1",), ("a1", "a2"), ("a1", "a4")), 2):
        await bench.serve(brief(*replicas), number=number)
        assert bench.pool.opened == set(replicas)  # whoever goes is let go of at once
    await asyncio.sleep(0.05)
    assert len(bench.backends) == 6  # none comes back that has let go of a replica
    bench.backends[0].release.set()
    assert (await slow).status_code == 200
    await bench.serve(number=7)
    assert bench.pool.opened == set()


def renamed(of, name, *former):
    return replace(of, deployment=name, formerly=former)


@run
async def test_what_runs_under_a_former_name_has_all_the_time_it_wants_however_many_generations_come(bench):
    brief = route(grace_s=0.02)
    await bench.serve(brief)
    slow = asyncio.create_task(bench.get("/a/wait"))
    await bench.backends[0].waiting.wait()
    new = renamed(brief, "new", "a")
    await bench.serve(new, number=2)
    assert (await bench.get("/a")).json()["deployment"] == "new"
    await bench.serve(new, route("/b", "b"), number=3)
    await bench.serve(renamed(brief, "newest", "new", "a"), number=4)
    await asyncio.sleep(0.05)
    bench.backends[0].release.set()
    assert (await slow).status_code == 200


@run
async def test_what_runs_under_a_former_name_ends_with_the_version_that_it_runs_on(bench):
    brief = route(grace_s=0.02)
    await bench.serve(brief)
    slow = asyncio.create_task(bench.get("/a/wait"))
    await bench.backends[0].waiting.wait()
    await bench.serve(renamed(brief, "new", "a"), number=2)
    await bench.serve(replace(renamed(brief, "new", "a"), version="2", replicas=(replica("a2"),)), number=3)
    assert "a1" in bench.pool.opened
    await bench.until_over(bench.backends[0])
    bench.backends[0].release.set()
    await asyncio.gather(slow, return_exceptions=True)
    assert "a1" not in bench.pool.opened


@run
async def test_a_renamed_route_keeps_its_middlewares_and_its_replicas(bench):
    TAGS_MADE.clear()
    first = route(middlewares=(tag("once"),))
    await bench.serve(first)
    await bench.serve(renamed(first, "new", "a"), number=2)
    answer = await bench.get("/a")
    assert (answer.json()["deployment"], answer.headers["x-tags"]) == ("new", "once")
    assert (TAGS_MADE, bench.pool.released) == (["once"], [])


@run
async def test_a_generation_staged_with_a_new_name_and_taken_back_leaves_the_old_one_as_it_was(bench):
    first = route()
    await bench.serve(first)
    await bench.app.stage(Generation(number=2, routes=(renamed(first, "new", "a"),)))
    bench.app.abort(2)
    assert (await bench.get("/a")).json()["deployment"] == "a"
    assert bench.pool.released == []


@run
async def test_a_generation_that_is_staged_twice_at_once_keeps_its_mounts(bench):
    """The controller may give up on an answer and ask again while the first build still runs."""
    gates, opened = [], bench.pool.open

    async def slow(addresses):
        gates.append(asyncio.Event())
        await gates[-1].wait()
        await opened(addresses)

    bench.pool.open = slow
    generation = Generation(number=1, routes=(route(),))
    both = [asyncio.create_task(bench.app.stage(generation)) for _ in range(2)]
    for _ in range(20):
        await asyncio.sleep(0)
        for gate in reversed(gates):
            gate.set()
    await asyncio.gather(*both)
    bench.app.commit(1)
    assert (await bench.get("/a")).status_code == 200
    assert bench.pool.opened == {"a1"}
