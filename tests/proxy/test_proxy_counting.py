"""What the proxy counts: every request once, where it ends, under its deployment, with a reason where it was our doing."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from edge_server import get, post, read_body, respond
from test_proxy_to_replica import Stack
from websockets.sync.client import connect as connect_websocket

from serveconf.routing import Generation, ReplicaAddress, Route


@pytest.fixture
def stack(tmp_path):
    stack = Stack(tmp_path)
    yield stack
    stack.stop()


async def hello(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            pass
        return
    await read_body(receive)
    await respond(send, b"hello", status=int(scope["path"].rpartition("/")[2] or 200))


def figures(stack):
    async def read():
        return stack.app.figures()

    return stack.running.run(read())


def counted(stack):
    """(deployment, method, status) → how many."""
    return {
        (key, method, status): histogram.count
        for key, deployment in figures(stack).deployments.items()
        for method, statuses in deployment.durations.items()
        for status, histogram in statuses.items()
    }


def wait_until(holds):
    for _ in range(12_000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to pass")


def test_after_n_requests_every_counter_is_n_also_across_a_switch(stack):
    stack.start_replica("one", hello)
    stack.start_replica("two", hello)
    stack.switch_to("one")
    with stack.running.connect() as client:
        for _ in range(7):
            client.ask(get("/app/200"))
        stack.switch_to("two")
        for _ in range(5):
            client.ask(get("/app/200"))
        for _ in range(3):
            client.ask(post("12345", path="/app/503"))
        client.ask(get("/app/204", method="HEAD"), "HEAD")
    assert counted(stack) == {("s/d", "GET", 200): 12, ("s/d", "POST", 503): 3, ("s/d", "HEAD", 204): 1}
    of_it = figures(stack).deployments["s/d"]
    assert (of_it.bytes_in, of_it.bytes_out) == (15, 75)
    assert (of_it.active, of_it.queued) == (0, 0)
    assert figures(stack).refused == {}


def test_a_method_that_nobody_knows_makes_no_series_of_its_own(stack):
    stack.start_replica("one", hello)
    stack.switch_to("one")
    with stack.running.connect() as client:
        for method in ("PURGE", "MKCOL", "GET"):
            client.ask(get("/app/200", method=method))
    assert counted(stack) == {("s/d", "_OTHER", 200): 2, ("s/d", "GET", 200): 1}


def test_what_no_deployment_took_is_counted_as_nobodys_with_its_reason(stack):
    stack.start_replica("one", hello)
    stack.switch_to("one")
    with stack.running.connect() as client:
        assert client.ask(get("/nowhere")).status == 404
    with stack.running.connect() as client:
        assert client.ask("GET / HTTP/1.1\r\n\r\n").status == 400
    assert counted(stack) == {("/", "GET", 404): 1, ("/", "_OTHER", 400): 1}
    assert figures(stack).refused == {"no_route": 1, "malformed": 1}


def test_waiting_is_measured_and_who_may_not_wait_is_refused_for_that(stack):
    gate = asyncio.Event()

    async def slow(scope, receive, send):
        await gate.wait()
        await respond(send)

    stack.start_replica("one", slow)
    address = ReplicaAddress(id="one", node_id="n", uds=str(stack.folder / "one"))
    route = Route(
        prefix="/app", stack="s", deployment="d", replicas=(address,), max_ongoing_requests=1, max_queued_requests=1
    )

    async def switch():
        await stack.app.stage(Generation(number=1, routes=(route,)))
        stack.app.commit(1)

    stack.running.run(switch())
    with stack.running.connect() as one, stack.running.connect() as two, stack.running.connect() as three:
        one.send(get("/app/200"))
        wait_until(lambda: figures(stack).deployments["s/d"].active == 1)
        two.send(get("/app/200"))
        wait_until(lambda: figures(stack).deployments["s/d"].queued == 1)
        assert three.ask(get("/app/200")).status == 503
        stack.running.loop.call_soon_threadsafe(gate.set)
        assert (one.answer().status, two.answer().status) == (200, 200)
    of_it = figures(stack).deployments["s/d"]
    assert of_it.waits.count == 1
    assert 0 < of_it.waits.sum <= sum(h.sum for h in of_it.durations["GET"].values())
    assert figures(stack).refused == {"queue_full": 1}


def test_a_client_that_leaves_and_an_answer_that_is_cut_are_told_apart(stack):
    gate = threading.Event()

    async def broken(scope, receive, send):
        if scope["path"].endswith("/wait"):
            gate.set()
            await asyncio.sleep(60)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("in the middle")

    stack.start_replica("one", broken)
    stack.switch_to("one")
    with stack.running.connect() as client:
        client.send(get("/app/wait"))
        gate.wait(120)
    wait_until(lambda: counted(stack) == {("s/d", "GET", 499): 1})
    with stack.running.connect() as client:
        assert not client.ask(get("/app")).whole
    assert counted(stack) == {("s/d", "GET", 499): 1, ("s/d", "GET", 200): 1}
    assert figures(stack).refused == {"client_left": 1, "failed": 1}


def test_a_websocket_counts_as_one_request_when_it_is_accepted(stack):
    stack.start_replica("one", hello)
    stack.switch_to("one")
    with connect_websocket(f"ws://127.0.0.1:{stack.running.port}/app/ws") as websocket:
        websocket.send("a")
        wait_until(lambda: counted(stack) == {("s/d", "GET", 101): 1})
        assert figures(stack).deployments["s/d"].active == 1
        assert figures(stack).connections == 1
    wait_until(lambda: figures(stack).deployments["s/d"].active == 0)
    assert counted(stack) == {("s/d", "GET", 101): 1}
