"""Pieces of a body that are sent in one turn go as one frame; a piece that comes alone is not held back for others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_harness import Peer, get, http_scope, in_loop, pair

from serveconf.wire import BODY_FOLLOWS, Limits, outflow
from serveconf.wire.connection import Connection

KIB = 1 << 10
SMALL = Limits(window_bytes=4096, piece_bytes=512, inline_bytes=128)


class Pieces:
    """Answers with pieces of these sizes; None: let the loop turn first."""

    def __init__(self, sizes: list[int | None]) -> None:
        self.sizes = sizes
        self.sent = b"".join(_piece(number, size) for number, size in enumerate(sizes) if size is not None)

    async def __call__(self, scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number, size in enumerate(self.sizes):
            if size is None:
                await asyncio.sleep(0)
            else:
                await send({"type": "http.response.body", "body": _piece(number, size), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _piece(number: int, size: int) -> bytes:
    return bytes([number % 256]) * size


async def ask(client) -> Peer:
    peer = get()
    await client(http_scope(), peer.receive, peer.send)
    return peer


@pytest.fixture
def clock(monkeypatch) -> Iterator[list[float]]:
    """What the connection takes for the time."""
    now = [1.0]
    monkeypatch.setattr(outflow, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def written(monkeypatch) -> list[int]:
    """The turns of the connections whose batches were written."""
    turns = []
    flush = Connection.flush

    def noted(self) -> None:
        if self._batch:
            turns.append(self.turn)
        flush(self)

    monkeypatch.setattr(Connection, "flush", noted)
    return turns


@pytest.mark.parametrize(
    ("size", "number", "most"),
    [(4 * KIB, 64, 4), (64 * KIB, 16, 5), (256 * KIB, 4, 4), (1, 1000, 4)],
)
def test_pieces_of_one_turn_are_gathered(clock, size: int, number: int, most: int) -> None:
    @in_loop
    async def run() -> None:
        async with pair(app := Pieces([size] * number)) as (_, client):
            for _ in range(3):  # through the socket, and through memory
                peer = await ask(client)
                assert peer.body == app.sent
                assert len([message for message in peer.got[1:] if message["body"]]) <= most

    run()


@in_loop
async def test_the_first_piece_goes_at_once(clock, written) -> None:
    go_on = asyncio.Event()

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        assert len(written) == 1 + before  # though the application has not let the loop turn since
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with pair(app) as (_, client):
        peer = get()
        call = asyncio.create_task(client(http_scope(), peer.receive, peer.send))
        await asyncio.sleep(0)
        before = len(written)
        await peer.until(2)
        assert peer.body == b"first"
        go_on.set()
        await call


@in_loop
async def test_pieces_that_come_slowly_are_not_held_until_the_application_waits(clock, written) -> None:
    seen = []

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(5):
            clock[0] += 2 * outflow.GATHER_S  # as an application that computes each piece in place
            before = len(written)
            await send({"type": "http.response.body", "body": b"token", "more_body": True})
            seen.append(len(written) - before)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with pair(app) as (_, client):
        peer = await ask(client)
    assert peer.body == b"token" * 5
    assert seen == [1] * 5


@pytest.mark.parametrize("limits", [Limits(), SMALL])
@settings(max_examples=30, deadline=None)
@given(
    answers=st.lists(
        st.lists(
            st.sampled_from([None, 0, 1, 100, 128, 129, 511, 512, 513, 5_000, 40_000, 70_000, 600_000]), max_size=30
        ),
        min_size=1,
        max_size=3,
    )
)
def test_whatever_the_pieces_are_the_body_is_whole(limits: Limits, answers: list[list[int | None]]) -> None:
    apps = {f"/{number}": Pieces(sizes) for number, sizes in enumerate(answers)}

    async def app(scope, receive, send) -> None:
        await apps[scope["path"]](scope, receive, send)

    @in_loop
    async def run() -> None:
        async with pair(app, limits=limits) as (_, client):
            for _ in range(2):
                peers = {path: get() for path in apps}
                await asyncio.gather(
                    *(client(http_scope(path), peer.receive, peer.send) for path, peer in peers.items())
                )
                for path, peer in peers.items():
                    assert peer.body == apps[path].sent
                    assert peer.ended

    run()


@in_loop
async def test_what_was_gathered_costs_no_more_credit_than_it_gives_back() -> None:
    async with pair(Pieces([40] * 20_000), limits=SMALL) as (_, client):
        peer = await ask(client)
        assert len(peer.body) == 800_000


@in_loop
async def test_a_large_answer_is_a_frame_for_the_head_and_one_for_each_piece_and_nothing_else(written) -> None:
    size = 2 * Limits().piece_bytes

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(size)})

    async with pair(app) as (server, client):
        await ask(client)
        await ask(client)  # the memory is there
        (connection,) = server._connections
        before = connection.turn
        peer = await ask(client)
        assert peer.got[0][BODY_FOLLOWS]  # its head may wait for the first piece
        assert connection.turn - before == 2  # the head with the first piece, the second one with the end
