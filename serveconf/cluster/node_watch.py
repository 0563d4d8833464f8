"""The nodes as the engine tells them, less those that nobody reaches: told in about three seconds, where the engine waits for twelve.

The engine's process on each node listens on a port; it is the *kernel* there that takes a connection, however busy the
node is. Who answers nothing twice in a row, or refuses, is lost: its power, its network or the engine's process on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from serveconf.cluster.engine import Engine
from serveconf.cluster.logs import get_logger
from serveconf.errors import EngineSilent
from serveconf.reconcile.ports import NodeState

NODES_PERIOD_S = 0.3  # between two looks, each of which takes a second
log = get_logger("cluster")
KNOCK_S = 1.2  # longer than the kernel takes to send a lost packet again
LISTEN_S = 0.1
MISSES = 2  # silences in a row; a refusal is as good


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is new at a look."""

    changed: (
        bool  # a node has come, gone, or begun to drain, or one that was out of reach has been given up by the engine
    )
    came_back: bool  # one that was out of reach is reached again


class NodeWatch:
    """Looks at the nodes and knocks at them."""

    def __init__(self, engine: Engine, on_silence: Callable[[str], None]) -> None:
        self.nodes: tuple[NodeState, ...] = ()
        self.lost: frozenset[str] = frozenset()  # nodes that the engine takes for alive, and that nobody reaches
        self._engine = engine
        self._on_silence = on_silence
        self._reach = Reach()

    async def look(self) -> None:
        """Once, without knocking."""
        self._take(await self._engine.nodes())

    async def look_again(self) -> Seen:
        """After a moment. Where the engine has fallen silent, when it answers again; that is told at its begin and its end."""
        await asyncio.sleep(NODES_PERIOD_S)
        before = self._standing()
        nodes = await self._ask()
        self._take(nodes)
        if self._standing() != before:  # who has joined, or will go, waits for no knock
            return Seen(changed=True, came_back=False)
        was_lost, self.lost = self.lost, await self._reach.look(nodes)
        self._take(nodes)
        return Seen(
            changed=self._standing() != before or self.lost != was_lost,
            came_back=bool({node.id for node in self.nodes} & was_lost),
        )

    async def _ask(self) -> tuple[NodeState, ...]:
        silent = 0.0
        while True:
            try:
                nodes = await self._engine.nodes()
            except EngineSilent as error:
                if not silent:
                    self._on_silence(error.message)
                silent = self._engine.silent_for() or silent
                await asyncio.sleep(NODES_PERIOD_S)
            else:
                if silent:
                    self._on_silence(f"Ray's GCS answers again, after {silent:.0f} s")
                return nodes

    def _standing(self) -> set[tuple[str, bool]]:
        return {(node.id, node.drains) for node in self.nodes}

    def _take(self, nodes: tuple[NodeState, ...]) -> None:
        if nodes:  # there is always the head: an empty answer is none
            self.nodes = tuple(node for node in nodes if node.id not in self.lost)


class Answer(Enum):
    """What became of a knock."""

    OPEN = "there is somebody"
    REFUSED = "the machine is there, the engine is not"
    SILENT = "nothing came back"


class Reach:
    """Knocks at the nodes, and remembers who has not answered."""

    def __init__(self) -> None:
        self._misses: Counter[str] = Counter()
        self._lost: frozenset[str] = frozenset()

    async def look(self, nodes: Iterable[NodeState]) -> frozenset[str]:
        """The ids of those that are out of reach, after knocking at all of them. The head is where we are ourselves."""
        others = [node for node in nodes if node.port and not node.is_head]
        if not others:
            self._lost = frozenset()
            return self._lost
        knocks = {node.id: knock(node.ip, node.port) for node in others}
        try:
            self._lost = self._judged(await self._answers(knocks))
        finally:
            for sock in knocks.values():
                sock.close()
        return self._lost

    async def _answers(self, knocks: Mapping[str, socket.socket]) -> dict[str, Answer]:
        """What has come back after a while; sooner where everybody has answered, and somebody has refused who had not before."""
        answers = dict.fromkeys(knocks, Answer.SILENT)
        deadline = time.monotonic() + KNOCK_S
        is_over = False
        while not is_over:
            left = deadline - time.monotonic()
            await asyncio.sleep(max(0.0, min(LISTEN_S, left)))
            answers = {n: answer_to(knocks[n]) if a is Answer.SILENT else a for n, a in answers.items()}
            is_over = left <= LISTEN_S or (Answer.SILENT not in answers.values() and self._is_news(answers))
        return answers

    def _is_news(self, answers: Mapping[str, Answer]) -> bool:
        return any(answer is Answer.REFUSED and node_id not in self._lost for node_id, answer in answers.items())

    def _judged(self, answers: dict[str, Answer]) -> frozenset[str]:
        if len(answers) > 1 and all(answer is Answer.SILENT for answer in answers.values()):
            log.warning("no node answers: it is our own network that is cut")
            return self._lost & answers.keys()
        weights = {
            Answer.OPEN: 0,
            Answer.SILENT: 1,
            Answer.REFUSED: MISSES,
        }  # a lost packet is silence, and refuses nothing
        missed = Counter({n: self._misses[n] + weights[a] for n, a in answers.items() if a is not Answer.OPEN})
        self._misses = missed
        lost = frozenset(node_id for node_id, times in missed.items() if times >= MISSES)
        for node_id in lost - self._lost:
            log.warning("a node is out of reach", node=node_id, why=answers[node_id].value)
        for node_id in self._lost - lost & answers.keys():
            log.info("a node answers again", node=node_id)
        return lost


def knock(host: str, port: int) -> socket.socket:
    """A connection, begun and not waited for: the kernel at the other end answers by itself."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    with contextlib.suppress(OSError):  # what goes wrong at once ``answer_to`` tells like the rest
        sock.connect_ex((host, port))
    return sock


def answer_to(sock: socket.socket) -> Answer:
    """What has become of it by now. Asked late it says the same: no timer of ours is in it. Who has refused says so once."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    if not poll.poll(0):
        return Answer.SILENT
    match sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        case 0:
            return Answer.OPEN if _is_connected(sock) else Answer.SILENT
        case errno.ECONNREFUSED | errno.ECONNRESET:
            return Answer.REFUSED
        case _:  # no route, host unreachable
            return Answer.SILENT


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
