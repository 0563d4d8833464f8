"""The nodes as the engine tells them, less those that nobody reaches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from serveconf.cluster.engine import Engine
from serveconf.cluster.reach import Reach
from serveconf.errors import EngineSilent
from serveconf.reconcile.ports import NodeState

NODES_PERIOD_S = 0.3  # between two looks, each of which takes a second


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is new at a look."""

    changed: bool  # a node has come, gone, or begun to drain
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
            changed=self._standing() != before,
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
