"""Whatever happens to a request on the fast path: its client, its counters and its app see what they see without it."""

from __future__ import annotations

import asyncio
import gc
import re
import time

import pytest
from edge_server import get, post, read_body, respond
from test_proxy_to_replica import Stack

from serveconf.proxy import fast_path, protocol
from serveconf.proxy.exchange import Exchange

JSON = [(b"content-type", b"application/json")]


class Observed:
    """A stack whose replicas note what their app saw."""

    def __init__(self, stack):
        self.stack = stack
        self.seen = []
        self.run = stack.running.run

    def serve(self, app, *names):
        async def noting(scope, receive, send):
            seen = {key: scope[key] for key in ("method", "path", "root_path", "query_string")}
            self.seen.append(seen | {"headers": [field for field in scope["headers"] if field[0] != b"x-request-id"]})
            try:
                await app(scope, receive, send)
            except asyncio.CancelledError:
                self.seen.append("cancelled")
                raise

        for name in names:
            self.stack.start_replica(name, noting)
        self.stack.switch_to(*names)

    def connect(self):
        return self.stack.running.connect()

    async def _counted(self):
        figures = self.stack.app.figures()
        backend = next(iter(self.stack.app._live.mounts)).backend
        load = backend._load
        return {
            "durations": {
                (key, method, status): histogram.count
                for key, one in figures.deployments.items()
                for method, statuses in one.durations.items()
                for status, histogram in statuses.items()
            },
            "bytes": {key: (one.bytes_in, one.bytes_out) for key, one in figures.deployments.items()},
            "active": {key: (one.active, one.queued) for key, one in figures.deployments.items()},
            "refused": dict(figures.refused),
            "answers": {key: (one.given, one.failed) for key, one in self.stack.app.answers().items()},
            "backend": (backend.requests, backend.failed, backend.errors, backend.retried, backend.in_flight),
            "load": (load.arrivals, load.completions, load.ongoing, load.waiting),
            "replicas": [link.client.ongoing for link in backend.links if link.client is not None],
            "edge": (self.stack.app.edge.tally.failed, self.stack.app.edge.tally._waiting),
        }

    def counted(self):
        """What all is counted when nothing is under way any more."""
        end = time.monotonic() + 120
        while True:
            counted = self.run(self._counted())
            if not (counted["load"][2] or any(counted["replicas"])):
                return counted
            assert time.monotonic() < end, counted
            time.sleep(0.01)


def told(answer):
    """An answer without what differs from one to the next."""
    if answer is None:
        return None
    fields = [(name, value) for name, value in answer.fields if name not in ("date", "x-request-id")]
    return answer.status, fields, answer.body, answer.whole


async def echo(scope, receive, send):
    await respond(send, await read_body(receive) or b"", headers=JSON)


def ordinary_requests(world):
    world.serve(echo, "one")
    with world.connect() as client:
        yield told(client.ask(get("/app/a%20b?x=1", "Cookie: a=b\r\nTE: trailers\r\n")))
        yield told(client.ask(post("body", path="/app")))
        yield told(client.ask(get("/app", method="HEAD"), "HEAD"))
        yield told(client.ask(get("/app", "Content-Length: 2\r\n") + "hi"))
        yield told(client.ask(get("/app", "Transfer-Encoding: chunked\r\n", method="PUT") + "2\r\nhi\r\n0\r\n\r\n"))
        yield told(client.ask(get("/app", "X-Forwarded-For: 1.2.3.4\r\n")))
        yield told(client.ask(get("/nothing")))
        for size in (16_384, 32_768, 32_769, 65_536, 100_000):
            yield told(client.ask(post("x" * size, path="/app")))
        client.send(get("/app/1") + get("/app/2") + post("3", path="/app/3"))
        yield [told(client.answer()) for _ in range(3)]
        yield told(client.ask(get("/app", version="1.0"))), client.is_closed()


def answers_of_all_kinds(world):
    async def app(scope, receive, send):
        kind = scope["path"].rpartition("/")[2]
        if kind.isdigit():
            return await respond(send, b"" if kind in ("204", "304") else b"text", status=int(kind), headers=JSON)
        if kind == "large":
            return await respond(send, b"x" * 300_000)
        if kind == "large-and-more":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
            await asyncio.sleep(0.01)
            return await send({"type": "http.response.body", "body": b"end"})
        if kind == "large-and-cut":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
            raise RuntimeError("of the app")
        if kind == "large-and-trailers":
            await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
            await send({"type": "http.response.body", "body": b"x" * 100_000})
            return await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})
        if kind == "huge":
            return await respond(send, b"x" * 3_000_000)
        if kind == "pieces":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for piece in (b"a", b"b"):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                await asyncio.sleep(0.01)
            return await send({"type": "http.response.body", "body": b"end"})
        if kind == "trailers":
            await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
            await send({"type": "http.response.body", "body": b"body"})
            return await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})
        if kind == "raises":
            raise RuntimeError("of the app")
        if kind == "says-nothing":
            return None
        if kind == "half":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
            return await send({"type": "http.response.body", "body": b"half"})
        if kind == "slow":
            await asyncio.sleep(0.05)
        return await respond(send, kind.encode())

    world.serve(app, "one")
    for kind in (
        "200",
        "204",
        "304",
        "404",
        "500",
        "503",
        "large",
        "large-and-more",
        "large-and-cut",
        "large-and-trailers",
        "huge",
        "pieces",
        "trailers",
        "raises",
        "says-nothing",
        "half",
        "slow",
    ):
        with world.connect() as client:
            yield kind, told(client.ask(get(f"/app/{kind}", "TE: trailers\r\n"))), told(client.ask(get("/app/next")))


def what_cannot_be_written_is_a_500_or_cut(world):
    """The replica checks its answers too, so they are spoiled behind it."""
    world.serve(echo, "one")
    (link,) = next(iter(world.stack.app._live.mounts)).backend.links
    spoil = (
        {"headers": [(b"x", b"a\r\nb: c")]},
        {"headers": [(b"content-length", b"99")]},
        {"headers": [(b"not a name", b"")]},
    )
    for changes in spoil:
        received = link.client.frames_received

        def spoiled(frames, received=received, changes=changes):
            kept = list(frames)
            for frame in kept:
                for name, value in changes.items():
                    setattr(frame, name, value)
            received(iter(kept))

        link.client.frames_received = spoiled
        with world.connect() as client:
            yield told(client.ask(get("/app")))
        link.client.frames_received = received
    with world.connect() as client:
        yield told(client.ask(get("/app")))


def a_client_that_leaves(world):
    async def app(scope, receive, send):
        if scope["path"] == "/app/waits":
            await asyncio.sleep(60)
        await respond(send, b"ok")

    world.serve(app, "one")
    for request in (get("/app/waits"), post("body", path="/app/waits")):
        with world.connect() as client:
            client.send(request)
            wait_for(lambda: world.seen and world.seen[-1] != "cancelled")
        wait_for(lambda: world.seen[-1] == "cancelled")
    with world.connect() as client:
        yield told(client.ask(get("/app")))


def a_replica_that_is_full(world):
    """The proxy believes that there is room; the replica knows better, and takes the request when it has."""
    gate = asyncio.Event()

    async def app(scope, receive, send):
        body = await read_body(receive)
        await gate.wait()
        await respond(send, body or b"ok")

    world.serve(app, "one")
    world.stack.replicas["one"].max_ongoing = 1
    (mount,) = world.stack.app._live.mounts
    for second in (get("/app"), post("body", path="/app"), post("x" * 60_000, path="/app")):
        gate.clear()
        before, retried = len(world.seen), mount.backend.retried
        with world.connect() as client, world.connect() as other:
            client.send(get("/app"))
            wait_for(lambda before=before: len(world.seen) > before)
            other.send(second)
            wait_for(lambda retried=retried: mount.backend.retried > retried)
            world.stack.running.loop.call_soon_threadsafe(gate.set)
            yield told(client.answer()), told(other.answer())


def a_replica_that_dies(world):
    async def app(scope, receive, send):
        if not world.seen[:-1]:
            await asyncio.sleep(60)
        await respond(send, await read_body(receive) or b"ok")

    world.serve(app, "one")
    with world.connect() as client:
        client.send(post("body", path="/app"))
        wait_for(lambda: world.seen)
        world.run(world.stack.replicas["one"].close())
        yield told(client.answer())


def a_harmless_request_is_run_on_another_one(world):
    async def app(scope, receive, send):
        if not world.seen[:-1]:
            await asyncio.sleep(60)
        await respond(send, b"ok")

    world.serve(app, "one")
    world.stack.start_replica("two", app)
    with world.connect() as client:
        client.send(get("/app"))
        wait_for(lambda: world.seen)
        world.stack.switch_to("two")
        world.run(world.stack.replicas["one"].close())
        yield told(client.answer())


def an_end_that_does_not_wait(world):
    async def app(scope, receive, send):
        await asyncio.sleep(60)

    world.serve(app, "one")
    with world.connect() as client:
        client.send(get("/app"))
        wait_for(lambda: world.seen)
        world.run(abort_connections(world.stack.app.edge))
        yield told(client.answer()), client.is_closed()


async def abort_connections(edge):
    for connection in list(edge.connections):
        connection.abort()


def a_route_whose_time_to_finish_is_over(world):
    gate = asyncio.Event()

    async def app(scope, receive, send):
        await gate.wait()
        await respond(send, b"late")

    world.serve(app, "one")
    (mount,) = world.stack.app._live.mounts
    with world.connect() as client:
        client.send(get("/app"))
        wait_for(lambda: world.seen)
        mount._over = True
        world.stack.running.loop.call_soon_threadsafe(gate.set)
        yield told(client.answer()), client.is_closed()
    mount._over = False


def wait_for(holds):
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


SITUATIONS = [
    ordinary_requests,
    answers_of_all_kinds,
    what_cannot_be_written_is_a_500_or_cut,
    a_client_that_leaves,
    a_replica_that_is_full,
    a_replica_that_dies,
    a_harmless_request_is_run_on_another_one,
    an_end_that_does_not_wait,
    a_route_whose_time_to_finish_is_over,
]


@pytest.fixture
def live(tmp_path, monkeypatch):
    """``live(situation, fast)``: all that was told and counted."""
    taken = []
    begin = fast_path.FastPath.__init__

    def noting(self, *arguments):
        taken.append(id(self))
        begin(self, *arguments)

    monkeypatch.setattr(fast_path.FastPath, "__init__", noting)

    def run(situation, *, fast):
        taken.clear()
        folder = tmp_path / str(fast)
        folder.mkdir()
        stack = Stack(folder)
        try:
            if not fast:
                stack.app.edge.shortcut = None
                stack.app.edge.serve = lambda app: None
            world = Observed(stack)
            answers = list(situation(world))
            assert bool(taken) is fast
            return answers, world.seen, world.counted()
        finally:
            stack.stop()

    return run


@pytest.mark.parametrize("situation", SITUATIONS)
def test_it_is_as_without_the_fast_path(situation, live):
    with_it, without = live(situation, fast=True), live(situation, fast=False)
    for one, other in zip(with_it, without, strict=True):
        assert one == other


def test_no_coroutine_is_made_for_what_is_answered_at_once(live, monkeypatch):
    ran = []
    run_app = Exchange.run_app
    monkeypatch.setattr(Exchange, "run_app", lambda self, app: ran.append(self.scope["path"]) or run_app(self, app))

    monkeypatch.setattr(protocol, "HOLD_S", 60.0)

    def situation(world):
        world.serve(echo, "one", "two")
        with world.connect() as client:
            for _ in range(5):
                client.ask(get("/app"))
                client.ask(post("body", path="/app"))
                for size in (32_769, 65_536):
                    assert client.ask(post("x" * size, path="/app")).body == b"x" * size
            yield told(client.ask(get("/-/healthz")))

    live(situation, fast=True)
    assert ran == ["/-/healthz"]


def test_nothing_of_a_request_waits_for_the_garbage_collector(live):
    """Neither on the fast path nor where it had to go on as others do."""

    async def app(scope, receive, send):
        if scope["path"] == "/app/large":
            await respond(send, b"x" * 300_000)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/app/pieces":
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b"end"})

    def situation(world):
        world.serve(app, "one")
        gc.collect()
        gc.disable()
        try:
            with world.connect() as client:
                for path in ("/app", "/app/pieces", "/app/large", "/app/large"):
                    yield told(client.ask(get(path)))
            world.counted()
            yield [kept for kept in gc.get_objects() if isinstance(kept, fast_path.FastPath | Exchange)]
        finally:
            gc.enable()

    answers, _, _ = live(situation, fast=True)
    assert answers[-1] == []


def test_a_client_that_takes_nothing_holds_up_its_answer(live):
    """While the client's buffer is full nothing is written on top of it, on the fast path as elsewhere."""

    def situation(world):
        async def app(scope, receive, send):
            await respond(send, b"y" * 30_000)

        world.serve(app, "one")
        with world.connect() as client:
            client.send(get("/app") * 15)
            wait_for(lambda: len(world.seen) >= 2)
            yield [told(client.answer()) for _ in range(15)]

    with_it, without = live(situation, fast=True), live(situation, fast=False)
    assert with_it == without
    assert re.fullmatch(b"y{30000}", with_it[0][0][-1][2])
