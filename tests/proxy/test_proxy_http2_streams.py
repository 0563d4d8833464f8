"""HTTP/2 frame by frame: many streams on one connection, none of which ends or delays another."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import defaultdict

import pytest
from edge_server import read_body, respond, serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_proxy_server import make_certificate, trusting

from serveconf.proxy.tls import TlsFiles
from serveconf.routing import Front

pytest.importorskip("zttp", reason="the extra http2 is not installed")

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
STATUS = b"\x08\x03"  # a value of three letters for :status of HPACK's static table, as zttp says it
METHODS = {"GET": b"\x82", "POST": b"\x83"}
CANCEL = (8).to_bytes(4, "big")
LARGE = 16_384


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name, value):
    """A field of a block of headers, without HPACK's tables."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def head(stream, path="/", method="GET", last=True, fields=()):
    chosen = METHODS.get(method) or literal(b":method", method.encode())
    block = chosen + b"\x87" + literal(b":path", path.encode()) + literal(b":authority", b"a")
    block += b"".join(literal(name, value) for name, value in fields)
    return frame(HEADERS, END_HEADERS | (END_STREAM if last else 0), stream, block)


class Connection:
    """What a client says, and what it has heard, by stream."""

    def __init__(self, sock, window=None):
        self.sock = sock
        self.buffer = b""
        self.statuses = {}
        self.bodies = defaultdict(bytes)
        self.ended = set()  # streams that the server has ended
        self.reset = {}  # ... and cut, with which code
        self.frames = []
        self.used = 1
        settings = b"" if window is None else b"\0\x04" + window.to_bytes(4, "big")
        self.say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings))

    def say(self, *frames):
        self.sock.sendall(b"".join(frames))

    def hear(self):
        """One more frame; False where the server has closed."""
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            try:
                data = self.sock.recv(65_536)
            except OSError as error:
                if isinstance(error, TimeoutError):
                    raise
                data = b""
            if not data:
                return False
            self.buffer += data
        size, kind, flags = int.from_bytes(self.buffer[:3], "big"), self.buffer[3], self.buffer[4]
        stream = int.from_bytes(self.buffer[5:9], "big")
        payload, self.buffer = self.buffer[9 : 9 + size], self.buffer[9 + size :]
        self.frames.append((kind, stream))
        if kind == HEADERS:
            at = payload.index(STATUS) + 2
            self.statuses.setdefault(stream, int(payload[at : at + 3]))
        elif kind == DATA:
            self.bodies[stream] += payload
        elif kind == RST_STREAM:
            self.reset[stream] = int.from_bytes(payload, "big")
        elif kind == PING and not flags & ACK:
            self.say(frame(PING, ACK, 0, payload))
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self.ended.add(stream)
        return True

    def until_over(self, *streams):
        while not all(stream in self.ended or stream in self.reset for stream in streams) and self.hear():
            pass
        return self

    def until(self, is_so):
        while not is_so(self):
            assert self.hear(), "the server has closed"

    def until_closed(self):
        while self.hear():
            pass


def next_stream(connection):
    connection.used += 100  # as many as a test may use
    return connection.used


class Streams:
    """An app by paths; ``gate`` holds those below /wait."""

    def __init__(self):
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        self.told = []  # what those heard that wait
        self.sent = 0
        self.heard = threading.Event()

    async def __call__(self, scope, receive, send):
        path = scope["path"]
        if path == "/echo":
            body = await read_body(receive)
            if body is not None:
                await respond(send, body)
        elif path == "/wait":
            self.begun.release()
            while not self.gate.is_set():
                await asyncio.sleep(0.001)
            await respond(send, b"waited")
        elif path == "/listens":
            self.begun.release()
            while (message := await receive())["type"] != "http.disconnect":
                pass
            self.told.append(message["type"])
            self.heard.set()
        elif path == "/raises":
            raise RuntimeError("before the head")
        elif path in ("/raises-late", "/stops"):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"partly", "more_body": True})
            if path == "/raises-late":
                raise RuntimeError("after the head")
        elif path == "/nothing":
            return
        elif path == "/empty":
            await respond(send, status=204)
        elif path == "/large":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(64):
                await send({"type": "http.response.body", "body": b"x" * LARGE, "more_body": True})
                self.sent += 1
            await send({"type": "http.response.body", "body": b""})
        else:
            await respond(send, path.encode())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"), "a")


@contextlib.contextmanager
def over_http2(certificate, app):
    """A server, and what connects to it."""
    cert, key = certificate
    context = trusting(cert)
    context.set_alpn_protocols(["h2"])
    with (
        contextlib.ExitStack() as opened,
        serving(app, tls=TlsFiles(certfile=str(cert), keyfile=str(key)), http2=True) as running,
    ):

        def dial():
            plain = opened.enter_context(socket.create_connection((running.host, running.port), timeout=20))
            return opened.enter_context(context.wrap_socket(plain, server_hostname="localhost"))

        yield running, dial


@pytest.fixture(scope="module")
def shared(certificate):
    app = Streams()
    with over_http2(certificate, app) as (_, dial):
        yield dial, Connection(dial())


@pytest.fixture
def fresh(certificate):
    app = Streams()
    with over_http2(certificate, app) as (running, dial):
        yield app, running, dial()


def test_a_stream_that_waits_holds_up_no_other(fresh):
    app, _, client = fresh
    connection = Connection(client)
    connection.say(head(1, "/wait"), head(3, "/three"), head(5, "/five"))
    connection.until_over(3, 5)
    assert (connection.bodies[3], connection.bodies[5], connection.ended) == (b"/three", b"/five", {3, 5})
    app.gate.set()
    connection.until_over(1)
    assert connection.bodies[1] == b"waited"


def test_a_reset_tells_the_app_of_that_stream_and_ends_no_other(fresh):
    app, running, client = fresh
    connection = Connection(client)
    connection.say(head(1, "/listens"), head(3, "/wait"))
    assert all(app.begun.acquire(timeout=10) for _ in range(2))
    connection.say(frame(RST_STREAM, 0, 1, CANCEL))
    assert app.heard.wait(10)
    app.gate.set()
    connection.until_over(3)
    assert (connection.bodies[3], 1 in connection.statuses) == (b"waited", False)
    connection.say(head(5, "/after"))
    connection.until_over(5)
    assert connection.bodies[5] == b"/after"
    assert running.edge.tally.requests == 2  # the one whose client left is no answered one


def test_a_client_that_closes_tells_all_that_listen(fresh):
    app, running, client = fresh
    connection = Connection(client)
    connection.say(head(1, "/listens"), head(3, "/listens"))
    assert all(app.begun.acquire(timeout=10) for _ in range(2))
    client.close()
    while running.edge.tasks or running.edge.connections:
        running.run(asyncio.sleep(0.01))
    assert app.told == ["http.disconnect"] * 2


@pytest.mark.parametrize("path", ["/raises", "/nothing"])
def test_an_app_without_an_answer_gives_500_on_its_stream_alone(shared, path, caplog):
    _, connection = shared
    stream = next_stream(connection)
    connection.say(head(stream, path), head(stream + 2, "/fine"))
    connection.until_over(stream, stream + 2)
    assert (connection.statuses[stream], connection.bodies[stream + 2]) == (500, b"/fine")


@pytest.mark.parametrize("path", ["/raises-late", "/stops"])
def test_an_answer_that_began_and_does_not_end_never_looks_whole(fresh, path, caplog):
    _, running, client = fresh
    connection = Connection(client)
    connection.say(head(1, path))
    connection.until_over(1)
    assert (connection.bodies[1], 1 in connection.ended) == (b"partly", False)
    assert running.edge.tally.failed == 1


@pytest.mark.parametrize(("method", "path", "status"), [("HEAD", "/long", 200), ("GET", "/empty", 204)])
def test_answers_without_a_body_end_with_their_head(shared, method, path, status):
    _, connection = shared
    stream = next_stream(connection)
    connection.say(head(stream, path, method))
    connection.until_over(stream)
    assert (connection.statuses[stream], connection.bodies[stream]) == (status, b"")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(st.lists(st.binary(max_size=300), max_size=5), min_size=1, max_size=4), st.randoms(use_true_random=False)
)
def test_bodies_whose_frames_come_between_each_other_s_stay_apart(shared, bodies, random):
    _, connection = shared
    first = next_stream(connection)
    streams = [first + 2 * at for at in range(len(bodies))]
    connection.say(*(head(stream, "/echo", "POST", last=False) for stream in streams))
    left = [(stream, at) for stream, pieces in zip(streams, bodies, strict=True) for at in range(len(pieces) + 1)]
    order = [stream for stream, _ in left]
    random.shuffle(order)
    waiting = {stream: [*pieces, None] for stream, pieces in zip(streams, bodies, strict=True)}
    for stream in order:
        piece = waiting[stream].pop(0)
        connection.say(frame(DATA, END_STREAM if piece is None else 0, stream, piece or b""))
    connection.until_over(*streams)
    assert [connection.bodies[stream] for stream in streams] == [b"".join(pieces) for pieces in bodies]


def test_who_gives_no_room_gets_nothing_and_the_app_waits_for_it(fresh):
    app, _, client = fresh
    connection = Connection(client, window=0)
    connection.say(head(1, "/large"), head(3, "/empty"))
    connection.until_over(3)
    connection.until(lambda one: 1 in one.statuses)
    assert connection.bodies[1] == b""
    connection.say(frame(WINDOW_UPDATE, 0, 1, (1000).to_bytes(4, "big")))
    connection.until(lambda one: len(one.bodies[1]) >= 1000)
    assert len(connection.bodies[1]) == 1000
    assert app.sent < 64
    most = (2**20 * 2).to_bytes(4, "big")
    connection.say(frame(WINDOW_UPDATE, 0, 0, most), frame(WINDOW_UPDATE, 0, 1, most))
    connection.until_over(1)
    assert connection.bodies[1] == b"x" * 64 * LARGE


@pytest.mark.parametrize("way", ["reset", "close"])
def test_an_app_that_waits_for_room_ends_with_its_client(fresh, way):
    _app, running, client = fresh
    connection = Connection(client, window=0)
    connection.say(head(1, "/large"))
    connection.until(lambda one: 1 in one.statuses)
    if way == "reset":
        connection.say(frame(RST_STREAM, 0, 1, CANCEL))
    else:
        client.close()
    while running.edge.tasks:
        running.run(asyncio.sleep(0.01))


def test_a_client_that_gives_no_room_for_too_long_is_cut(fresh):
    _app, running, client = fresh
    running.use(Front(send_timeout_s=0.3))
    connection = Connection(client, window=0)
    connection.say(head(1, "/large"))
    connection.until_closed()
    while running.edge.tasks or running.edge.connections:
        running.run(asyncio.sleep(0.01))
    assert 1 not in connection.ended


def test_a_client_that_makes_room_little_by_little_is_never_cut(fresh):
    app, running, client = fresh
    connection = Connection(client, window=0)
    connection.say(head(1, "/large"))
    connection.until(lambda one: 1 in one.statuses)
    (protocol,) = running.edge.connections
    piece, got = LARGE.to_bytes(4, "big"), 0
    for years in range(1, 11):
        connection.say(frame(WINDOW_UPDATE, 0, 0, piece), frame(WINDOW_UPDATE, 0, 1, piece))
        got += LARGE
        connection.until(lambda one, got=got: len(one.bodies[1]) == got)

        async def looked_at_when_as_much_as_before_waits(now=years * 3e7, got=got):
            limit = running.edge.limits.max_unsent_bytes
            while app.sent * LARGE - got <= limit:
                await asyncio.sleep(0.001)
            protocol.sweep(now)

        running.run(looked_at_when_as_much_as_before_waits())
    connection.say(frame(RST_STREAM, 0, 1, CANCEL), head(3, "/empty"))
    connection.until_over(3)


def test_a_drain_ends_what_began_and_then_says_goaway(fresh):
    app, running, client = fresh
    connection = Connection(client)
    connection.say(head(1, "/wait"))
    assert app.begun.acquire(timeout=10)
    drained = asyncio.run_coroutine_threadsafe(running.server.drain(20), running.loop)
    app.gate.set()
    connection.until_closed()
    assert (connection.bodies[1], 1 in connection.ended) == (b"waited", True)
    assert (GOAWAY, 0) in connection.frames
    client.close()
    drained.result(10)


def test_a_drain_that_waits_no_longer_cuts_what_hangs(fresh):
    app, running, client = fresh
    connection = Connection(client)
    connection.say(head(1, "/wait"))
    assert app.begun.acquire(timeout=10)
    drained = asyncio.run_coroutine_threadsafe(running.server.drain(0.1), running.loop)
    connection.until_closed()
    assert 1 not in connection.ended or connection.statuses[1] != 200
    client.close()
    drained.result(10)


def test_a_body_that_goes_past_the_limit_is_refused_however_it_comes(fresh):
    _app, running, client = fresh
    running.use(Front(max_request_body_bytes=10))
    connection = Connection(client)
    connection.say(
        head(1, "/echo", "POST", last=False), frame(DATA, 0, 1, b"12345"), frame(DATA, END_STREAM, 1, b"67890!")
    )
    connection.say(head(3, "/echo", "POST", last=False), frame(DATA, END_STREAM, 3, b"1234567890"))
    connection.until_over(1, 3)
    assert connection.statuses[1] == 413
    assert (connection.statuses[3], connection.bodies[3]) == (200, b"1234567890")


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        frame(DATA, 0, 1, b"of no stream"),
        frame(HEADERS, END_HEADERS | END_STREAM, 2, b"\x82\x87\x84"),  # streams of clients are odd
        frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        frame(WINDOW_UPDATE, 0, 0, bytes(4)),
        frame(SETTINGS, 0, 0, b"\0\x05\0\0\0\1"),  # frames of one byte
        frame(PING, 0, 0, b"short"),
        b"\xff\xff\xff\0\0\0\0\0\1" + b"x" * 20_000,
    ],
)
def test_what_is_no_http2_ends_that_connection_and_no_other(shared, garbage):
    dial, connection = shared
    broken = Connection(dial())
    broken.say(garbage)
    broken.until_closed()
    assert broken.statuses == {}
    stream = next_stream(connection)
    connection.say(head(stream, "/still"))
    connection.until_over(stream)
    assert connection.bodies[stream] == b"/still"
