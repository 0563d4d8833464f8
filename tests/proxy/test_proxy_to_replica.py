"""The whole way of a request: client, edge, dispatch, wire, app, over real sockets."""

from __future__ import annotations

import asyncio
import threading

import pytest
from edge_server import RunningServer, get, post, read_body, respond
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as connect_websocket

from serveconf.proxy.app import ProxyApp
from serveconf.proxy.dispatch import Backend
from serveconf.proxy.middleware import MiddlewareImporter
from serveconf.proxy.pool import ReplicaPool
from serveconf.routing import Generation, ReplicaAddress, Route
from serveconf.wire import WireServer

SECRET = b"s" * 32


class Stack:
    """A proxy with one route, ``/app``, and replicas in the same loop."""

    def __init__(self, folder):
        self.folder = folder
        self.replicas = {}
        self.pool = ReplicaPool(node_id="n", secret=SECRET)
        self.app = ProxyApp(
            pool=self.pool,
            backend_factory=lambda route: Backend(route, self.pool),
            import_middleware=MiddlewareImporter(str),
        )
        self.running = RunningServer(self.app, edge=self.app.edge)
        self.number = 0

    def start_replica(self, name, app):
        async def start():
            server = WireServer(app, secret=SECRET, max_ongoing=10)
            await server.listen_unix(str(self.folder / name))
            self.replicas[name] = server

        self.running.run(start())

    def switch_to(self, *names):
        self.number += 1
        addresses = tuple(ReplicaAddress(id=name, node_id="n", uds=str(self.folder / name)) for name in names)
        route = Route(prefix="/app", stack="s", deployment="d", replicas=addresses, version=names[0])

        async def switch():
            await self.app.stage(Generation(number=self.number, routes=(route,)))
            self.app.commit(self.number)

        self.running.run(switch())

    def stop(self):
        async def stop():
            await self.running.server.drain(0)
            for replica in self.replicas.values():
                await replica.close()
            await self.pool.close()

        self.running.run(stop())
        self.running._end_loop()


@pytest.fixture
def stack(tmp_path):
    stack = Stack(tmp_path)
    yield stack
    stack.stop()


def named(name, gate=None):
    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": f"{name} {message['text']}"})
            return
        body = await read_body(receive)
        if scope["path"] == "/app/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(3):
                await send({"type": "http.response.body", "body": name.encode(), "more_body": True})
                while not gate.is_set():
                    await asyncio.sleep(0.001)
            await send({"type": "http.response.body", "body": b"end"})
            return
        seen = f"{name} {scope['root_path']} {scope['path']} ".encode() + (body or b"")
        await respond(send, seen)

    return app


def test_request_passes_whole_and_the_switch_is_seen_by_the_next_one(stack):
    stack.start_replica("one", named("one"))
    stack.start_replica("two", named("two"))
    stack.switch_to("one")
    with stack.running.connect() as client:
        assert client.ask(post("body", path="/app/x")).body == b"one /app /app/x body"
        stack.switch_to("two")
        assert client.ask(post("body", path="/app/x")).body == b"two /app /app/x body"
        chunked = "POST /app HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
        assert client.ask(chunked).body == b"two /app /app hi"


def test_stream_of_the_old_generation_ends_whole_after_the_switch(stack):
    gate = threading.Event()
    stack.start_replica("one", named("one", gate))
    stack.start_replica("two", named("two"))
    stack.switch_to("one")
    with stack.running.connect() as client, stack.running.connect() as other:
        client.send(get("/app/stream"))
        assert client.head()[0] == 200
        stack.app.start_receipt("op")
        stack.switch_to("two")
        assert other.ask(get("/app")).body.startswith(b"two")
        gate.set()
        assert client._chunks() == (b"oneoneoneend", True)
        assert stack.app.receipt("op").failed == 0


def test_websocket_goes_through_and_its_end_is_seen_on_the_other_side(stack):
    stack.start_replica("one", named("one"))
    stack.switch_to("one")
    with connect_websocket(f"ws://127.0.0.1:{stack.running.port}/app/ws") as websocket:
        websocket.send("hello")
        assert websocket.recv() == "one hello"
        stack.running.run(stack.replicas["one"].close())
        with pytest.raises(ConnectionClosed):
            websocket.recv()


def test_answer_of_a_replica_that_dies_is_cut(stack):
    gate = threading.Event()
    stack.start_replica("one", named("one", gate))
    stack.switch_to("one")
    with stack.running.connect() as client:
        client.send(get("/app/stream"))
        assert client.head()[0] == 200
        stack.running.run(stack.replicas["one"].close())
        assert client._chunks()[1] is False
    gate.set()


def test_websocket_message_that_is_no_text_closes_it_with_1007(stack):
    stack.start_replica("one", named("one"))
    stack.switch_to("one")
    with connect_websocket(f"ws://127.0.0.1:{stack.running.port}/app/ws") as websocket:
        websocket.send(b"\xff", text=True)
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv()
    assert closed.value.rcvd.code == 1007


def test_many_websocket_messages_at_once_come_back_in_order(stack):
    stack.start_replica("one", named("one"))
    stack.switch_to("one")
    with connect_websocket(f"ws://127.0.0.1:{stack.running.port}/app/ws") as websocket:
        for number in range(500):
            websocket.send(str(number))
        assert [websocket.recv() for _ in range(500)] == [f"one {number}" for number in range(500)]


async def with_trailers(scope, receive, send):
    takes = "http.response.trailers" in scope.get("extensions", {})
    await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": takes})
    await send({"type": "http.response.body", "body": b"body"})
    if takes:
        await send({"type": "http.response.trailers", "headers": [], "more_trailers": True})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"4")]})


def test_trailers_reach_a_client_that_takes_them_and_no_other(stack):
    stack.start_replica("one", with_trailers)
    stack.switch_to("one")
    with stack.running.connect() as client:
        answer = client.ask(get("/app", headers="TE: trailers\r\nConnection: TE\r\n"))
        assert (answer.body, answer.whole) == (b"body", True)
        assert client.trailer == b"x-sum: 4"
        assert client.ask(get("/app")).body == b"body"
        assert client.trailer == b""


async def without_its_trailers(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
    await send({"type": "http.response.body", "body": b"body"})


def test_answer_whose_trailers_never_come_is_cut(stack):
    stack.start_replica("one", without_its_trailers)
    stack.switch_to("one")
    with stack.running.connect() as client:
        assert client.ask(get("/app", headers="TE: trailers\r\nConnection: TE\r\n")).whole is False
        assert stack.replicas["one"].ongoing == 0
