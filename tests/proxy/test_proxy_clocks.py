"""Every state of a connection has a clock and a budget: for each row of the two tables a client that goes past it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import tempfile
import threading
import time
from pathlib import Path

import pytest
from edge_server import echo, get, post, read_body, respond, serving
from test_proxy_server import make_certificate, trusting
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect as connect_websocket

from serveconf.cluster.logs import KeyFormatter
from serveconf.proxy.clocks import Budget, Wait
from serveconf.proxy.edge import Edge, Limits
from serveconf.proxy.tls import TlsFiles
from serveconf.routing import Front, PrefixTable

HANDSHAKE = (
    "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n"
)
ENDLESS = b"x" * 262_144


async def stream_for_ever(scope, receive, send):
    """Sends as long as the client takes it, over HTTP and WebSockets."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "bytes": ENDLESS})
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": ENDLESS, "more_body": True})


async def never(scope, receive, send):
    """Answers nothing, however long one waits."""
    while (await receive())["type"] not in ("websocket.disconnect", "http.disconnect"):
        pass


async def websocket_echo(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


def until(condition):
    while not condition():
        time.sleep(0.01)


def is_free(running):
    return not running.edge.connections and not running.edge.websockets


def frame(opcode, payload, *, fin=True):
    """A client's frame, masked with zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else struct.pack("!BH", 0xFE, size)
    return bytes([(0x80 if fin else 0) | opcode]) + length + b"\0\0\0\0" + payload


# Clocks. Each brings a client that keeps the server waiting; what the client is told, and that nothing is left of it.


def keep_waiting_for_tls():
    with tempfile.TemporaryDirectory() as folder:
        cert, key = make_certificate(Path(folder), "own")
        tls = TlsFiles(certfile=str(cert), keyfile=str(key))
        with serving(echo, limits=Limits(head_timeout_s=0.1), tls=tls) as running, running.connect() as client:
            assert client.is_closed()


def keep_waiting_for_the_head():
    with serving(echo) as running, running.connect() as client:
        client.send("GET / HT")
        until(lambda: running.edge.connections)
        running.limit(head_timeout_s=0.1)
        assert client.answer().status == 408
        until(lambda: is_free(running))


def keep_waiting_for_the_next_request():
    with serving(echo) as running, running.connect() as client:
        running.use(Front(keep_alive_timeout_s=0.1))
        assert client.ask(get()).status == 200
        assert client.is_closed()


def keep_waiting_for_the_body():
    with serving(echo) as running, running.connect() as client:
        running.use(Front(body_timeout_s=0.2))
        assert client.ask("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nx").status == 408
        assert client.is_closed()
        until(lambda: is_free(running))


def take_nothing():
    with serving(stream_for_ever) as running, running.connect() as client, running.connect() as websocket:
        client.send(get())
        websocket.send(HANDSHAKE.format(""))
        until(lambda: len(running.edge.connections) == len(running.edge.websockets) == 1)
        running.use(Front(send_timeout_s=0.3))
        until(lambda: is_free(running))


def keep_waiting_for_the_answer_to_a_handshake():
    with serving(never) as running, running.connect() as client:
        running.use(Front(body_timeout_s=0.2))
        assert client.ask(HANDSHAKE.format("")).status == 408
        until(lambda: is_free(running) and not running.edge.tasks)


def answer_no_ping():
    with serving(websocket_echo) as running, running.connect() as client:
        running.server._uvicorn_config.ws_ping_interval = running.server._uvicorn_config.ws_ping_timeout = 0.1
        client.send(HANDSHAKE.format(""))
        until(lambda: is_free(running) and running.edge.tally.requests)


def say_no_goodbye():
    async def refuse(scope, receive, send):
        await respond(send, b"no", 403)

    with serving(refuse, limits=Limits(linger_s=0.2)) as running, running.connect() as client:
        assert client.ask("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nx").status == 403
        until(lambda: is_free(running))


WAITS = {
    Wait.TLS: keep_waiting_for_tls,
    Wait.HEAD: keep_waiting_for_the_head,
    Wait.NEXT: keep_waiting_for_the_next_request,
    Wait.BODY: keep_waiting_for_the_body,
    Wait.TAKE: take_nothing,
    Wait.ACCEPT: keep_waiting_for_the_answer_to_a_handshake,
    Wait.PONG: answer_no_ping,
    Wait.GOODBYE: say_no_goodbye,
}


@pytest.mark.parametrize("wait", Wait)
def test_who_keeps_a_connection_waiting_is_let_go(wait):
    WAITS[wait]()


def test_a_body_that_the_app_does_not_ask_for_has_no_clock():
    """A client that is paused, or waits for 100 Continue, is not slow."""
    release = threading.Event()

    async def late(scope, receive, send):
        await asyncio.to_thread(release.wait)
        await respond(send, b"%d" % len(await read_body(receive)))

    with serving(late) as running, running.connect() as paused, running.connect() as asked:
        running.use(Front(body_timeout_s=0.1))
        body = "x" * 1_000_000
        sending = threading.Thread(target=lambda: paused.send(post(body)))
        sending.start()
        asked.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        running.run(asyncio.sleep(0.5))
        running.use(Front())
        release.set()
        assert asked.answer().status == 100
        assert asked.ask("hi").body == b"2"
        assert paused.answer().body == b"1000000"
        sending.join()


def test_a_client_that_takes_little_by_little_is_not_cut():
    async def large(scope, receive, send):
        await respond(send, b"x" * 8_000_000)

    with serving(large) as running, running.connect() as client:
        running.use(Front(send_timeout_s=0.3))
        client.send(get())
        size = 0
        while size < 8_000_000:
            size += len(client.sock.recv(250_000))
            time.sleep(0.03)


# Budgets. Each brings a client that goes past it, and what the server keeps or answers.


def refused(request, front, status):
    def run():
        with serving(echo) as running:
            running.use(front)
            with running.connect() as client:
                assert client.ask(request).status == status
                assert client.is_closed()
            for extra in ("", "Connection: keep-alive\r\n"):  # the same as a WebSocket's handshake
                with running.connect() as client:
                    text = request.replace(
                        "\r\nHost", f"\r\n{extra}Connection: Upgrade\r\nUpgrade: websocket\r\nHost", 1
                    )
                    assert client.ask(text).status == status

    return run


def send_too_much_body():
    async def deaf(scope, receive, send):
        await asyncio.sleep(60)

    with serving(deaf, limits=Limits(max_unread_bytes=10_000)) as running, running.connect() as client:
        client.sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            client.send(post("x" * 50_000_000))
        assert running.edge.kept_bytes < 300_000  # one read of the socket beyond it
    until(lambda: running.edge.kept_bytes == 0)


def pipeline_bodies():
    """Many requests ahead of their turn, each with a body below the limit of one."""

    async def deaf(scope, receive, send):
        await asyncio.sleep(60)

    with serving(deaf) as running, running.connect() as client:
        client.sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            for _ in range(200):
                client.send(post("x" * 60_000))
        (connection,) = running.edge.connections
        assert running.edge.kept_bytes == connection.body_waiting < 500_000
    until(lambda: running.edge.kept_bytes == 0)


def take_no_pongs():
    with serving(websocket_echo) as running, running.connect() as client:
        assert client.send(HANDSHAKE.format("")).head()[0] == 101
        client.sock.settimeout(0.5)
        pings = frame(9, b"p" * 125) * 2_000
        with contextlib.suppress(TimeoutError):
            for _ in range(200):
                client.send(pings)
        (websocket,) = running.edge.websockets
        assert websocket.transport.get_write_buffer_size() < 2_000_000


def send_a_large_message():
    with serving(websocket_echo, limits=Limits(max_message_bytes=1_000)) as running:
        for message in ("x" * 1_001, ["x" * 600, "x" * 600]):
            with (
                connect_websocket(f"ws://{running.host}:{running.port}/") as client,
                contextlib.suppress(ConnectionClosedError),  # while it still sends its last fragment, or after
            ):
                client.send(message)
                client.recv()
            assert client.close_code == 1009


def send_many_fragments():
    with serving(websocket_echo, limits=Limits(max_fragments=100)) as running:
        with connect_websocket(f"ws://{running.host}:{running.port}/") as client:
            client.send(["x"] * 100)
            assert client.recv() == "x" * 100
        with connect_websocket(f"ws://{running.host}:{running.port}/") as client, contextlib.suppress(Exception):
            client.send(["x"] * 200)
            client.recv()
        assert client.close_code == 1009


def keep_much_in_one_process():
    async def deaf(scope, receive, send):
        await asyncio.sleep(60)

    limits = Limits(max_kept_bytes=100_000)
    with serving(deaf, limits=limits) as running, contextlib.ExitStack() as stack:
        for _ in range(30):
            client = stack.enter_context(running.connect())
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
            client.sock.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                client.send(post("x" * 50_000))
        until(lambda: running.edge.unread_bytes < limits.max_unread_bytes)
        until(lambda: sum(connection.is_read_paused for connection in running.edge.connections) >= 20)
    until(lambda: running.edge.kept_bytes == 0)


BUDGETS = {
    Budget.TARGET: refused(get("/" + "a" * 300), Front(max_request_target_bytes=256), 414),
    Budget.FIELD: refused(get(headers=f"X: {'a' * 300}\r\n"), Front(max_request_field_bytes=256), 431),
    Budget.FIELDS: refused(get(headers="X: a\r\n" * 20), Front(max_request_fields=16), 431),
    Budget.HEAD: refused(get(headers=f"X: {'a' * 100}\r\n" * 12), Front(max_request_head_bytes=1_024), 431),
    Budget.UNREAD: send_too_much_body,
    Budget.PIPELINED: pipeline_bodies,
    Budget.UNSENT: take_no_pongs,
    Budget.MESSAGE: send_a_large_message,
    Budget.FRAGMENTS: send_many_fragments,
    Budget.KEPT: keep_much_in_one_process,
}


@pytest.mark.parametrize("budget", Budget)
def test_who_sends_more_than_is_kept_is_refused_or_not_read_from(budget):
    where, _, name = budget.value.partition(".")
    assert hasattr({"front": Front(), "limits": Limits()}[where], name)
    BUDGETS[budget]()


@pytest.mark.parametrize("size", [30_000, 60_000])
@pytest.mark.parametrize("headers", ["", "Cookie: " + "c" * 9_000 + "\r\n"])
def test_long_queries_and_cookies_pass_as_they_do_at_uvicorn(size, headers):
    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await websocket_echo(scope, receive, send)
        else:
            await respond(send, b"%d" % len(scope["query_string"]))

    with serving(app) as running:
        with running.connect() as client:
            assert client.ask(get("/?" + "q" * size, headers)).body == b"%d" % size
        with running.connect() as client:
            assert client.send(HANDSHAKE.format(headers).replace("GET /", "GET /?" + "q" * size)).head()[0] == 101


def test_what_comes_before_a_handshake_is_answered_is_read_after_it():
    release = threading.Event()

    async def late(scope, receive, send):
        await asyncio.to_thread(release.wait)
        await websocket_echo(scope, receive, send)

    with serving(late) as running, running.connect() as client:
        client.send(HANDSHAKE.format("").encode() + frame(9, b"ping") + frame(1, b"early"))
        running.run(asyncio.sleep(0.05))
        release.set()
        assert client.head()[0] == 101
        until(lambda: len(client.buffer) >= 13 or not client._more())
        assert client.buffer == b"\x8a\x04ping\x81\x05early"


def test_a_thousand_pipelined_upgrades_are_answered_in_turn():
    with serving(echo) as running, running.connect() as client:
        upgrades = get("/a", "Connection: Upgrade\r\nUpgrade: h2c\r\n") * 3_000
        sending = threading.Thread(target=lambda: client.send(upgrades))
        sending.start()
        assert {client.answer().status for _ in range(3_000)} == {200}
        sending.join()


def test_who_is_cancelled_while_a_client_takes_nothing_leaves_the_connection_whole():
    """A deadline in the app: what all answers of the connection wait for is not the one's to cancel."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                while True:
                    await send({"type": "http.response.body", "body": ENDLESS, "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})

    async def in_task(scope, receive, send):
        await asyncio.create_task(app(scope, receive, send))

    with serving(in_task) as running, running.connect() as client:
        client.send(get())
        running.run(asyncio.sleep(0.5))
        answer = client.answer()
        assert answer.whole
        assert answer.body.endswith(b"end")
        assert client.ask(get()).status == 200


def test_only_a_number_that_is_a_port_is_taken_from_x_forwarded_for():
    async def app(scope, receive, send):
        await respond(send, repr(scope["client"]).encode())

    with serving(app) as running, running.connect() as client:
        for value, seen in (
            ("1.2.3.4:99999999999999999999999", b"('1.2.3.4', 0)"),
            ("1.2.3.4:-5", b"('1.2.3.4', 0)"),
            ("1.2.3.4:65536", b"('1.2.3.4', 0)"),
            ("1.2.3.4:443", b"('1.2.3.4', 443)"),
        ):
            assert client.ask(get(headers=f"X-Forwarded-For: {value}\r\n")).body == seen


@pytest.mark.parametrize("name", ["x-request-id", "x-correlation-id", None])
def test_the_request_id_goes_by_the_name_that_the_front_gives_it(name):
    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            seen.extend(key for key, _ in scope["headers"])
            await send({"type": "websocket.accept"})
        else:
            await respond(send, b"\n".join(b"%b: %b" % field for field in scope["headers"]))

    seen = []
    with serving(app) as running:
        running.use(Front(request_id_header=name))
        with running.connect() as client:
            own = client.ask(get(headers="X-Request-Id: mine\r\n"))
            made = client.ask(get())
        assert b"x-request-id: mine" in own.body
        if name is None:
            assert made.body == b"host: localhost"
            assert own.get("x-request-id") is made.get("x-request-id") is None
        else:
            assert made.body.startswith(b"host: localhost\n" + name.encode() + b": ")
            assert made.get(name)
        with connect_websocket(f"ws://{running.host}:{running.port}/") as client:
            assert bool(client.response.headers.get("x-request-id")) == (name == "x-request-id")
            assert (name or "x-request-id").encode() in seen if name else b"x-request-id" not in seen


def test_a_path_of_many_slashes_is_matched_by_its_first_ones():
    looked = []

    class Watched(dict):
        def get(self, key, default=None):
            looked.append(key)
            return super().get(key, default)

    table = PrefixTable(Watched({"/": "root", "/a": "a", "/a/b": "ab"}))
    assert table.match("/a/b" + "/" * 16_000) == "ab"
    assert table.match("/a/bc/" + "/" * 16_000) == "a"
    assert table.match("/" * 16_000) == "root"
    assert len(looked) < 20


def test_log_lines_cannot_be_forged():
    record = logging.makeLogRecord({"msg": "an answer was cut", "path": "/a\nERROR forged\r\x1b[31m\x85\u2028"})
    line = KeyFormatter().format(record)
    assert line.splitlines() == [line]
    assert "\x1b" not in line


@pytest.mark.parametrize(("size", "is_reset"), [(200_000, False), (20_000_000, True)])
def test_a_client_that_leaves_while_it_is_not_read_from_is_noticed(size, is_reset):
    """A request that waits in line with a large body would else be run for nobody."""
    asked, cancelled = threading.Event(), threading.Event()

    async def waits(scope, receive, send):
        asked.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with serving(waits, limits=Limits(linger_s=0.2)) as running:
        with running.connect() as client:
            client.sock.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                client.send(post("x" * size))
            assert asked.wait(120)
            if is_reset:
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert cancelled.wait(120)


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"raw_path": b"/" + b"a" * 70_000}, 414),
        ({"headers": [(b"x", b"v")] * 1_100}, 431),
        ({"headers": [(b"x", b"v" * 70_000)]}, 431),
        ({"method": "CONNECT"}, 501),
        ({"raw_path": b"path"}, 400),
        ({"headers": [(b"host", b"a b")]}, 400),
        ({"headers": [(b"host", b"a"), (b"host", b"b")]}, 400),
        ({"headers": [(b"host", b"a.example:8000")]}, 200),
        ({}, 200),
    ],
)
def test_the_head_of_an_http2_request_is_held_to_the_same_limits(changed, status):
    http2 = pytest.importorskip("serveconf.proxy.http2", reason="the extra http2 is not installed")
    edge = Edge()
    edge.serve(lambda scope, receive, send: respond(send, b"ok"))
    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": []}
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    asyncio.run(http2.Http2Request(edge)({**scope, **changed}, receive, send))
    assert sent[0]["status"] == status


# HTTP/2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and empty SETTINGS
PING = bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + bytes(8)
POST_WITHOUT_ITS_BODY = bytes([0, 0, 6, 1, 4, 0, 0, 0, 1, 0x83, 0x87, 0x84, 0x41, 0x01]) + b"a"
GET_WHOLE = bytes([0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x87, 0x84, 0x41, 0x01]) + b"a"


@contextlib.contextmanager
def http2_client(folder, app, **options):
    """A connection that speaks HTTP/2 frame by frame."""
    pytest.importorskip("zttp", reason="the extra http2 is not installed")
    cert, key = make_certificate(folder, "a")
    context = trusting(cert)
    context.set_alpn_protocols(["h2"])
    with (
        serving(app, tls=TlsFiles(certfile=str(cert), keyfile=str(key)), http2=True, **options) as running,
        socket.create_connection((running.host, running.port), timeout=120) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        yield running, client


def frames_until_closed(client, ping=False):
    """The types of the frames that come until the server closes."""
    got = b""
    while True:
        try:
            if ping:
                client.sendall(PING)
                time.sleep(0.02)
            data = client.recv(65536)
        except OSError:
            break
        if not data:
            break
        got += data
    kinds = []
    while len(got) >= 9:
        size = int.from_bytes(got[:3], "big")
        kinds.append(got[3])
        got = got[9 + size :]
    return kinds


@pytest.mark.parametrize("ping", [False, True])
@pytest.mark.parametrize("first", [b"", PREFACE, PREFACE + GET_WHOLE])
def test_an_http2_client_without_a_request_is_let_go(tmp_path, first, ping):
    with http2_client(tmp_path, echo, edge=Edge(Limits(linger_s=0.3))) as (running, client):
        client.sendall(first)
        running.limit(head_timeout_s=0.3)
        running.use(Front(keep_alive_timeout_s=0.3))
        frames_until_closed(client, ping=ping and bool(first))
        until(lambda: not running.edge.connections)


def test_an_http2_connection_too_many_is_let_go(tmp_path):
    with http2_client(tmp_path, echo, edge=Edge(Limits(max_connections=0, linger_s=0.3))) as (running, client):
        client.sendall(PREFACE)
        frames_until_closed(client)
        until(lambda: not running.edge.connections)


def test_an_http2_body_that_does_not_come_is_answered_408(tmp_path):
    with http2_client(tmp_path, echo) as (running, client):
        running.use(Front(body_timeout_s=0.3))
        client.sendall(PREFACE + POST_WITHOUT_ITS_BODY)
        until(lambda: running.edge.tally.requests == 1)
        until(lambda: not running.edge.tasks)  # nobody waits for it any more
