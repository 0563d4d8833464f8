"""Choosing a replica, waiting for one, trying again, giving up: the promises of the contract's HTTP section."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from dispatch_harness import Node, Request, answer, in_loop, node, read_all, scope, until

from serveconf.proxy.app import ProxyApp
from serveconf.proxy.dispatch import Backend, ResponseCut
from serveconf.proxy.incoming import Incoming
from serveconf.proxy.pool import ReplicaUnreachable
from serveconf.routing import Generation, ReplicaAddress, Route


class Gate:
    """An app whose requests wait until they are let go; it notes what it was asked."""

    def __init__(self, name: str = "") -> None:
        self.name = name.encode()
        self.go = asyncio.Event()
        self.paths: list[str] = []
        self.cancelled: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(scope["path"])
            raise
        await answer(send, self.name)


@in_loop
async def test_requests_go_to_the_less_loaded_of_two() -> None:
    async with node() as n:
        gates = [Gate("a"), Gate("b")]
        backend = await n.backend(*[await n.start(name, gate) for name, gate in zip("ab", gates, strict=True)])
        requests = [Request(backend) for _ in range(10)]
        await until(lambda: sum(len(gate.paths) for gate in gates) == 10)
        assert [len(gate.paths) for gate in gates] == [5, 5]
        for gate in gates:
            gate.go.set()
        assert [await r.status() for r in requests] == [200] * 10
        assert (backend.requests, backend.failed, backend.retried, backend.in_flight) == (10, 0, 0, 0)


@in_loop
async def test_past_max_ongoing_requests_wait_in_order_and_past_the_queue_they_get_503() -> None:
    async with node() as n:
        gate = Gate()
        backend = await n.backend(
            await n.start("a", gate, max_ongoing=1), max_ongoing_requests=1, max_queued_requests=2
        )
        requests = [Request(backend, path=f"/{i}") for i in range(3)]
        await until(lambda: gate.paths == ["/0"] and backend.queued == 2)
        refused = Request(backend, path="/3")
        assert await refused.status() == 503
        assert (b"retry-after", b"1") in refused.got[0]["headers"]
        gate.go.set()
        assert [await r.status() for r in requests] == [200] * 3
        assert gate.paths == ["/0", "/1", "/2"]
        assert backend.failed == 1 and backend.queued == 0


@in_loop
async def test_a_queued_request_whose_client_left_never_reaches_a_replica() -> None:
    async with node() as n:
        gate = Gate()
        backend = await n.backend(await n.start("a", gate), max_ongoing_requests=1)
        first, second, third = (Request(backend, path=f"/{i}") for i in range(3))
        await until(lambda: backend.queued == 2)
        second.leave()
        await second.task
        assert second.got == [] and backend.queued == 1
        gate.go.set()
        assert await first.status() == 200 and await third.status() == 200
        assert gate.paths == ["/0", "/2"]


@in_loop
async def test_a_queued_requests_body_arrives_whole() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await answer(send, await read_all(receive))

    async with node() as n:
        backend = await n.backend(await n.start("a", app), max_ongoing_requests=1)
        first = Request(backend)
        pieces = [{"type": "http.request", "body": bytes([65 + i]) * 1000, "more_body": i < 9} for i in range(10)]
        second = Request(backend, *pieces[:5], method="POST", headers=[(b"content-length", b"10000")])
        await until(lambda: backend.queued == 1 and second.pulled == 5)
        for piece in pieces[5:]:
            second.to_send.put_nowait(piece)
        go.set()
        assert await first.status() == 200 and await second.status() == 200
        assert second.body == b"".join(piece["body"] for piece in pieces)


@in_loop
async def test_a_stream_that_another_proxy_left_no_room_for_is_tried_elsewhere_with_its_body() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, await read_all(receive))

    async with node() as n, node() as other:
        full = Gate()
        a, b = await n.start("a", full, max_ongoing=1), await n.start("b", echo)
        other.pool.secret = n.pool.secret
        theirs = await other.backend(a)
        taken = Request(theirs)
        await until(lambda: len(full.paths) == 1)
        backend = await n.backend(a, b)
        body = b"x" * 200_000
        for _ in range(8):
            request = Request(backend, {"type": "http.request", "body": body, "more_body": False}, method="POST")
            assert await request.status() == 200 and request.body == body
        assert len(full.paths) == 1 and backend.failed == 0
        full.go.set()
        await taken.task


@in_loop
async def test_a_refused_request_waits_until_the_replica_says_that_there_is_room() -> None:
    async with node() as n, node() as other:
        gate = Gate()
        a = await n.start("a", gate, max_ongoing=1)
        theirs, ours = await other.backend(a), await n.backend(a)
        first = Request(theirs, path="/theirs")
        await until(lambda: gate.paths == ["/theirs"])
        second = Request(ours, path="/ours")
        await until(lambda: ours.queued == 1)
        gate.go.set()
        assert await first.status() == 200 and await second.status() == 200
        assert gate.paths == ["/theirs", "/ours"]


async def dies(n: Node, name: str, after: str = "") -> ReplicaAddress:
    """A replica that drops every connection when it is asked; ``after``: what it does first."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if after == "head":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
            await asyncio.sleep(0)
        for connection in list(n.servers[name]._connections):
            connection.flush()
            connection.abort()
        await asyncio.sleep(3600)

    return await n.start(name, app)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@in_loop
async def test_a_harmless_request_whose_replica_died_is_run_on_another_one(method: str) -> None:
    async with node() as n:
        gate = Gate("b")
        gate.go.set()
        backend = await n.backend(await dies(n, "a"), await n.start("b", gate))
        while not backend.retried:  # which one is asked first is chance
            assert await Request(backend, method=method).status() == 200
        assert backend.failed == 0


@in_loop
async def test_any_other_request_whose_replica_died_gets_502_and_is_not_repeated() -> None:
    async with node() as n:
        gate = Gate()
        backend = await n.backend(await dies(n, "a"))
        backend.links.append(n.pool.link(await n.start("b", gate)))
        assert await Request(backend, method="POST").status() == 502
        assert gate.paths == [] and (backend.failed, backend.retried) == (1, 0)


@in_loop
async def test_an_answer_that_began_is_cut_when_its_replica_dies() -> None:
    async with node() as n:
        backend = await n.backend(await dies(n, "a", after="head"))
        request = Request(backend)
        with pytest.raises(ResponseCut):
            await request.task
        assert request.body == b"part" and request.got[-1]["more_body"] is True
        assert backend.failed == 1


@in_loop
async def test_a_dead_connection_is_made_again() -> None:
    async with node() as n:
        gate = Gate()
        gate.go.set()
        backend = await n.backend(await n.start("a", gate))
        for connection in list(n.servers["a"]._connections):
            connection.abort()
        assert await Request(backend).status() == 200
        await until(lambda: backend.links[0].client is not None)
        assert await Request(backend, method="POST").status() == 200


@in_loop
async def test_past_its_time_a_request_gets_504_and_its_handler_is_cancelled() -> None:
    async with node() as n:
        gate = Gate()
        backend = await n.backend(await n.start("a", gate), request_timeout_s=0.5)
        request = Request(backend, path="/slow")
        assert await request.status() == 504
        await until(lambda: gate.cancelled == ["/slow"])
        await until(lambda: n.servers["a"].ongoing == 0 and backend.links[0].client.ongoing == 0)  # type: ignore[union-attr]
        assert backend.failed == 1


@in_loop
async def test_the_time_in_the_queue_counts() -> None:
    async with node() as n:
        gate = Gate()
        backend = await n.backend(await n.start("a", gate), max_ongoing_requests=1, request_timeout_s=0.05)
        requests = [Request(backend), Request(backend, path="/queued")]
        assert [await r.status() for r in requests] == [504, 504]
        assert "/queued" not in gate.cancelled and backend.queued == 0


@in_loop
async def test_past_its_time_an_answer_that_began_is_cut() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(3600)

    async with node() as n:
        request = Request(await n.backend(await n.start("a", app), request_timeout_s=1.0))
        with pytest.raises(ResponseCut):
            await request.task


@in_loop
async def test_an_accepted_websocket_has_no_deadline() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.sleep(1.2)
        await send({"type": "websocket.close", "code": 3000})

    async with node() as n:
        backend = await n.backend(await n.start("a", app), request_timeout_s=1.0)
        request = Request(backend, {"type": "websocket.connect"}, kind="websocket")
        await request.task
        assert request.got[-1] == {"type": "websocket.close", "code": 3000, "reason": ""}


@in_loop
async def test_what_a_websocket_sends_is_not_kept() -> None:
    async def messages() -> dict[str, Any]:
        return {"type": "websocket.receive", "text": "x"}

    incoming = Incoming(messages)
    for _ in range(10):
        await incoming()
    assert incoming.rewind() is False


@in_loop
async def test_a_body_is_kept_until_it_is_too_large() -> None:
    pieces = iter([bytes(600_000), b"end", bytes(600_000)])

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": next(pieces), "more_body": True}

    incoming = Incoming(receive)
    await incoming()
    await incoming()
    assert incoming.rewind() is True
    assert [len((await incoming())["body"]) for _ in range(3)] == [600_000, 3, 600_000]
    assert incoming.rewind() is False


@in_loop
async def test_with_no_replica_left_a_request_goes_to_the_newest_generation() -> None:
    async with node() as n:
        old, new = Gate("old"), Gate("new")
        new.go.set()
        before = await n.backend(await n.start("a", old), max_ongoing_requests=1)
        running, waiting = Request(before), Request(before)
        await until(lambda: before.queued == 1)
        after = await n.backend(await n.start("b", new))
        n.pool.lead({("s", "d"): after})
        n.pool.release(["a"])
        assert await waiting.status() == 200 and waiting.body == b"new"
        old.go.set()
        assert await running.status() == 200 and running.body == b"old"
        assert await n.servers["a"].drain(10) is True


@in_loop
async def test_a_new_replica_relieves_the_line_that_it_was_started_for() -> None:
    async with node() as n:
        busy, new = Gate("busy"), Gate("new")
        new.go.set()
        a = await n.start("a", busy)
        before = await n.backend(a, max_ongoing_requests=1)
        running, *waiting = [Request(before) for _ in range(5)]
        await until(lambda: before.queued == 4)
        after = await n.backend(a, await n.start("b", new), max_ongoing_requests=1)
        n.pool.lead({("s", "d"): after})
        assert [await r.status() for r in waiting] == [200] * 4
        assert [r.body for r in waiting] == [b"new"] * 4 and len(busy.paths) == 1
        busy.go.set()
        assert await running.status() == 200 and before.queued == 0


@in_loop
async def test_those_who_wait_in_an_older_generation_come_before_those_of_the_new_one() -> None:
    async with node() as n:
        gate = Gate()
        a = await n.start("a", gate)
        before = await n.backend(a, max_ongoing_requests=1)
        old = [Request(before, path=f"/old{i}") for i in range(3)]
        await until(lambda: before.queued == 2)
        after = await n.backend(a, max_ongoing_requests=1, max_queued_requests=3)
        n.pool.lead({("s", "d"): after})
        new = Request(after, path="/new")
        await until(lambda: after.queued == 1)
        assert await Request(after, path="/too-many").status() == 503
        gate.go.set()
        assert [await r.status() for r in (*old, new)] == [200] * 4
        assert gate.paths == ["/old0", "/old1", "/old2", "/new"]


@in_loop
async def test_a_request_waits_for_the_first_replica() -> None:
    async with node() as n:
        none, gate = await n.backend(), Gate("first")
        gate.go.set()
        waiting = Request(none)
        await until(lambda: none.queued == 1)
        n.pool.lead({("s", "d"): await n.backend(await n.start("a", gate))})
        assert await waiting.status() == 200 and waiting.body == b"first"


@in_loop
async def test_with_no_replica_at_all_a_request_waits_as_long_as_one_may_take_and_then_gets_503() -> None:
    async with node() as n:
        request = Request(await n.backend(replica_wait_s=0.02))
        assert await request.status() == 503
        assert (b"retry-after", b"1") in request.got[0]["headers"]


@in_loop
async def test_a_websocket_without_a_replica_is_denied_with_a_response() -> None:
    async with node() as n:
        backend = await n.backend(replica_wait_s=0.02)
        request = Request(backend, {"type": "websocket.connect"}, kind="websocket")
        assert await request.status() == 503
        assert request.got[0]["type"] == "websocket.http.response.start"


@in_loop
async def test_no_request_waits_for_replicas_that_keep_failing() -> None:
    async with node() as n:
        backend = await n.backend()
        waiting = Request(backend)
        await until(lambda: backend.queued == 1)
        n.pool.lead({("s", "d"): await n.backend(hopeless=True)})
        assert await waiting.status() == 503


@in_loop
async def test_no_request_waits_for_a_deployment_that_is_taken_away() -> None:
    async with node() as n:
        gate = Gate()
        backend = await n.backend(await n.start("a", gate), max_ongoing_requests=1)
        running, second, third = (Request(backend) for _ in range(3))
        await until(lambda: backend.queued == 2)
        n.pool.lead({})
        gate.go.set()  # what is left of it still serves them
        assert [await r.status() for r in (running, second, third)] == [200] * 3
    async with node() as n:
        none = await n.backend()
        waiting = Request(none)
        await until(lambda: none.queued == 1)
        n.pool.lead({})
        assert await waiting.status() == 503


@in_loop
async def test_open_fails_when_a_new_replica_does_not_answer_and_keeps_nothing() -> None:
    async with node() as n:
        good = await n.start("a", Gate())
        with pytest.raises(ReplicaUnreachable):
            await n.pool.open([good, ReplicaAddress(id="b", node_id="n", uds=f"{n.folder}/nobody")])
        await until(lambda: not n.servers["a"]._connections)
        await n.pool.open([good])


@in_loop
async def test_a_generation_that_fails_to_open_takes_nothing_from_one_beside_it() -> None:
    async with node() as n:
        good = await n.start("a", Gate())
        bad = ReplicaAddress(id="b", node_id="n", uds=f"{n.folder}/nobody")
        failing, other = await asyncio.gather(n.pool.open([good, bad]), n.pool.open([good]), return_exceptions=True)
        assert isinstance(failing, ReplicaUnreachable)
        assert other is None
        assert not n.pool.link(good).released
        assert n.pool.link(good).client is not None


@in_loop
async def test_open_does_not_wait_for_a_known_replica_that_crashed() -> None:
    async with node() as n:
        a, b = await n.start("a", Gate()), await n.start("b", Gate())
        await n.pool.open([a])
        await n.servers["a"].close()
        await until(lambda: n.pool.link(a).client is None)
        await n.pool.open([a, b])


def test_a_replica_on_another_node_is_reached_over_tcp() -> None:
    async def run() -> None:
        async with node() as n:
            gate = Gate()
            gate.go.set()
            address = await n.start("a", gate)
            host, port = await n.servers["a"].listen_tcp("127.0.0.1")
            far = ReplicaAddress(id="a", node_id="far", uds=address.uds, tcp=f"{host}:{port}")
            backend = Backend(Route(prefix="/", stack="s", deployment="d", replicas=(far,)), n.pool)
            await n.pool.open([far])
            assert await Request(backend).status() == 200

    asyncio.run(run())


def lead(n: Node, backend: Backend, name: str, *former: str) -> None:
    """A generation is live in which this is the only deployment."""
    n.pool.lead({("s", name, False): backend}, {("s", old): name for old in former})


@in_loop
async def test_who_waits_under_a_former_name_is_served_by_the_new_ones_replicas_in_its_turn() -> None:
    async with node() as n:
        empty = await n.backend()
        lead(n, empty, "d")
        waiting = [Request(empty, path=f"/{i}") for i in range(2)]
        await until(lambda: empty.queued == 2)
        gate = Gate()
        replicas = (await n.start("a", gate, max_ongoing=1),)
        said = {"replicas": replicas, "formerly": ("d",), "max_ongoing_requests": 1}
        new = Backend(Route(prefix="/", stack="s", deployment="new", **said), n.pool)
        await n.pool.open(replicas)
        lead(n, new, "new", "d")
        last = Request(new, path="/2")
        gate.go.set()
        assert [await r.status() for r in (*waiting, last)] == [200, 200, 200]
        assert gate.paths == ["/0", "/1", "/2"]


@in_loop
async def test_a_load_goes_on_under_the_new_name_and_the_old_one_begins_with_nothing() -> None:
    async with node() as n:
        gate = Gate()
        replicas = (await n.start("a", gate),)
        old = await n.backend(*replicas)
        lead(n, old, "d")
        first = Request(old, path="/0")
        await until(lambda: gate.paths == ["/0"])
        new = Backend(Route(prefix="/", stack="s", deployment="new", replicas=replicas, formerly=("d",)), n.pool)
        lead(n, new, "new", "d")
        second = Request(new, path="/1")
        await until(lambda: gate.paths == ["/0", "/1"])
        loads = (await n.pool.reporter.report(0)).loads
        assert {name: (load.arrivals, load.ongoing) for name, load in loads.items()} == {"s/new": (2, 2)}
        other = await n.backend(*replicas)
        n.pool.lead({("s", "new", False): new, ("s", "d", False): other}, {("s", "d"): "new"})
        gate.go.set()
        assert [await r.status() for r in (first, second, Request(other))] == [200, 200, 200]
        assert (await n.pool.reporter.report(0)).loads["s/d"].arrivals == 1


@in_loop
async def test_a_stream_goes_on_while_other_replicas_come_and_those_that_go_are_let_go_of() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(10):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0.02)
        await send({"type": "http.response.body"})

    async with node() as n:
        proxy = ProxyApp(pool=n.pool, backend_factory=lambda r: Backend(r, n.pool), import_middleware=lambda m: None)
        first = await n.start("a", slow)
        got: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request"} if not got else await asyncio.Event().wait()  # type: ignore[return-value]

        async def send(message: dict[str, Any]) -> None:
            got.append(message)

        stream: asyncio.Task[Any] | None = None
        for number, others in enumerate((["b"], ["c"], [], ["d", "e"]), 1):
            replicas = (first, *[await n.start(name, slow) for name in others])
            route = Route(prefix="/", stack="s", deployment="d", replicas=replicas, graceful_shutdown_timeout_s=0.01)
            await proxy.stage(Generation(number=number, routes=(route,)))
            proxy.commit(number)
            if stream is None:
                proxy._live.mounts[0].backend.links[1:] = []  # it is to run on the first
                stream = asyncio.ensure_future(proxy(scope(), receive, send))
                await until(lambda: len(got) > 1)
            await asyncio.sleep(0.03)
            for name in n.servers.keys() - {"a", *others}:
                assert await n.servers[name].drain(5)
        assert stream is not None
        await stream
        assert b"".join(message.get("body", b"") for message in got) == b"x" * 10
