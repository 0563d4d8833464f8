"""WebSockets over a WireServer and a WireClient."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from wire_harness import Peer, in_loop, pair, until, websocket_scope

from serveconf.wire import Limits, StreamCut
from serveconf.wire.frames import PIECE_COST
from serveconf.wire.handlers import ClientDisconnected

CONNECT = {"type": "websocket.connect"}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept", "subprotocol": "b", "headers": [(b"x-a", b"1")]})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", **{key: message[key] for key in ("text", "bytes") if key in message}})


@in_loop
async def test_text_and_binary_come_back_and_the_close_code_arrives() -> None:
    codes: list[tuple[int, str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["subprotocols"] == ["a", "b"]
        assert scope["extensions"] == {"websocket.http.response": {}}

        async def noting() -> Any:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                codes.append((message["code"], message["reason"]))
            return message

        await echo(scope, noting, send)

    async with pair(app) as (server, client):
        peer = Peer(CONNECT)
        call = asyncio.create_task(client(websocket_scope(), peer.receive, peer.send))
        await peer.until(1)
        assert peer.got[0] == {"type": "websocket.accept", "subprotocol": "b", "headers": [(b"x-a", b"1")]}
        messages: list[dict[str, Any]] = [
            {"text": "hällo"},
            {"bytes": b"\x00\xff"},
            {"text": ""},
            {"bytes": b""},
            {"text": "ä" * 1_000_000},
            {"bytes": bytes(3_000_000)},
        ]
        for number, message in enumerate(messages):
            peer.to_send.put_nowait({"type": "websocket.receive", **message})
            await peer.until(number + 2)
            assert peer.got[-1] == {"type": "websocket.send", **message}
        peer.leave("websocket.disconnect", code=4001, reason="bye")
        assert await call == 101
        await until(lambda: server.ongoing == 0 and client.ongoing == 0)
    assert codes == [(4001, "bye")]


@in_loop
async def test_the_applications_close_code_and_reason_arrive() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": bytes(100_000)})
        await send({"type": "websocket.close", "code": 3005, "reason": "enough"})
        assert (await receive())["type"] == "websocket.disconnect"

    async with pair(app) as (_, client):
        peer = Peer(CONNECT)
        assert await client(websocket_scope(), peer.receive, peer.send) == 101
        assert len(peer.got[1]["bytes"]) == 100_000
        assert peer.got[-1] == {"type": "websocket.close", "code": 3005, "reason": "enough"}


@in_loop
async def test_a_handshake_can_be_rejected_and_denied_with_a_response() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] == "/reject":
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"a", b"b")]})
        await send({"type": "websocket.http.response.body", "body": b"who are ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"you?"})

    async with pair(app) as (_, client):
        peer = Peer(CONNECT)
        assert await client(websocket_scope("/reject"), peer.receive, peer.send) == 403
        assert [m["type"] for m in peer.got] == ["websocket.close"]
        peer = Peer(CONNECT)
        assert await client(websocket_scope("/deny"), peer.receive, peer.send) == 401
        assert peer.got[0] == {"type": "websocket.http.response.start", "status": 401, "headers": [(b"a", b"b")]}
        assert peer.body == b"who are you?" and peer.ended


def test_an_application_that_raises_closes_with_1011_or_fails_the_handshake(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] == "/accepted":
            await send({"type": "websocket.accept"})
        raise ValueError("no good")

    @in_loop
    async def run() -> None:
        async with pair(app) as (_, client):
            peer = Peer(CONNECT)
            assert await client(websocket_scope("/accepted"), peer.receive, peer.send) == 101
            assert peer.got[-1] == {"type": "websocket.close", "code": 1011, "reason": ""}
            peer = Peer(CONNECT)
            with pytest.raises(StreamCut):
                await client(websocket_scope("/early"), peer.receive, peer.send)

    run()
    assert "no good" in caplog.text


@in_loop
async def test_a_message_larger_than_the_window_passes_and_one_beyond_the_limit_closes_with_1009() -> None:
    limits = Limits(max_message_bytes=2_000_000)
    codes: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": str(len(message["bytes"]))})
        codes.append(message["code"])

    async with pair(app, limits=limits) as (server, client):
        peer = Peer(CONNECT)
        call = asyncio.create_task(client(websocket_scope(), peer.receive, peer.send))
        peer.to_send.put_nowait({"type": "websocket.receive", "bytes": bytes(1_900_000)})
        await peer.until(2)
        assert peer.got[1]["text"] == "1900000"
        peer.to_send.put_nowait({"type": "websocket.receive", "bytes": bytes(2_000_001)})
        await call
        await until(lambda: server.ongoing == 0)
    assert codes == [1009]


@pytest.mark.parametrize("size", [0, 1, 5, 63, 64, 128])
def test_credit_of_any_granularity_never_runs_dry(size: int) -> None:
    """The largest piece that the window allows: a sender waits for credit for one while little is granted."""

    @in_loop
    async def run() -> None:
        async with pair(echo, limits=Limits(window_bytes=4096, piece_bytes=4096 * 3 // 4 - PIECE_COST)) as (_, client):
            peer = Peer(CONNECT)
            call = asyncio.create_task(client(websocket_scope(), peer.receive, peer.send))
            for number in range(300):
                peer.to_send.put_nowait({"type": "websocket.receive", "bytes": bytes(size)})
                await peer.until(number + 1)
            peer.leave("websocket.disconnect", code=1000)
            assert await call == 101

    run()


def test_limits_under_which_credit_could_run_dry_are_refused() -> None:
    with pytest.raises(ValueError, match="piece_bytes"):
        Limits(window_bytes=4096, piece_bytes=4096 * 3 // 4)


@in_loop
async def test_unread_messages_are_bounded_by_the_window() -> None:
    go = asyncio.Event()
    pulled = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await go.wait()
        for _ in range(2000):
            await receive()
        await send({"type": "websocket.close"})

    async def receive() -> dict[str, Any]:
        nonlocal pulled
        pulled += 1
        return {"type": "websocket.receive", "text": "x" * 10_000}

    async with pair(app) as (_, client):
        peer = Peer()
        call = asyncio.create_task(client(websocket_scope(), receive, peer.send))
        await peer.until(1)
        for _ in range(50):
            await asyncio.sleep(0)
        assert pulled <= Limits().window_bytes // 10_000
        go.set()
        assert await call == 101
        assert pulled >= 2000


@in_loop
async def test_a_close_after_the_client_has_left_changes_nothing_and_a_message_raises() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.send", "text": "too late"})
        await send({"type": "websocket.close", "code": 1001})
        seen.append("cleaned up")

    async with pair(app) as (server, client):
        peer = Peer(CONNECT)
        call = asyncio.create_task(client(websocket_scope(), peer.receive, peer.send))
        await peer.until(1)
        peer.leave("websocket.disconnect", code=1001, reason="")
        assert await call == 101
        await until(lambda: server.ongoing == 0)
    assert seen == ["cleaned up"]
    assert [message["type"] for message in peer.got] == ["websocket.accept"]


@in_loop
async def test_drain_past_its_time_closes_websockets_with_1012() -> None:
    codes: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        codes.append((await receive())["code"])

    async with pair(app) as (server, client):
        peer = Peer(CONNECT)
        call = asyncio.create_task(client(websocket_scope(), peer.receive, peer.send))
        await peer.until(1)
        assert await server.drain(0.01) is False
        assert await call == 101
        assert peer.got[-1]["type"] == "websocket.close" and peer.got[-1]["code"] == 1012
        await until(lambda: server.ongoing == 0)
    assert codes == [1012]
