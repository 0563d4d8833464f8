"""HTTP over a WireServer and a WireClient, on real sockets."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from wire_harness import Peer, answer, get, http_scope, in_loop, pair, until

from serveconf.wire import CLIENT_LEFT, Limits, StreamCut, StreamLost, StreamRefused
from serveconf.wire.frames import PIECE_COST

MIB = 1 << 20


async def read_all(receive: Any) -> bytes:
    pieces = []
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        pieces.append(message["body"])
        if not message["more_body"]:
            return b"".join(pieces)


@in_loop
async def test_the_scope_arrives_as_it_was() -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)
        await answer(send)

    scope = http_scope("/a/ä", headers=[(b"x", b"1"), (b"x", b"2")]) | {"raw_path": b"/a/%C3%A4", "root_path": "/a"}
    state = {"pool": object()}
    async with pair(app, state=state) as (_, client):
        peer = get()
        assert await client(scope | {"strange": object()}, peer.receive, peer.send) == 200
    assert peer.body == b"ok" and peer.ended
    for key in ("type", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path"):
        assert seen[key] == scope[key]
    assert seen["headers"] == [(b"x", b"1"), (b"x", b"2")]
    assert seen["client"] == ("10.0.0.1", 1234) and seen["server"] == ("127.0.0.1", 8000)
    assert seen["state"]["pool"] is state["pool"] and seen["state"] is not state
    assert "strange" not in seen


@in_loop
async def test_large_bodies_pass_both_ways_unchanged() -> None:
    payload = bytes(range(256)) * (5 * MIB // 256)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, await read_all(receive))

    async with pair(app) as (_, client):
        for size in (0, 1, 30_000, 40_000, 300_000, len(payload)):
            peer = Peer({"type": "http.request", "body": payload[:size], "more_body": False})
            assert await client(http_scope(method="POST"), peer.receive, peer.send) == 200
            assert peer.body == payload[:size]


@in_loop
async def test_each_event_of_a_stream_arrives_before_the_next_is_made() -> None:
    step = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
            await step.wait()
            step.clear()
        await send({"type": "http.response.body"})

    async with pair(app) as (_, client):
        peer = get()
        call = asyncio.create_task(client(http_scope(), peer.receive, peer.send))
        for number in range(3):
            await peer.until(number + 2)
            assert peer.body == b"012"[: number + 1]
            step.set()
        assert await call == 200 and peer.ended


@in_loop
async def test_the_head_is_sent_before_the_first_piece_of_the_body() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 202, "headers": []})
        await go.wait()
        await send({"type": "http.response.body", "body": b"late"})

    async with pair(app) as (_, client):
        peer = get()
        call = asyncio.create_task(client(http_scope(), peer.receive, peer.send))
        await peer.until(1)
        assert peer.status == 202 and len(peer.got) == 1
        go.set()
        await call
        assert peer.body == b"late"


@in_loop
async def test_an_answer_can_begin_before_a_chunked_request_has_ended() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    async with pair(app) as (_, client):
        peer = Peer()
        scope = http_scope(method="POST", headers=[(b"transfer-encoding", b"chunked")])
        call = asyncio.create_task(client(scope, peer.receive, peer.send))
        await peer.until(1)
        for piece in (b"a", b"b"):
            peer.to_send.put_nowait({"type": "http.request", "body": piece, "more_body": True})
            await until(lambda piece=piece: peer.body.endswith(piece))
        peer.to_send.put_nowait({"type": "http.request", "body": b"c", "more_body": False})
        await call
        assert peer.body == b"abc"


@in_loop
async def test_an_expected_body_is_pulled_only_when_the_application_asks_for_it() -> None:
    pulled: list[str] = []
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/reject":
            await answer(send, status=413)
            return
        await go.wait()
        await answer(send, await read_all(receive))

    headers = [(b"expect", b"100-continue"), (b"content-length", b"3")]
    async with pair(app) as (server, client):
        peer = Peer({"type": "http.request", "body": b"abc", "more_body": False})

        async def receive() -> dict[str, Any]:
            pulled.append("x")
            return await peer.receive()

        assert await client(http_scope("/reject", "POST", headers), receive, peer.send) == 413
        assert not pulled
        other = Peer()
        other.to_send = peer.to_send
        call = asyncio.create_task(client(http_scope("/", "POST", headers), receive, other.send))
        await until(lambda: server.ongoing == 1)
        assert not pulled
        go.set()
        assert await call == 200 and other.body == b"abc"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/raise", "no good"),
        ("/nothing", "without starting response"),
        ("/wrong", "Expected ASGI message"),
        ("/interim", "Invalid HTTP status code '123'"),
    ],
)
def test_an_application_that_fails_before_it_answers_gives_500(
    path: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/raise":
            raise ValueError("no good")
        if scope["path"] == "/wrong":
            await send({"type": "http.response.body"})
        if scope["path"] == "/interim":
            await send({"type": "http.response.start", "status": 123, "headers": []})

    @in_loop
    async def run() -> None:
        async with pair(app) as (server, client):
            peer = get()
            assert await client(http_scope(path), peer.receive, peer.send) == 500
            assert peer.body == b"Internal Server Error" and peer.ended
            assert server.ongoing == 0

    run()
    assert says in caplog.text


@pytest.mark.parametrize("path", ["/raise", "/short", "/long", "/unfinished", "/exit"])
@in_loop
async def test_an_application_that_fails_while_it_answers_is_cut(path: str) -> None:
    logging.getLogger("serveconf.wire").setLevel(logging.CRITICAL)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"5")] if path in ("/short", "/long") else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        if path == "/raise":
            raise ValueError
        if path == "/exit":
            raise SystemExit
        if path == "/short":
            await send({"type": "http.response.body"})
        if path == "/long":
            await send({"type": "http.response.body", "body": b"defghi"})

    async with pair(app) as (server, client):
        peer = get()
        with pytest.raises(StreamCut):
            await client(http_scope(path), peer.receive, peer.send)
        assert not peer.ended
        await until(lambda: server.ongoing == 0 and client.ongoing == 0)
    logging.getLogger("serveconf.wire").setLevel(logging.NOTSET)


@in_loop
async def test_a_bad_header_is_the_applications_error_and_not_the_connections() -> None:
    logging.getLogger("serveconf.wire").setLevel(logging.CRITICAL)
    bad: list[Any] = [(b"x", b"a\r\nb: c"), (b"x y", b"1"), (b"", b"1"), ("x", "1"), (b"content-length", b"-1")]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        header = bad[int(scope["path"][1:])]
        await send({"type": "http.response.start", "status": 200, "headers": [header]})

    async with pair(app) as (_, client):
        for number in range(len(bad)):
            peer = get()
            assert await client(http_scope(f"/{number}"), peer.receive, peer.send) == 500
    logging.getLogger("serveconf.wire").setLevel(logging.NOTSET)


@in_loop
async def test_a_client_that_leaves_cancels_the_handler_and_closes_its_generators() -> None:
    closed = asyncio.Event()
    started = asyncio.Event()

    async def ticks() -> Any:
        try:
            while True:
                yield b"tick"
                started.set()
                await asyncio.sleep(3600)
        finally:
            closed.set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async for tick in ticks():
            await send({"type": "http.response.body", "body": tick, "more_body": True})

    async with pair(app) as (server, client):
        peer = get()
        call = asyncio.create_task(client(http_scope(), peer.receive, peer.send))
        await started.wait()
        peer.leave()
        assert await call == CLIENT_LEFT
        await closed.wait()
        await until(lambda: server.ongoing == 0 and client.ongoing == 0)


@in_loop
async def test_an_application_that_listens_hears_that_its_client_left() -> None:
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        heard.append((await receive())["type"])
        await asyncio.sleep(0)
        heard.append("put in order")

    async with pair(app) as (server, client):
        peer = get()
        call = asyncio.create_task(client(http_scope(), peer.receive, peer.send))
        await until(lambda: server.ongoing == 1)
        peer.leave()
        await call
        await until(lambda: server.ongoing == 0)
    assert heard == ["http.disconnect", "put in order"]


@in_loop
async def test_a_cancelled_call_cancels_the_handler() -> None:
    cancelled = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with pair(app) as (server, client):
        peer = get()
        call = asyncio.create_task(client(http_scope(), peer.receive, peer.send))
        await until(lambda: server.ongoing == 1)
        call.cancel()
        await cancelled.wait()
        await until(lambda: client.ongoing == 0)


@in_loop
async def test_background_work_goes_on_after_the_answer_and_counts_as_ongoing() -> None:
    go, done = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)
        await go.wait()
        done.set()

    async with pair(app) as (server, client):
        peer = get()
        assert await client(http_scope(), peer.receive, peer.send) == 200
        assert server.ongoing == 1 and client.ongoing == 1
        go.set()
        await done.wait()
        await until(lambda: server.ongoing == 0 and client.ongoing == 0)


@in_loop
async def test_more_than_max_ongoing_is_refused_and_room_is_told() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await answer(send)

    async with pair(app, max_ongoing=1) as (server, client):
        told = asyncio.Event()
        client.on_room = told.set
        one, two = get(), get()
        first = asyncio.create_task(client(http_scope(), one.receive, one.send))
        await until(lambda: server.ongoing == 1)
        with pytest.raises(StreamRefused):
            await client(http_scope(), two.receive, two.send)
        assert client.full and client.ongoing == 1
        told.clear()
        go.set()
        await first
        await told.wait()
        assert not client.full


@pytest.mark.parametrize("size", [1, 63, 64, 1_000])
def test_credit_of_any_granularity_never_runs_dry(size: int) -> None:
    """The largest piece that the window allows: a sender waits for credit for one while little is granted."""
    count = 20_000 // (size + PIECE_COST)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    @in_loop
    async def run() -> None:
        async with pair(app, limits=Limits(window_bytes=4096, piece_bytes=4096 * 3 // 4 - PIECE_COST)) as (_, client):
            peer = Peer()
            for number in range(count):
                peer.to_send.put_nowait({"type": "http.request", "body": bytes(size), "more_body": number + 1 < count})
            assert await client(http_scope(method="POST"), peer.receive, peer.send) == 200
            assert len(peer.body) == size * count

    run()


@in_loop
async def test_a_request_that_begins_while_others_wait_for_their_turn_has_its_credit_accounted() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"%d" % len(await read_all(receive)))

    async with pair(app) as (_, client):
        peer = Peer({"type": "http.request", "body": bytes(1_000), "more_body": True})
        client.pause_writing()
        call = asyncio.create_task(client(http_scope(method="POST"), peer.receive, peer.send))
        await asyncio.sleep(0.01)
        client.resume_writing()
        for number in range(40):
            peer.to_send.put_nowait({"type": "http.request", "body": bytes(30_000), "more_body": number < 39})
            await asyncio.sleep(0.001)
        assert await call == 200
        assert peer.body == b"1201000"


@in_loop
async def test_a_slow_client_stalls_only_its_own_stream_and_memory_is_bounded() -> None:
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        if scope["path"] == "/quick":
            await answer(send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(100):
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": number < 99})
            sent += 100_000

    async with pair(app) as (_, client):
        slow = get()
        slow.open_gate.clear()
        call = asyncio.create_task(client(http_scope("/slow"), slow.receive, slow.send))
        await until(lambda: sent > 500_000)
        for _ in range(20):
            quick = get()
            assert await client(http_scope("/quick"), quick.receive, quick.send) == 200
        assert sent <= Limits().window_bytes
        slow.open_gate.set()
        assert await call == 200
        assert len(slow.body) == 10_000_000


@in_loop
async def test_a_slow_handler_is_sent_no_more_than_its_window() -> None:
    go = asyncio.Event()
    pulled = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await answer(send, b"%d" % len(await read_all(receive)))

    async def receive() -> dict[str, Any]:
        nonlocal pulled
        pulled += 100_000
        return {"type": "http.request", "body": b"x" * 100_000, "more_body": pulled < 10_000_000}

    async with pair(app) as (server, client):
        peer = Peer()
        call = asyncio.create_task(client(http_scope(method="POST"), receive, peer.send))
        await until(lambda: server.ongoing == 1)
        for _ in range(50):
            await asyncio.sleep(0)
        assert pulled <= Limits().window_bytes + 100_000
        go.set()
        assert await call == 200
        assert peer.body == b"10000000"


@in_loop
async def test_a_lost_connection_is_told_to_every_stream_and_to_the_handlers() -> None:
    cancelled: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            if scope["path"] == "/started":
                await send({"type": "http.response.start", "status": 200, "headers": []})
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(scope["path"])
            raise

    async with pair(app) as (server, client):
        closed = asyncio.Event()
        client.on_close = closed.set
        one, two = get(), get()
        calls = [
            asyncio.create_task(client(http_scope("/started"), one.receive, one.send)),
            asyncio.create_task(client(http_scope("/waiting"), two.receive, two.send)),
        ]
        await one.until(1)
        client.abort()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(r) for r in results] == [StreamLost, StreamLost]
        assert [r.response_started for r in results] == [True, False]  # type: ignore[union-attr]
        await closed.wait()
        assert client.closed and client.ongoing == 0
        await until(lambda: server.ongoing == 0)
        assert sorted(cancelled) == ["/started", "/waiting"]
        with pytest.raises(StreamRefused):
            await client(http_scope(), one.receive, one.send)


@in_loop
async def test_headers_too_large_for_the_wire_fail_their_own_request_only() -> None:
    from serveconf.wire import FrameTooLarge

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)

    async with pair(app, limits=Limits(max_batch_bytes=10_000)) as (_, client):
        peer = get()
        with pytest.raises(FrameTooLarge):
            await client(http_scope(headers=[(b"x", b"y" * 20_000)]), peer.receive, peer.send)
        assert client.ongoing == 0
        again = get()
        assert await client(http_scope(), again.receive, again.send) == 200


def test_an_application_that_raises_because_its_client_left_is_no_error_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()
        raise ValueError("my client has left me")

    @in_loop
    async def run() -> None:
        async with pair(app) as (server, client):
            peer = get()
            call = asyncio.create_task(client(http_scope(), peer.receive, peer.send))
            await until(lambda: server.ongoing == 1)
            peer.leave()
            assert await call == CLIENT_LEFT
            await until(lambda: server.ongoing == 0)

    run()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
