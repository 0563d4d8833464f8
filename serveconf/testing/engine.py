"""An engine whose actors are objects in this process: they die, hang, are out of reach, and come back, when told to."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec.structs import replace

from serveconf.cluster.engine import Away, Gone, Place, Refused, Remote, Silent
from serveconf.errors import EngineSilent
from serveconf.reconcile.asked import Group
from serveconf.reconcile.bundles import places, take
from serveconf.reconcile.ports import (
    NodeState,
    Store,
)
from serveconf.spec.models import GroupStrategy
from serveconf.testing.hosted import FakeProcess, FakeProxy, FakeReplica, FakeStandby
from serveconf.testing.memory import MemoryStore


class FakeActor:
    """One actor: its object, and what is the matter with it. Implements ``engine.Remote``."""

    def __init__(self, name: str, make: Any, *, restarts: bool) -> None:
        self.name = name
        self.hosted: Any = make(False)
        self.why_dead = ""
        self.placed = True
        self.away = False
        self.hung = asyncio.Event()
        self.hung.set()
        self._make = make
        self._restarts = restarts
        self._news = asyncio.Event()

    async def call(self, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        """See the port."""
        await asyncio.sleep(0)
        self._check()
        answer = asyncio.ensure_future(self._answer(method, *args))
        try:
            async with asyncio.timeout(timeout_s):
                while not answer.done():
                    news = asyncio.ensure_future(self._news.wait())
                    await asyncio.wait([answer, news], return_when=asyncio.FIRST_COMPLETED)
                    news.cancel()
                    if not answer.done():
                        self._check()
        except TimeoutError:
            raise Silent("no answer") from None
        finally:
            answer.cancel()
        return answer.result()

    async def closed(self) -> None:
        """See the port."""
        while True:
            self._check()
            await self._news.wait()

    def die(self, why: str = "the process ended: killed") -> None:
        """Its process ends; where it is to be restarted it comes back with a new object, and who was asking hears "away"."""
        if self._restarts:
            self.away = True
            self._tell()
            self.hosted = self._make(True)
            self.hung.set()
            asyncio.get_running_loop().call_later(0.01, self.return_)
        else:
            self.end(why)

    def end(self, why: str = "it was ended") -> None:
        """Its process ends for good."""
        self.why_dead = why
        self._tell()

    def begin(self, **where: Any) -> None:
        """It has waited for its place, which is here; before that nothing of it answers."""
        self.hosted.state = replace(self.hosted.state, **where)
        self.placed = True
        self.hung.set()

    def leave(self) -> None:
        """It can't be reached."""
        self.away = True
        self._tell()

    def return_(self) -> None:
        """It can be reached again."""
        self.away = False
        self._tell()

    def _check(self) -> None:
        if self.why_dead:
            raise Gone(self.why_dead)
        if self.away:
            raise Away("out of reach")

    async def _blocked(self, told: bool) -> float:
        while self.hung.is_set() != told:  # noqa: ASYNC110 - an Event tells one direction only
            await asyncio.sleep(0.01)
        return 0.0 if told else 2.0

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _answer(self, method: str, *args: Any) -> Any:
        if method == "room" and args[1] == "blocked":
            _, method, args = args
        if method == "blocked":
            return await self._blocked(*args)
        if method != "read_log" or not self.placed:  # answered although its loop is blocked
            await self.hung.wait()
        if method == "become":
            kind, (order, settings) = args
            node = NodeState(id=self.hosted.state.node_id, is_head=True)
            if kind == "process":
                self.hosted = FakeProcess(order, settings, node)
                replicas = list(self.hosted.replicas.values())
            else:
                assert kind == "replica"
                self.hosted = FakeReplica(order, settings, node)
                replicas = [self.hosted]
            for replica in replicas:
                replica.state = replace(replica.state, was_standby=True, pid=3)
            return None
        if method == "room" and not hasattr(self.hosted, "room"):
            _, method, args = args
        return await getattr(self.hosted, method)(*args)


class FakeEngine:
    """Implements ``cluster.engine.Engine``. ``actors`` by name, to do things to."""

    def __init__(self, nodes: int = 1, store: Store | None = None) -> None:
        self.actors: dict[str, FakeActor] = {}
        self.live_nodes = tuple(
            NodeState(id=f"node{i}", is_head=i == 0, total={"CPU": 64.0}, available={"CPU": 64.0}) for i in range(nodes)
        )
        self._store = store or MemoryStore()
        self.groups: dict[
            str, tuple[str, ...]
        ] = {}  # by the name of the actor: on which node each bundle is; none: it waits
        self._places: dict[str, Place] = {}
        self.silent_s: float | None = None  # its bookkeeping does not answer

    def silent_for(self) -> float | None:
        """See the port."""
        return self.silent_s

    @property
    def store(self) -> Store:
        """In memory."""
        return self._store

    async def start(self, name: str, kind: str, args: tuple[Any, ...], place: Place) -> Remote:
        """See the port. Resources called "refused" are."""
        await asyncio.sleep(0)
        if "refused" in place.resources:
            raise Refused("ValueError: no such resource")

        def make(restarted: bool) -> Any:
            if kind == "replica":
                order, settings = args
                node = next((n for n in self.live_nodes if n.id == place.prefers), self.live_nodes[0])
                return FakeReplica(order, settings, node)
            if kind == "process":
                order, settings = args
                node = next((n for n in self.live_nodes if n.id == place.prefers), self.live_nodes[0])
                return FakeProcess(order, settings, node)
            if kind == "standby":
                return FakeStandby(args[0], next(n for n in self.live_nodes if n.id == place.node_id))
            return FakeProxy(args[0], self._store, restarted=restarted)

        actor = self.actors[name] = FakeActor(name, make, restarts=place.restarts)
        if place.bundles:
            actor.hung.clear()
            actor.placed = False
            self._places[name], self.groups[name] = place, ()
            self._place_groups()
        return actor

    def _place_groups(self) -> None:
        """Those that wait, as far as there is room beside the others."""
        free = [dict(node.available) for node in self.live_nodes]
        ids = [node.id for node in self.live_nodes]
        for name, nodes in self.groups.items():
            for node_id, bundle in zip(nodes, self._places[name].bundles, strict=False):
                take(free[ids.index(node_id)], bundle)
        for name in [name for name, nodes in self.groups.items() if not nodes]:
            group = Group(tuple(self._places[name].bundles), GroupStrategy(self._places[name].strategy))
            if (where := places(group, free)) is not None:
                for node, bundle in zip(where, group.bundles, strict=True):
                    take(free[node], bundle)
                self.groups[name] = tuple(ids[node] for node in where)
                self.actors[name].begin(bundle_nodes=self.groups[name], node_id=ids[where[0]])

    def _end_group(self, name: str) -> None:
        self._places.pop(name, None)
        if self.groups.pop(name, None) is not None:
            self._place_groups()

    async def tidy(self) -> None:
        """See the port."""
        await asyncio.sleep(0)
        for name in self.groups.keys() - {name for name, actor in self.actors.items() if not actor.why_dead}:
            self._end_group(name)

    async def find(self, name: str) -> Remote | None:
        """See the port."""
        await asyncio.sleep(0)
        self._answer()
        return self.actors.get(name)

    async def names(self) -> list[str]:
        """See the port."""
        await asyncio.sleep(0)
        self._answer()
        return list(self.actors)

    async def kill(self, remote: Remote, *, restart: bool = False) -> None:
        """See the port."""
        await asyncio.sleep(0)
        assert isinstance(remote, FakeActor)
        if restart:
            remote.die()
        else:
            self.actors.pop(remote.name, None)
            remote.end()
            self._end_group(remote.name)

    async def nodes(self) -> tuple[NodeState, ...]:
        """See the port."""
        await asyncio.sleep(0)
        self._answer()
        return self.live_nodes

    def _answer(self) -> None:
        if self.silent_s is not None:
            raise EngineSilent(self.silent_s)

    async def run(
        self, function: Any, *args: Any, runtime_env: dict[str, Any], timeout_s: float, node_id: str = ""
    ) -> Any:
        """In this process."""
        return await asyncio.to_thread(function, *args)
