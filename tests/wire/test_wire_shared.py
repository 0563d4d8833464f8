"""Memory that both ends see: a slot has one owner at a time, and whatever cannot go through it goes through the socket."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import socket
import sys
from pathlib import Path

import pytest
from wire_harness import Peer, answer, get, http_scope, in_loop, pair, until

from serveconf.wire import Limits, shared
from serveconf.wire.frames import Free, Memory, ProtocolError
from serveconf.wire.shared import SLOTS, OwnMemory, TheirMemory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is shared on Linux only")

MIB = 1 << 20
SLOT = Limits().piece_bytes
SOME = bytes(100_000)


def put(own: OwnMemory, *parts: bytes) -> int:
    return own.put(parts, sum(map(len, parts)))


@pytest.fixture
def sock():
    """One of two ends that are both in this process."""
    one, other = socket.socketpair(socket.AF_UNIX)
    yield one
    one.close()
    other.close()


@pytest.fixture
def own():
    memory = OwnMemory(Limits())
    yield memory
    memory.close()


@pytest.fixture
def theirs(sock, own):
    return TheirMemory(sock, own.offer())


def tell(theirs: TheirMemory, own: OwnMemory) -> list[int]:
    slots = theirs.free().slots if theirs.done else []
    own.freed(slots)
    return slots


def test_nothing_is_put_before_the_other_end_has_said_that_it_sees_it(own):
    assert not own.has_room_for(SLOT)
    assert put(own, SOME) == 0


def test_what_one_end_puts_the_other_one_sees(own, theirs):
    assert sorted(tell(theirs, own)) == list(range(1, SLOTS + 1))
    filled = {put(own, bytes([n]) * 9, bytes([n]) * (SLOT - 9)): n for n in range(SLOTS)}
    assert put(own, SOME) == 0
    views = {n: theirs.take(slot, SLOT) for slot, n in filled.items()}
    assert all(view == bytes([n]) * SLOT for n, view in views.items())


def test_a_slot_is_free_when_nobody_has_a_view_of_it(own, theirs):
    tell(theirs, own)
    slot = put(own, SOME)
    view = theirs.take(slot, len(SOME))
    part = memoryview(view)[10:20]
    del view
    assert not theirs.done
    del part
    assert tell(theirs, own) == [slot]
    assert not theirs.done
    assert put(own, SOME) == slot  # it is warm still


def test_small_data_is_not_worth_a_slot(own, theirs):
    tell(theirs, own)
    assert put(own, bytes(32 << 10)) == 0
    assert [own.has_room_for(size) for size in (32 << 10, 40_000, SLOT, SLOT + 1)] == [False, True, True, False]


def no_pages(file, start, size):
    raise OSError(28, "No space left on device")


def test_slots_that_the_system_has_no_pages_for_are_left_out(own, theirs, monkeypatch):
    tell(theirs, own)
    assert put(own, SOME) > 0
    monkeypatch.setattr(os, "posix_fallocate", no_pages)
    assert not own.has_room_for(SLOT)
    assert put(own, SOME) == 0


def test_data_in_a_slot_outlives_the_connection(sock):
    own = OwnMemory(Limits())
    theirs = TheirMemory(sock, own.offer())
    tell(theirs, own)
    view = theirs.take(put(own, b"x" * 100_000), 100_000)
    own.close()
    del theirs
    assert bytes(view) == b"x" * 100_000


@pytest.mark.parametrize("slots", [[0], [SLOTS + 1], [1]])
def test_what_the_other_end_did_not_have_it_cannot_give_back(own, slots):
    own.freed([1])
    with pytest.raises(ProtocolError, match="cannot be given back"):
        own.freed(slots)


def test_nothing_is_taken_from_a_slot_that_was_not_lent(own, theirs):
    with pytest.raises(ProtocolError):
        theirs.take(1, 1)
    tell(theirs, own)
    view = theirs.take(1, 1)
    with pytest.raises(ProtocolError):
        theirs.take(1, 1)
    with pytest.raises(ProtocolError):
        theirs.take(2, SLOT + 1)
    with pytest.raises(ProtocolError):
        theirs.take(SLOTS + 1, 1)
    assert len(view) == 1


@pytest.mark.parametrize(("slots", "slot_bytes"), [(0, 5), (5, 0), (65, 1), (1, 17 << 20), (2**50, 2**50)])
def test_an_offer_without_measure_is_refused(sock, slots, slot_bytes):
    with pytest.raises(ProtocolError):
        TheirMemory(sock, Memory(1, 0, 0, slots, slot_bytes))


@pytest.mark.parametrize("seals", [0, fcntl.F_SEAL_GROW] if sys.platform == "linux" else [])
def test_memory_that_could_vanish_while_it_is_read_is_refused(sock, seals):
    file = os.memfd_create("serveconf", os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(file, 2 * MIB)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
        with pytest.raises(ProtocolError, match="shrink"):
            TheirMemory(sock, Memory(1, file, os.fstat(file).st_ino, 2, MIB))
    finally:
        os.close(file)


def test_memory_smaller_than_offered_is_refused(sock, own):
    offer = own.offer()
    offer.slots += 1
    with pytest.raises(ProtocolError, match="shrink"):
        TheirMemory(sock, offer)


def test_memory_of_another_replica_is_not_taken_for_the_one_that_was_offered(sock, own):
    offer = own.offer()
    offer.inode += 1
    with pytest.raises(FileNotFoundError, match="not the memory that was offered"):
        TheirMemory(sock, offer)


def test_a_file_that_is_no_memory_is_not_even_opened(sock, tmp_path, monkeypatch):
    with (tmp_path / "file").open("w+b") as file:
        monkeypatch.setattr(os, "open", None)
        for number in (file.fileno(), 9_999):
            with pytest.raises(FileNotFoundError):
                TheirMemory(sock, Memory(1, number, 0, 1, MIB))


# On connections


def body_of(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


async def sized(scope, receive, send) -> None:
    """Answers /seed/size."""
    _, seed, size = scope["path"].split("/")
    await answer(send, body_of(int(seed), int(size)))


async def ask(client, seed: int, size: int, peer: Peer | None = None) -> bool:
    peer = peer or get()
    await client(http_scope(f"/{seed}/{size}"), peer.receive, peer.send)
    return peer.body == body_of(seed, size)


@pytest.fixture
def out_of_reach(monkeypatch):
    """The proxy cannot open the replica's memory."""

    def refused(*_):
        raise PermissionError

    monkeypatch.setattr(shared, "TheirMemory", refused)


@pytest.fixture
def puts(monkeypatch):
    """The slots that were filled."""
    slots = []
    really_put = OwnMemory.put

    def noted(self, parts, size):
        slots.append(really_put(self, parts, size))
        return slots[-1]

    monkeypatch.setattr(OwnMemory, "put", noted)
    return slots


@in_loop
async def test_large_answers_come_through_slots_unchanged(puts) -> None:
    async with pair(sized) as (_, client):
        sizes = [1, 40_000, 70_000, 600_000, 3 * MIB, 10 * MIB + 1]
        for size in sizes:
            assert await ask(client, 1, size)
        assert len([slot for slot in puts if slot]) > 10
        assert all(await asyncio.gather(*(ask(client, n, size) for n, size in enumerate(sizes * 4))))


@in_loop
async def test_readers_that_hold_all_slots_leave_the_socket_to_the_others(puts) -> None:
    async with pair(sized) as (_, client):
        assert await ask(client, 0, 3 * MIB)
        assert await ask(client, 0, 3 * MIB)
        slow = [get() for _ in range(2 * SLOTS)]
        for peer in slow:
            peer.open_gate.clear()
        calls = [asyncio.create_task(ask(client, n, 5 * MIB, peer)) for n, peer in enumerate(slow)]
        await until(lambda: puts.count(0) > 1)
        assert await ask(client, 99, 5 * MIB)
        for peer in slow:
            peer.open_gate.set()
        assert all(await asyncio.gather(*calls))
        puts.clear()
        assert await ask(client, 99, 5 * MIB)
        assert any(puts)


@in_loop
async def test_slots_of_a_call_that_was_given_up_are_used_again(puts) -> None:
    async with pair(sized) as (_, client):
        assert await ask(client, 0, 3 * MIB)
        for n in range(3 * SLOTS):
            peer = get()
            peer.open_gate.clear()
            call = asyncio.create_task(ask(client, n, 5 * MIB, peer))
            puts.clear()
            await until(lambda: len(puts) > 0)
            call.cancel()
            await asyncio.wait([call])
        await until(lambda: client.ongoing == 0)
        puts.clear()
        assert await ask(client, 99, 5 * MIB)
        assert all(puts)


@in_loop
async def test_a_proxy_that_cannot_reach_the_memory_gets_everything_through_the_socket(out_of_reach, puts) -> None:
    async with pair(sized) as (_, client):
        for _ in range(3):
            assert await ask(client, 1, 3 * MIB)
        assert puts
        assert not any(puts)


@in_loop
async def test_a_replica_whose_system_gives_no_memory_answers_through_the_socket(monkeypatch) -> None:
    def none(name, flags):
        raise OSError("none")

    monkeypatch.setattr(os, "memfd_create", none)
    async with pair(sized) as (_, client):
        for _ in range(3):
            assert await ask(client, 1, 3 * MIB)


@in_loop
async def test_memory_that_runs_out_in_the_middle_of_an_answer_is_not_missed(monkeypatch, puts) -> None:
    async with pair(sized) as (_, client):
        assert await ask(client, 1, 3 * MIB)
        assert await ask(client, 1, 3 * MIB)
        assert any(puts)
        monkeypatch.setattr(os, "posix_fallocate", no_pages)
        slow = [get() for _ in range(2 * SLOTS)]
        for peer in slow:
            peer.open_gate.clear()
        calls = [asyncio.create_task(ask(client, n, 5 * MIB, peer)) for n, peer in enumerate(slow)]
        await until(lambda: puts.count(0) > SLOTS)
        for peer in slow:
            peer.open_gate.set()
        assert all(await asyncio.gather(*calls))


@in_loop
async def test_between_nodes_nothing_is_offered(monkeypatch) -> None:
    monkeypatch.setattr(os, "memfd_create", None)
    async with pair(sized, tcp=True) as (_, client):
        for _ in range(3):
            assert await ask(client, 1, 3 * MIB)


@in_loop
async def test_slots_given_back_where_there_are_none_end_the_connection(caplog) -> None:
    async with pair(sized) as (_, client):
        client.queue(Free(1, [1]))
        await until(lambda: client.closed)
    assert "there are no slots here" in caplog.text


@in_loop
async def test_memory_is_offered_once(out_of_reach, caplog) -> None:
    async with pair(sized) as (server, client):
        assert await ask(client, 1, 3 * MIB)
        (connection,) = server._connections
        connection.queue(Memory(1, 0, 0, 1, MIB))
        await until(lambda: client.closed)
    assert "once more" in caplog.text


@pytest.mark.parametrize(
    ("window", "piece", "inline"),
    [
        (200_000, 100_000, 32_768),
        (20_000, 10_000, 32_768),  # a piece is no larger than what goes inline
        (33_024, 8_192, 10_000),
        (60_000, 30_000, 10_000),  # a slot is no larger than what is not worth one
        (160_000, 40_000, 10_000),  # a piece is not worth a slot
        (300_000, 40_000, 100_000),
        (64 << 20, 17 << 20, 32_768),  # a slot is larger than may be offered
    ],
)
def test_credit_never_runs_dry_and_is_never_overdrawn(window: int, piece: int, inline: int) -> None:
    @in_loop
    async def run() -> None:
        limits = Limits(window_bytes=window, piece_bytes=piece, inline_bytes=inline)
        async with pair(sized, limits=limits) as (_, client):
            for size in (1, inline, 60_000, 90_000, 150_000, 3 * MIB):
                slow = get()
                slow.open_gate.clear()
                call = asyncio.create_task(ask(client, 2, size, slow))
                assert await ask(client, 1, size)
                slow.open_gate.set()
                assert await call

    run()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def maps() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:serveconf")


@in_loop
async def test_a_connection_leaves_no_memory_behind() -> None:
    before = open_files()
    for _ in range(3):
        async with pair(sized) as (_, client):
            assert await ask(client, 1, 3 * MIB)
            assert await ask(client, 1, 3 * MIB)
            assert maps() == 2
        await asyncio.sleep(0)
    await until(lambda: open_files() == before)
    assert maps() == 0


# Uploads


async def digest_of_upload(scope, receive, send) -> None:
    whole, more = b"", True
    while more:
        message = await receive()
        assert type(message["body"]) is bytes
        whole, more = whole + message["body"], message["more_body"]
    await answer(send, b"%d" % (whole == body_of(len(whole), len(whole))))


async def upload(client, size: int) -> bool:
    body = body_of(size, size)
    parts = [body[start : start + 700_000] for start in range(0, size, 700_000)]
    peer = Peer(*({"type": "http.request", "body": part, "more_body": part is not parts[-1]} for part in parts))
    scope = http_scope("/", "POST", [(b"content-length", b"%d" % size)])
    await client(scope, peer.receive, peer.send)
    return peer.body == b"1"


@in_loop
async def test_large_uploads_go_through_slots_unchanged(puts) -> None:
    async with pair(digest_of_upload) as (_, client):
        sizes = [1, 40_000, 70_000, 600_000, 3 * MIB, 10 * MIB + 1]
        for size in sizes:
            assert await upload(client, size)
        assert len([slot for slot in puts if slot]) > 10
        assert all(await asyncio.gather(*(upload(client, size) for size in sizes * 4)))


@in_loop
async def test_both_directions_have_slots_at_once(puts) -> None:
    async def both(scope, receive, send) -> None:
        await (digest_of_upload if scope["method"] == "POST" else sized)(scope, receive, send)

    async with pair(both) as (_, client):
        for _ in range(4):
            calls = [ask(client, n, 3 * MIB) for n in range(3)] + [upload(client, 3 * MIB) for _ in range(3)]
            assert all(await asyncio.gather(*calls))
        assert maps() == 4
        assert len([slot for slot in puts if slot]) > 50


@in_loop
async def test_a_replica_of_a_version_before_is_offered_no_memory(monkeypatch, puts) -> None:
    monkeypatch.setattr("serveconf.wire.client.TAKES_MEMORY_FROM", 99)
    async with pair(digest_of_upload) as (_, client):
        for _ in range(3):
            assert await upload(client, 3 * MIB)
        assert not puts
