"""The loop: whoever changes something wakes it; every stack is looked at, and the proxies, each in a task of its own.

Level-triggered: nobody says what happened, a pass looks at everything of its stack. A pass that fails is tried again
after a growing pause; a stack whose passes hang delays no other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from serveconf.background import FIRST_PAUSE_S, LONGEST_PAUSE_S, Tasks, keep
from serveconf.reconcile.admission import Admission
from serveconf.reconcile.journal import Journal
from serveconf.reconcile.ports import Clock, Cluster
from serveconf.reconcile.proxies import Proxies
from serveconf.reconcile.scaling import Scaling
from serveconf.reconcile.stack_pass import IDLE_S, Event, Room, StackPass
from serveconf.reconcile.stacks import Stacks
from serveconf.reconcile.standbys import Standbys
from serveconf.reconcile.table import Table
from serveconf.reconcile.witness import Witness

log = logging.getLogger("serveconf.reconcile")

ORPHAN_DRAIN_S = 20.0
SHUTDOWN_DRAIN_S = 10.0  # for requests that are being answered
SHUTDOWN_GRACE_S = 10.0  # then whatever is left is stopped at once


class Reconciler:
    """Brings the cluster to what the stacks' records say."""

    def __init__(self, cluster: Cluster, stacks: Stacks, clock: Clock, journal: Journal | None = None) -> None:
        self.cluster = cluster
        self.stacks = stacks
        journal = journal or Journal()
        self._witness = Witness(cluster, clock, journal)
        self.scaling = Scaling(cluster, stacks.ledger.store, clock)
        self.scaling.note = journal.note
        self.scaling.on_change = self._look_at
        stacks.ledger.scaled = self.scaling.scaled
        self.on_event: Callable[[str, Event], None] = lambda stack, event: None
        self.table = Table(cluster, stacks)
        self.proxies = Proxies(cluster, stacks, self.table, clock, journal)
        self._tasks = Tasks()
        self._workers: dict[str, Worker] = {}
        self._passes: dict[str, StackPass] = {}
        self._front = Worker("proxies", self.proxies.once)
        self._standbys = Standbys(cluster, stacks, self.is_busy, clock)
        self._warm = Worker("standbys", self._standbys.once)
        self._wake = asyncio.Event()
        self._room = Room(
            cluster=cluster,
            stacks=stacks,
            table=self.table,
            proxies=self.proxies,
            clock=clock,
            tasks=self._tasks,
            journal=journal,
            scaling=self.scaling,
            admission=Admission(clock),
            tell=lambda stack, event: self.on_event(stack, event),
        )
        cluster.on_change = self.look_again
        stacks.on_change = lambda stack: self.look_again()

    def is_busy(self) -> bool:
        """Whether an apply, an upgrade or a start is on: what only keeps something warm waits."""
        return self.stacks.are_busy(self.cluster.observe()) or self.proxies.is_replacing

    def look_again(self) -> None:
        """Something may have changed."""
        self._witness.heed()
        self._wake.set()
        self._front.wake()
        self._warm.wake()
        for worker in self._workers.values():
            worker.wake()

    def _look_at(self, stack: str) -> None:
        """Something of that stack alone may have changed."""
        worker = self._workers.get(stack)
        if worker is not None:
            worker.wake()
        else:
            self.look_again()

    def start(self) -> None:
        """Begin to look, act, sleep, until ``stop``."""
        self._tasks.start(keep("proxies", self._front.run), name="proxies")
        self._tasks.start(keep("standbys", self._warm.run), name="standbys")
        self._tasks.start(keep("stacks", self._follow_stacks), name="stacks")
        self._tasks.start(keep("scaling", self.scaling.run), name="scaling")

    async def stop(self) -> None:
        """Nothing is started any more."""
        await self._tasks.close()

    async def _follow_stacks(self) -> None:
        while True:
            self._wake.clear()
            await self._look_at_stacks()
            await self._wake.wait()

    async def pass_once(self) -> float:
        """One look at everything, one after the other. Returns the seconds until the next one that nobody asks for."""
        pause = await self.proxies.once()
        for name in self.stacks.names():
            pause = min(pause, await self._pass(name).once())
        await self._standbys.once()
        await self._clear_orphans()
        return pause

    async def _look_at_stacks(self) -> None:
        """A worker for each stack, none for one that is gone."""
        names = set(self.stacks.names())
        for name in names - self._workers.keys():
            worker = self._workers[name] = Worker(name, self._pass(name).once)
            self._tasks.start(worker.run(), name=f"stack {name}")
        for name in self._workers.keys() - names:
            self._workers.pop(name).end()
            self._passes.pop(name, None)
        await self._clear_orphans()

    def _pass(self, name: str) -> StackPass:
        found = self._passes.get(name)
        if found is None:
            found = self._passes[name] = StackPass(name, self._room, self.look_again)
        return found

    async def _clear_orphans(self) -> None:
        """Replicas of stacks that nobody knows."""
        known, needed = set(self.stacks.names()), self.table.serving()
        for replica in self.cluster.observe().replicas:
            if replica.stack not in known and replica.id not in needed:
                await self.cluster.stop_replica(replica.id, drain_s=ORPHAN_DRAIN_S)


class Worker:
    """Runs one pass after the other: when woken, or when the pass has said so."""

    def __init__(self, name: str, once: Callable[[], Awaitable[float]]) -> None:
        self._name = name
        self._once = once
        self._wake = asyncio.Event()
        self._ended = False

    def wake(self) -> None:
        """Look again."""
        self._wake.set()

    def end(self) -> None:
        """No pass any more after the one that runs."""
        self._ended = True
        self._wake.set()

    async def run(self) -> None:
        """Until ``end``."""
        failed = 0
        while not self._ended:
            self._wake.clear()
            try:
                pause = await self._once()
                failed = 0
            except Exception:  # a pass may run into anything; the next one looks anew
                log.exception("a reconcile pass failed", extra={"of": self._name})
                pause = min(FIRST_PAUSE_S * 2.0**failed, LONGEST_PAUSE_S)
                failed += 1
                await asyncio.sleep(min(pause, IDLE_S))
                continue
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue


async def empty(cluster: Cluster, clock: Clock) -> None:
    """Drain and stop every replica, standby and proxy; nobody starts any by now. Returns when they are gone."""
    deadline = clock.now() + SHUTDOWN_DRAIN_S + SHUTDOWN_GRACE_S
    while (observed := cluster.observe()).proxies or observed.replicas or observed.standbys:
        drain_s = SHUTDOWN_DRAIN_S if clock.now() < deadline else 0.0
        for standby in observed.standbys:
            await cluster.stop_standby(standby.id)
        for proxy in observed.proxies:
            await cluster.stop_proxy(proxy.id, drain_s=drain_s)
        for replica in observed.replicas if not observed.proxies or not drain_s else ():
            await cluster.stop_replica(replica.id, drain_s=drain_s)
        await clock.sleep(0.02)
