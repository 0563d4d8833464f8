"""The proxies: which processes there must be, so that all stacks are served where they ask for it.

Started where one is missing, stopped where nobody needs it, brought forward where its table is old.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from serveconf.errors import CodeFailed, Conflict, ServeconfError
from serveconf.plan.state import DesiredStack, Observed, ProxyPhase, ProxyState
from serveconf.reconcile.backoff import Backoff
from serveconf.reconcile.front import is_its_turn, merge_fronts, wanted_proxies
from serveconf.reconcile.journal import EventKind, Happening, Journal
from serveconf.reconcile.ports import Clock, Cluster, ProxyOrder
from serveconf.reconcile.records import Failure
from serveconf.reconcile.stacks import Stacks
from serveconf.reconcile.table import Table

log = logging.getLogger("serveconf.reconcile")

IDLE_S = 5.0
RETRY_S = 0.25
NOTICE_S = 10.0  # for load balancers to see that a proxy is not healthy any more, before it stops to listen
ALIVE = (ProxyPhase.READY, ProxyPhase.STARTING, ProxyPhase.UNHEALTHY, ProxyPhase.FAILED)


class Proxies:
    """Keeps the proxies that the stacks' goals need."""

    def __init__(self, cluster: Cluster, stacks: Stacks, table: Table, clock: Clock, journal: Journal) -> None:
        self._cluster = cluster
        self._stacks = stacks
        self._table = table
        self._backoff: Backoff[str] = Backoff(clock)
        self._clock = clock
        self._journal = journal
        self._warned: dict[str, float] = {}  # proxies on nodes that will go soon, and since when they say so

    def are_ready(self, observed: Observed) -> bool:
        """Whether every proxy that the goals need is up."""
        try:
            wanted = self._wanted(self._fronts(self._stacks.goal))
        except Conflict:
            return False
        ready = {p.id for p in observed.proxies if p.phase in (ProxyPhase.READY, ProxyPhase.UNHEALTHY)}
        leaving = self._leaving_nodes()
        return all(order.id in ready for order in wanted if order.node_id not in leaving)

    async def once(self) -> float:
        """One look. Returns the seconds until the next one that nobody asks for."""
        if not self._cluster.nodes():  # there is always the head: nothing is known just now
            return RETRY_S
        try:
            wanted = self._wanted(self._fronts(self._stacks.goal))
        except Conflict as conflict:  # two applies that each were right when they began
            await self._fail_targets(Failure(code=conflict.code, message=conflict.message, hint=conflict.hint))
            return RETRY_S
        observed = self._cluster.observe()
        there = {proxy.id: proxy for proxy in observed.proxies}
        old = {order.id for order in self._wanted(self._fronts(self._stacks.ledger.current))}
        pause, leaving = IDLE_S, self._leaving_nodes()
        done = {p.id for p in observed.proxies if p.node_id in leaving and await self._has_been_told(p)}
        for order in wanted:
            if order.node_id not in leaving:
                pause = min(pause, await self._keep(order, there, new=order.id not in old))
        needed = (old | {order.id for order in wanted}) - done
        if len(done) < sum(p.node_id in leaving and p.phase in ALIVE for p in observed.proxies):
            pause = min(pause, 1.0)
        for proxy in observed.proxies:
            if proxy.id not in needed and proxy.phase in ALIVE:
                await self._cluster.stop_proxy(proxy.id, drain_s=self._longest_drain())
        return min(pause, await self._bring_forward(observed))

    def _leaving_nodes(self) -> set[str]:
        """The nodes that will go soon; with the head everything goes."""
        return {node.id for node in self._cluster.nodes() if node.drains and not node.is_head}

    async def _has_been_told(self, proxy: ProxyState) -> bool:
        """Whether a proxy whose node will go has said for long enough that it is not healthy; it is told to at first."""
        if proxy.phase is not ProxyPhase.READY:
            return True
        since = self._warned.get(proxy.id)
        if since is None:
            try:
                await self._cluster.warn_proxy(proxy.id)
            except ServeconfError:  # it is gone, or silent: asked again at the next look
                return False
            since = self._warned[proxy.id] = self._clock.now()
        return self._clock.now() - since >= NOTICE_S

    def _fronts(self, look_up: Callable[[str], DesiredStack | None]) -> list[DesiredStack]:
        """What each stack is, in one state or the other; one that is as good as gone wants nothing of the front."""
        found = []
        for name in self._stacks.names():
            head, stack = self._stacks.head(name), look_up(name)
            gone = head is not None and head.deleting and stack is not None and not stack.deployments
            if stack is not None and not gone:
                found.append(stack)
        return found

    def _wanted(self, stacks: list[DesiredStack]) -> tuple[ProxyOrder, ...]:
        return wanted_proxies(merge_fronts(stacks), self._cluster.nodes()) if stacks else ()

    async def _keep(self, order: ProxyOrder, there: Mapping[str, ProxyState], *, new: bool) -> float:
        proxy = there.get(order.id)
        if proxy is not None and proxy.phase is ProxyPhase.FAILED:
            if new:
                await self._fail_targets(Failure(code="proxy_failed", message=proxy.message))
            self._back_off(order.id)
            await self._cluster.stop_proxy(order.id, drain_s=0)
        elif proxy is None and is_its_turn(order, there.values()):
            wait_s = self._backoff.wait_s(order.id)
            if wait_s > 0:
                return wait_s
            await self._cluster.start_proxy(order)
        return IDLE_S

    def _back_off(self, proxy_id: str) -> None:
        """A proxy has failed: it is started again later."""
        self._backoff.failed(proxy_id)
        wait_s = self._backoff.wait_s(proxy_id)
        if wait_s > 0:
            message = f"proxy {proxy_id} keeps failing: it is started again in {wait_s:.0f} s"
            data = {"proxy": proxy_id, "wait_s": round(wait_s, 1)}
            self._journal.tell(Happening(kind=EventKind.PROXY, message=message, data=data, like=f"{proxy_id} back-off"))

    async def _bring_forward(self, observed: Observed) -> float:
        try:
            await self._table.bring()
        except ServeconfError as error:  # a replica or a middleware that is gone: its stack moves the table on
            reason = error.code if isinstance(error, CodeFailed) else error.message
            log.warning("a proxy could not be brought forward", extra={"reason": reason})
            return RETRY_S
        return IDLE_S

    async def _fail_targets(self, failure: Failure) -> None:
        for name in self._stacks.names():
            head = self._stacks.head(name)
            if head is not None and head.target is not None:
                await self._stacks.give_up(name, head.target, failure)

    def _longest_drain(self) -> float:
        routes = self._table.generation.routes
        return max((route.graceful_shutdown_timeout_s for route in routes), default=20.0)
