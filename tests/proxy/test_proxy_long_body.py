"""A long body of known length is read past the parser: whole, within the same limits, and what follows it is the next request."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from edge_server import get, read_body, respond, serving
from test_proxy_to_replica import Stack

from serveconf.proxy.edge import Edge
from serveconf.proxy.long_body import LONG_BYTES, READ_BYTES
from serveconf.proxy.middleware import build_stack
from serveconf.routing import Front, Middleware
from serveconf.wire import LENT

MIB = 1 << 20
BODY = random.Random(1).randbytes(3 * MIB + 17)


def lending() -> Edge:
    edge = Edge()
    edge.lends_bodies = True
    return edge


def upload(body: bytes, path: str = "/") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)


async def echo(scope, receive, send):
    await respond(send, (await read_body(receive)) or scope["path"].encode())


@pytest.fixture
def stack(tmp_path):
    stack = Stack(tmp_path)
    yield stack
    stack.stop()


@pytest.mark.parametrize("size", [LONG_BYTES - 1, LONG_BYTES, 300_000, READ_BYTES, len(BODY)])
def test_a_long_body_reaches_the_replica_whole_and_the_next_request_is_one(stack, size):
    stack.start_replica("one", echo)
    stack.switch_to("one")
    body = BODY[:size]
    with stack.running.connect() as client:
        for _ in range(3):
            client.send(upload(body, "/app") + get("/app/next").encode() + upload(body, "/app"))
            assert [client.answer().body for _ in range(3)] == [body, b"/app/next", body]
        assert stack.running.edge.kept_bytes == 0


def test_a_long_body_that_comes_in_drops_is_whole(stack):
    stack.start_replica("one", echo)
    stack.switch_to("one")
    data, dice = upload(BODY, "/app") + get("/app/next").encode(), random.Random(2)
    with stack.running.connect() as client:
        while data:
            size = dice.choice((1, 10, 20_000, 90_000))
            client.send(data[:size])
            data = data[size:]
        assert [client.answer().body, client.answer().body] == [BODY, b"/app/next"]


def test_a_replica_that_reads_slowly_is_sent_no_more_than_it_takes(stack):
    gate = asyncio.Event()

    async def slow(scope, receive, send):
        await gate.wait()
        await echo(scope, receive, send)

    stack.start_replica("one", slow)
    stack.switch_to("one")
    with stack.running.connect() as client:
        client.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.send(upload(bytes(64 * MIB), "/app"))
        limits = stack.running.edge.limits
        assert stack.running.edge.kept_bytes <= limits.max_unread_bytes + READ_BYTES


def test_an_app_that_answers_without_the_body_is_heard_and_the_rest_is_dropped():
    async def app(scope, receive, send):
        await respond(send, scope["path"].encode())

    with serving(app, edge=lending()) as running, running.connect() as client:
        for _ in range(2):
            client.send(upload(BODY) + get("/next").encode())
            assert [client.answer().body, client.answer().body] == [b"/", b"/next"]
        assert running.edge.kept_bytes == 0


def test_a_long_body_that_stops_is_answered_408():
    with serving(echo, edge=lending()) as running, running.connect() as client:
        running.use(Front(body_timeout_s=0.2))
        client.send(upload(BODY)[:MIB])
        assert client.answer().status == 408
        client.send(BODY[:MIB])  # is dropped, as what follows a refusal is


def test_a_client_that_leaves_within_a_long_body_is_told_to_its_app():
    heard = []

    async def app(scope, receive, send):
        heard.append(await read_body(receive))

    with serving(app, edge=lending()) as running:
        with running.connect() as client:
            client.send(upload(BODY)[:MIB])
        until = time.monotonic() + 120
        while not heard and time.monotonic() < until:
            time.sleep(0.01)
        assert heard == [None]
        assert running.edge.kept_bytes == 0


def test_a_limit_that_is_set_meanwhile_holds_for_a_long_body():
    with serving(echo, edge=lending()) as running, running.connect() as client:
        data = upload(BODY)
        client.send(data[:MIB])
        running.use(Front(max_request_body_bytes=2 * MIB))
        client.send(data[MIB:])
        assert client.answer().status == 413
        assert client.is_closed()


def test_middlewares_and_apps_that_know_asgi_only_are_given_bytes():
    seen = set()

    def noting(app):
        async def run(scope, receive, send):
            async def noted():
                message = await receive()
                seen.add((type(message.get("body")), LENT in message))
                return message

            await app(scope, noted, send)

        return run

    stack = build_stack([(Middleware("my:noting"), (noting, (), {}))], echo)
    with serving(stack, edge=lending()) as running, running.connect() as client:
        assert client.ask(upload(BODY)).body == BODY
    with serving(noting(echo)) as running, running.connect() as client:
        assert client.ask(upload(BODY)).body == BODY
    assert seen == {(bytes, False)}
