"""Connections: who gets in, what garbage does, how they drain, and that nothing mixes up."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_harness import SECRET, Peer, answer, get, http_scope, in_loop, pair, until

from serveconf.wire import Limits, ProtocolError, StreamCut, StreamLost, StreamRefused, WireClient, WireServer
from serveconf.wire import handshake as handshake_module
from serveconf.wire.frames import Body, Credit, Open, Reply, encode
from serveconf.wire.handshake import ClientHandshake, ServerHandshake
from serveconf.wire.opening import GENERATION, GENERATION_HEADER

SMALL = Limits(window_bytes=4096, piece_bytes=512, inline_bytes=128)


async def ok(scope: Any, receive: Any, send: Any) -> None:
    await answer(send)


@in_loop
async def test_the_unix_socket_is_its_owners_alone_and_replaces_a_stale_one() -> None:
    server = WireServer(ok, secret=SECRET, max_ongoing=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.sock"
        path.write_text("stale")
        await server.listen_unix(str(path))
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        client = await WireClient.connect(f"unix:{path}", secret=SECRET)
        await client.retire()
        await server.close()


@in_loop
async def test_what_others_write_while_a_socket_is_made_has_the_modes_that_it_always_has(tmp_path: Path) -> None:
    """The umask is the process's: user code that starts beside would find it, where anything were awaited under it."""
    os.umask(usual := os.umask(0))
    found = []

    async def look() -> None:
        while True:
            os.umask(now := os.umask(0o077))
            found.append(now)
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    await asyncio.sleep(0)
    server = WireServer(ok, secret=SECRET, max_ongoing=1)
    await server.listen_unix(str(tmp_path / "r.sock"))
    looking.cancel()
    await server.close()
    assert len(found) > 1
    assert set(found) == {usual}


@in_loop
async def test_requests_pass_over_tcp_too() -> None:
    server = WireServer(ok, secret=SECRET, max_ongoing=1)
    host, port = await server.listen_tcp("127.0.0.1")
    client = await WireClient.connect(f"tcp:{host}:{port}", secret=SECRET)
    peer = get()
    assert await client(http_scope(), peer.receive, peer.send) == 200
    await client.retire()
    await server.close()


@in_loop
async def test_who_does_not_know_the_secret_is_not_let_in() -> None:
    async with pair(ok) as (server, client):
        address = server._listeners[0].sockets[0].getsockname()
        with pytest.raises(ConnectionRefusedError):
            await WireClient.connect(f"unix:{address}", secret=b"wrong" * 7)
        peer = get()
        assert await client(http_scope(), peer.receive, peer.send) == 200


@in_loop
async def test_a_server_that_does_not_know_the_secret_gets_no_request() -> None:
    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ServerHandshake(b"other").hello())
        await reader.readexactly(72)
        writer.write(b"x" * 32)
        assert await reader.read() == b""
        writer.close()

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/r.sock"
        listener = await asyncio.start_unix_server(impostor, path)
        with pytest.raises(ConnectionRefusedError):
            await WireClient.connect(f"unix:{path}", secret=SECRET)
        listener.close()


@in_loop
async def test_a_peer_that_says_nothing_is_cut_off() -> None:
    async with pair(ok, limits=Limits(handshake_timeout_s=1.0)) as (server, _):
        reader, writer = await asyncio.open_unix_connection(server._listeners[0].sockets[0].getsockname())
        await reader.readexactly(40)
        assert await reader.read() == b""
        writer.close()


async def shaken(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(path)
    handshake = ClientHandshake(SECRET)
    writer.write(handshake.feed(await reader.readexactly(handshake.wants)))
    handshake.feed(await reader.readexactly(handshake.wants))
    return reader, writer


OPEN = Open(1, False, "GET", "http", "1.1", "/", b"/", b"", "", [], None, None)
HOSTILE = st.one_of(
    st.binary(min_size=1, max_size=300),
    st.binary(max_size=300).map(lambda body: len(body).to_bytes(4, "big") + body),
    st.just(encode([OPEN, OPEN], Limits())),
    st.just(encode([Body(7, b"never opened")], Limits())),
    st.just(encode([OPEN, Credit(1, 1 << 40)], Limits())),
    st.just(
        encode(
            [
                Open(1, False, "POST", "", "1.1", "", b"", b"", "", [], None, None, more=True),
                Body(1, b"x" * 5000, more=True),
            ],
            Limits(),
        )
    ),
    st.just(b"\xff\xff\xff\xff"),
)


def test_garbage_ends_its_own_connection_and_nothing_else() -> None:
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(HOSTILE, st.booleans())
    def run(garbage: bytes, after_handshake: bool) -> None:
        asyncio.run(against_server(garbage, after_handshake))

    async def against_server(garbage: bytes, after_handshake: bool) -> None:
        async with asyncio.timeout(120), pair(ok, limits=SMALL) as (server, client):
            path = server._listeners[0].sockets[0].getsockname()
            reader, writer = await (shaken(path) if after_handshake else asyncio.open_unix_connection(path))
            writer.write(garbage)
            writer.write_eof()
            await reader.read()
            writer.close()
            peer = get()
            assert await client(http_scope(), peer.receive, peer.send) == 200
            await until(lambda: server.ongoing == 0 and len(server._connections) == 1)

    run()


def test_garbage_from_a_replica_ends_its_connection_with_an_error_for_its_requests_only() -> None:
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(min_size=1, max_size=300), st.booleans())
    def run(garbage: bytes, framed: bool) -> None:
        asyncio.run(against_client(len(garbage).to_bytes(4, "big") + garbage if framed else garbage))

    async def against_client(garbage: bytes) -> None:
        async def replica(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            handshake = ServerHandshake(SECRET)
            writer.write(handshake.hello())
            writer.write(handshake.feed(await reader.readexactly(handshake.wants)))
            await reader.read(10)
            writer.write(garbage)
            writer.close()

        with tempfile.TemporaryDirectory() as folder:
            listener = await asyncio.start_unix_server(replica, f"{folder}/r.sock")
            async with asyncio.timeout(120):
                client = await WireClient.connect(f"unix:{folder}/r.sock", secret=SECRET)
                peer = get()
                with pytest.raises((StreamLost, StreamRefused)):
                    await client(http_scope(), peer.receive, peer.send)
                await until(lambda: client.closed)
            listener.close()

    run()


def test_bytes_may_arrive_in_any_pieces() -> None:
    """Random sizes, a tiny window and a relay that cuts the bytes anywhere: every body comes back whole and in order."""

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.integers(0, 20_000), min_size=1, max_size=8),
        st.lists(st.integers(1, 3000), min_size=1, max_size=20),
    )
    def run(sizes: list[int], cuts: list[int]) -> None:
        asyncio.run(through_relay(sizes, cuts))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cuts: list[int]) -> None:
        turn = 0
        while data := await reader.read(cuts[turn % len(cuts)]):
            turn += 1
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    async def through_relay(sizes: list[int], cuts: list[int]) -> None:
        async with asyncio.timeout(120), pair(app, limits=SMALL) as (server, _):
            path = server._listeners[0].sockets[0].getsockname()
            copies = []

            async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                far_reader, far_writer = await asyncio.open_unix_connection(path)
                copies.append(asyncio.create_task(copy(reader, far_writer, cuts)))
                copies.append(asyncio.create_task(copy(far_reader, writer, cuts)))

            listener = await asyncio.start_unix_server(relay, path + "2")
            client = await WireClient.connect(f"unix:{path}2", secret=SECRET, limits=SMALL)

            async def one(size: int) -> None:
                body = hashlib.shake_128(str(size).encode()).digest(size)
                half = size // 3
                peer = Peer(
                    {"type": "http.request", "body": body[:half], "more_body": True},
                    {"type": "http.request", "body": body[half:], "more_body": False},
                )
                assert await client(http_scope(method="POST"), peer.receive, peer.send) == 200
                assert peer.body == body

            await asyncio.gather(*(one(size) for size in sizes))
            assert client.open
            await client.retire()
            listener.close()
            await asyncio.gather(*copies)

    run()


@in_loop
async def test_drain_waits_for_streams_and_for_proxies_to_leave() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await answer(send)

    async with pair(app) as (server, client):
        peer, late = get(), get()
        call = asyncio.create_task(client(http_scope(), peer.receive, peer.send))
        await until(lambda: server.ongoing == 1)
        draining = asyncio.create_task(server.drain(20))
        late_call = asyncio.create_task(client(http_scope(), late.receive, late.send))
        await until(lambda: server.ongoing == 2)
        retiring = asyncio.create_task(client.retire())
        await asyncio.sleep(0)
        with pytest.raises(StreamRefused):
            await client(http_scope(), peer.receive, peer.send)
        assert not draining.done()
        go.set()
        assert await call == 200 and await late_call == 200
        await retiring
        assert await draining is True


@in_loop
async def test_drain_past_its_time_cuts_answers_and_refuses_what_comes() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await asyncio.sleep(3600)

    async with pair(app) as (server, client):
        peer = get()
        call = asyncio.create_task(client(http_scope(), peer.receive, peer.send))
        await peer.until(2)
        assert await server.drain(0.01) is False
        with pytest.raises(StreamCut):
            await call
        assert not peer.ended
        with pytest.raises(StreamRefused):
            await client(http_scope(), get().receive, peer.send)
        assert not client.open


@in_loop
async def test_the_load_of_other_proxies_comes_with_the_answers() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/wait":
            await go.wait()
        await answer(send)

    async with pair(app) as (server, one):
        path = server._listeners[0].sockets[0].getsockname()
        two = await WireClient.connect(f"unix:{path}", secret=SECRET)
        waiting = []
        for _ in range(3):
            peer = get()
            waiting.append(asyncio.create_task(one(http_scope("/wait"), peer.receive, peer.send)))
        await until(lambda: server.ongoing == 3)
        assert two.load == 0
        peer = get()
        await two(http_scope(), peer.receive, peer.send)
        await until(lambda: two.ongoing == 0)
        assert two.load == 3 and one.load == 3
        go.set()
        await asyncio.gather(*waiting)
        await two.retire()


@pytest.mark.parametrize("versions", [b"\x00\x01", b"\x00\x06", b"\x01\x01"])
def test_a_handshake_without_a_version_that_both_speak_is_a_protocol_error(versions: bytes) -> None:
    with pytest.raises(ProtocolError):
        ClientHandshake(SECRET).feed(b"scwire" + versions + bytes(32))


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [(b"\x00\x03", 3), (b"\x01\x02", 3), (b"\x01\x03", 4), (b"\x01\x04", 5), (b"\x00\x05", 5), (b"\x01\x05", 5)],
)
def test_two_ends_take_the_newest_version_that_both_speak(versions: bytes, chosen: int) -> None:
    client = ClientHandshake(SECRET)
    assert client.feed(b"scwire" + versions + bytes(32))[:8] == b"scwire\x00" + bytes((chosen,))
    assert client.version == chosen


@in_loop
async def test_an_answer_that_a_replica_calls_done_before_it_is_whole_is_cut() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async with pair(app) as (server, client):
        peer = get()
        call = asyncio.create_task(client(http_scope(), peer.receive, peer.send))
        await until(lambda: server.ongoing == 1)
        client.frames_received([Reply(1, 200, [], more=True, done=True)])
        with pytest.raises(StreamCut):
            await call


@in_loop
async def test_a_replica_that_closes_ends_what_it_has_taken_in_that_very_turn() -> None:
    entered = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        entered.append(scope["path"])
        await asyncio.Event().wait()

    async with pair(app) as (server, client):
        peer = get()
        call = asyncio.create_task(client(http_scope(), peer.receive, peer.send))
        while not server.ongoing:
            await asyncio.sleep(0)
        assert entered == []  # taken, and not begun
        await server.close()
        assert (entered, server.ongoing) == (["/"], 0)
        with pytest.raises(StreamLost):
            await call


@in_loop
async def test_an_end_of_an_older_version_is_sent_no_more_than_it_takes(monkeypatch) -> None:
    async def large(scope, receive, send) -> None:
        await answer(send, bytes(5 << 20))

    monkeypatch.setattr(handshake_module, "VERSION", 4)
    async with pair(large) as (server, client):
        (other,) = server._connections
        assert client.limits == other.limits == Limits(window_bytes=(1 << 20) + 1024, piece_bytes=512 << 10)
        peer = get()
        await client(http_scope(), peer.receive, peer.send)
        assert peer.body == bytes(5 << 20)


@in_loop
@pytest.mark.parametrize(("version", "told"), [(3, False), (4, False), (5, True)])
async def test_a_table_s_number_is_told_to_who_takes_it_away(monkeypatch, version: int, told: bool) -> None:
    seen: list[bytes] = []

    async def app(scope, receive, send) -> None:
        seen.extend(name for name, _ in scope["headers"])
        await answer(send)

    monkeypatch.setattr(handshake_module, "VERSION", version)
    async with pair(app) as (_, client):
        peer = get()
        await client({**http_scope(), GENERATION: 7}, peer.receive, peer.send)
        assert (GENERATION_HEADER in seen) is told
