"""Which nodes are taken for lost: those that refuse, or say nothing twice, never all because our own network is cut."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from serveconf.cluster import node_watch
from serveconf.cluster.node_watch import Answer, Reach, answer_to, knock
from serveconf.local_ray import free_port
from serveconf.reconcile.ports import NodeState

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_watch, "KNOCK_S", 0.05)


@pytest.fixture
def busy() -> Iterator[int]:
    """The port of somebody who never accepts: the kernel answers for them."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield server.getsockname()[1]


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of somebody whose kernel drops what comes, as a cut link does: the queue of connections is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        waiting = [knock("127.0.0.1", port) for _ in range(4)]
        yield port
        for sock in waiting:
            sock.close()


def closed() -> int:
    """A port where nobody listens."""
    return free_port()


def node(name: str, port: int) -> NodeState:
    return NodeState(id=name, is_head=False, ip="127.0.0.1", port=port)


async def test_a_busy_node_answers(busy: int) -> None:
    look = Reach()
    for _ in range(3):
        assert await look.look([node("a", busy)]) == frozenset()


async def test_a_node_is_lost_at_the_first_refusal_and_found_at_the_first_answer(busy: int) -> None:
    look, gone = Reach(), closed()
    assert await look.look([node("a", gone), node("b", busy)]) == {"a"}
    assert await look.look([node("a", busy), node("b", busy)]) == frozenset()


async def test_a_refusal_is_told_at_once_and_once(busy: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_watch, "KNOCK_S", 3600)
    look, there = Reach(), [node("a", closed()), node("b", busy)]
    async with asyncio.timeout(120):
        assert await look.look(there) == {"a"}
    with pytest.raises(TimeoutError):  # nothing new: it takes its time
        async with asyncio.timeout(0.5):
            await look.look(there)


async def test_silence_of_one_is_its_own(busy: int, silent: int) -> None:
    look = Reach()
    for expected in (frozenset(), {"a"}):
        assert await look.look([node("a", silent), node("b", busy)]) == expected


async def test_silence_of_all_is_ours(silent: int) -> None:
    look = Reach()
    for _ in range(4):
        assert await look.look([node("a", silent), node("b", silent)]) == frozenset()


async def test_where_the_head_is_we_are_ourselves() -> None:
    look, gone = Reach(), closed()
    for _ in range(3):
        head = NodeState(id="head", is_head=True, ip="127.0.0.1", port=gone)
        assert await look.look([head, NodeState(id="fake", is_head=False)]) == frozenset()


def test_an_address_that_is_none_is_silence() -> None:
    sock = knock("no such address", 1)
    assert answer_to(sock) in (Answer.SILENT, Answer.REFUSED)
    sock.close()
