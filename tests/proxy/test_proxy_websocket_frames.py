"""WebSockets frame by frame (RFC 6455): what clients may send, what they must not, and what apps do wrong."""

from __future__ import annotations

import asyncio
import threading

import pytest
from edge_server import respond, serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serveconf.proxy.edge import Limits

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RESERVED = 0x80, 0x40
HANDSHAKE = (
    "GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n"
)
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # of that key (RFC 6455 §1.3)


def frame(opcode, payload=b"", flags=FIN, masked=True):
    size = len(payload)
    mark = 0x80 if masked else 0
    if size < 126:
        head = bytes([flags | opcode, mark | size])
    elif size < 65_536:
        head = bytes([flags | opcode, mark | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([flags | opcode, mark | 127]) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    mask = b"\x01\x02\x03\x04"
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


class Socket:
    """A client that says frames and reads what the server says."""

    def __init__(self, client):
        self.client = client

    def open(self, path="/", fields="", early=b""):
        self.client.send(HANDSHAKE.format(path, fields).encode() + early)
        self.status, self.fields = self.client.head()
        return self

    def say(self, *frames):
        self.client.send(b"".join(frames))
        return self

    def hear(self):
        """The next frame as (opcode, payload); None where the server has closed."""
        head = self.client._exactly(2)
        if len(head) < 2:
            return None
        assert not head[1] & 0x80, "servers mask nothing"
        size = head[1] & 0x7F
        if size >= 126:
            size = int.from_bytes(self.client._exactly(2 if size == 126 else 8), "big")
        return head[0] & 0x0F, self.client._exactly(size)

    def closed_with(self):
        """The code and reason of the server's close; what comes before it is passed over."""
        while (heard := self.hear()) is not None:
            if heard[0] == CLOSE:
                return int.from_bytes(heard[1][:2], "big") if heard[1] else None, heard[1][2:].decode()
        return "no close"


class Apps:
    """By paths; ``ends`` are the disconnects that were heard."""

    def __init__(self):
        self.ends = []
        self.heard = threading.Semaphore(0)
        self.errors = []
        self.gate = threading.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            await respond(send, b"plain")
            return
        assert (await receive())["type"] == "websocket.connect"
        wrong = WRONG.get(scope["path"])
        if wrong is not None:
            for message in wrong:
                if isinstance(message, Exception):
                    raise message
                try:
                    await send(message)
                except Exception as error:
                    self.errors.append(type(error).__name__)
                    raise
            return
        while scope["path"] == "/late" and not self.gate.is_set():
            await asyncio.sleep(0.001)
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        self.ends.append((message.get("code"), message.get("reason") or ""))
        self.heard.release()


ACCEPTED = {"type": "websocket.accept"}
WRONG = {
    "/returns": [ACCEPTED],
    "/raises": [ACCEPTED, RuntimeError("after it was accepted")],
    "/raises-first": [RuntimeError("before")],
    "/silent": [],
    "/closes-first": [{"type": "websocket.close", "code": 4000}],
    "/accepts-twice": [ACCEPTED, ACCEPTED],
    "/sends-first": [{"type": "websocket.send", "text": "x"}],
    "/sends-nothing": [ACCEPTED, {"type": "websocket.send"}],
    "/sends-after": [ACCEPTED, {"type": "websocket.close"}, {"type": "websocket.send", "text": "x"}],
    "/code-1005": [ACCEPTED, {"type": "websocket.close", "code": 1005}],
    "/code-999": [ACCEPTED, {"type": "websocket.close", "code": 999}],
    "/reason": [ACCEPTED, {"type": "websocket.close", "code": 4000, "reason": "x" * 124}],
    "/injects": [{"type": "websocket.accept", "headers": [(b"x", b"a\r\nset-cookie: b")]}],
    "/http": [{"type": "http.response.start", "status": 200, "headers": []}],
    "/denies-half": [{"type": "websocket.http.response.start", "status": 418, "headers": []}],
    "/denies-by-103": [{"type": "websocket.http.response.start", "status": 42, "headers": []}],
}


@pytest.fixture
def server():
    apps = Apps()
    with serving(apps, limits=Limits(max_message_bytes=1000, max_fragments=50)) as running:
        running.apps = apps
        yield running


@pytest.fixture
def socket(server):
    with server.connect() as client:
        yield Socket(client).open()


def test_the_handshake_is_answered_as_the_standard_has_it(socket):
    assert socket.status == 101
    assert dict(socket.fields)["Sec-WebSocket-Accept"] == ACCEPT


PIECES = st.lists(st.binary(max_size=60), min_size=1, max_size=5)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    messages=st.lists(st.tuples(PIECES, st.lists(st.binary(max_size=125), max_size=2)), min_size=1, max_size=3),
    cuts=st.lists(st.integers(1, 400), max_size=6),
)
def test_neither_fragments_nor_pings_between_them_nor_packets_change_a_message(socket, messages, cuts):
    sent, pongs = b"", []
    for pieces, pings in messages:
        for at, piece in enumerate(pieces):
            last = at == len(pieces) - 1
            sent += frame(BINARY if at == 0 else CONTINUATION, piece, FIN if last else 0)
            if not last:
                sent += b"".join(frame(PING, ping) for ping in pings)
                pongs += pings
    for cut in sorted(set(cuts)):
        socket.say(sent[:cut])
        sent = sent[cut:]
    socket.say(sent)
    got = [socket.hear() for _ in range(len(messages) + len(pongs))]
    assert [payload for opcode, payload in got if opcode == BINARY] == [b"".join(pieces) for pieces, _ in messages]
    assert [payload for opcode, payload in got if opcode == PONG] == pongs


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(text=st.text(min_size=1, max_size=20), at=st.integers(0, 80))
def test_text_may_be_split_within_a_letter(socket, text, at):
    data = text.encode()
    cut = at % (len(data) + 1)
    socket.say(frame(TEXT, data[:cut], 0), frame(CONTINUATION, data[cut:]))
    assert socket.hear() == (TEXT, data)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ([frame(TEXT, b"plain", masked=False)], 1002),
        ([frame(TEXT, b"x", FIN | RESERVED | 0x20)], 1002),
        ([frame(3, b"x")], 1002),
        ([frame(11, b"x")], 1002),
        ([frame(CONTINUATION, b"of nothing")], 1002),
        ([frame(TEXT, b"a", 0), frame(TEXT, b"b")], 1002),
        ([frame(PING, b"x", 0)], 1002),
        ([frame(PING, b"x" * 126)], 1002),
        ([frame(CLOSE, b"\x03")], 1002),
        ([frame(CLOSE, (1005).to_bytes(2, "big"))], 1002),
        ([frame(CLOSE, (999).to_bytes(2, "big"))], 1002),
        ([frame(CLOSE, (1000).to_bytes(2, "big") + b"\xff")], 1007),
        ([frame(TEXT, b"\xff")], 1007),
        ([frame(TEXT, b"\xed\xa0\x80")], 1007),
        ([frame(TEXT, b"\xc3", 0), frame(CONTINUATION, b"(")], 1007),
        ([frame(BINARY, b"x" * 1001)], 1009),
        ([frame(BINARY, b"x" * 600, 0), frame(CONTINUATION, b"x" * 600)], 1009),
        ([frame(BINARY, b"x", 0), *[frame(CONTINUATION, b"x", 0)] * 50], 1009),
    ],
)
def test_what_a_client_must_not_say_closes_it_with_the_code_that_says_why(server, socket, said, code):
    assert socket.say(*said).closed_with()[0] == code
    assert server.apps.heard.acquire(timeout=10)
    assert server.apps.ends[0][0] in (code, 1006, 1005)


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (b"", (1005, "")),
        ((1000).to_bytes(2, "big"), (1000, "")),
        ((4999).to_bytes(2, "big") + "schön".encode(), (4999, "schön")),
    ],
)
def test_the_client_s_close_is_told_to_the_app_and_said_back(server, socket, payload, told):
    socket.say(frame(CLOSE, payload))
    assert socket.closed_with()[0] == (None if told[0] == 1005 else told[0])
    assert server.apps.heard.acquire(timeout=10)
    assert server.apps.ends == [told]


def test_a_client_that_just_goes_is_an_abnormal_end(server, socket):
    socket.client.sock.close()
    assert server.apps.heard.acquire(timeout=10)
    assert [code for code, _ in server.apps.ends] in ([1006], [1005])


def test_frames_that_come_with_the_handshake_wait_for_its_answer(server):
    early = frame(PING, b"early") + frame(TEXT, b"one") + frame(TEXT, b"two")
    with server.connect() as client:
        client.send(HANDSHAKE.format("/late", "").encode() + early)
        server.apps.gate.set()
        socket = Socket(client)
        assert client.head()[0] == 101
        assert sorted(socket.hear() for _ in range(3)) == [(TEXT, b"one"), (TEXT, b"two"), (PONG, b"early")]


@pytest.mark.parametrize(
    "path", ["/returns", "/raises", "/accepts-twice", "/sends-nothing", "/code-1005", "/code-999", "/reason"]
)
def test_an_app_that_does_wrong_after_it_has_accepted_never_says_an_orderly_end(server, path, caplog):
    with server.connect() as client:
        socket = Socket(client).open(path)
        assert (socket.status, socket.closed_with()) == (101, "no close")
    assert all_is_counted_out(server)


def test_what_an_app_says_after_its_close_is_its_own_error(server, caplog):
    with server.connect() as client:
        assert Socket(client).open("/sends-after").say(frame(CLOSE)).closed_with()[0] == 1000
    assert all_is_counted_out(server)
    assert server.apps.errors == ["RuntimeError"]


def all_is_counted_out(server):
    """Waits until nobody is connected and nothing runs."""
    while server.edge.websockets or server.edge.connections or server.edge.tasks:
        server.run(asyncio.sleep(0.01))
    return server.edge.tally.open_streams == 0


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/raises-first", 500),
        ("/silent", 500),
        ("/closes-first", 403),
        ("/sends-first", 500),
        ("/injects", 500),
        ("/http", 500),
        ("/denies-by-103", 500),
    ],
)
def test_an_app_that_does_not_accept_refuses_the_handshake(server, path, status, caplog):
    with server.connect() as client:
        socket = Socket(client).open(path)
        assert socket.status == status
        assert "set-cookie" not in dict(socket.fields)
        while client._more():
            pass
    assert all_is_counted_out(server)


def test_a_refusal_that_is_not_completed_never_looks_whole(server, caplog):
    with server.connect() as client:
        client.send(HANDSHAKE.format("/denies-half", ""))
        answer = client.answer()
        assert answer is None or answer.status == 500 or not answer.whole
