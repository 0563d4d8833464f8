"""The proxies: which processes there must be, so that all stacks are served where they ask for it.

Started where one is missing, stopped where nobody needs it, brought forward where its table is old.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec.structs import replace

from serveconf import __version__
from serveconf.errors import CodeFailed, Conflict, OperatorError, ServeconfError
from serveconf.plan.state import DesiredStack, Observed, ProxyPhase, ProxyState
from serveconf.reconcile.front import is_its_turn, merge_fronts, slot_of, wanted_proxies
from serveconf.reconcile.journal import EventKind, Happening, Journal
from serveconf.reconcile.ports import Clock, Cluster, ProxyOrder
from serveconf.reconcile.records import Failure
from serveconf.reconcile.stacks import Stacks
from serveconf.reconcile.table import Table
from serveconf.reconcile.waits import Backoff

log = logging.getLogger("serveconf.reconcile")

IDLE_S = 5.0
RETRY_S = 0.25
NOTICE_S = 10.0  # for load balancers to see that a proxy is not healthy any more, before it stops to listen
READY_S = 45.0  # for one that replaces another to serve the table: longer than it may take to start
BOTH_S = 3.0  # for both of two proxies to serve where one is to stand by: longer than a death goes unheard of
LOOK_S = 0.02
ALIVE = (ProxyPhase.READY, ProxyPhase.STARTING, ProxyPhase.UNHEALTHY, ProxyPhase.FAILED)


class Proxies:
    """Keeps the proxies that the stacks' goals need."""

    def __init__(self, cluster: Cluster, stacks: Stacks, table: Table, clock: Clock, journal: Journal) -> None:
        self._cluster = cluster
        self._stacks = stacks
        self._table = table
        self._clock = clock
        self._backoff: Backoff[str] = Backoff(clock)
        self._journal = journal
        self._warned: dict[str, float] = {}  # proxies on nodes that will go soon, and since when they say so
        self._both_serve: dict[
            tuple[str, str], float
        ] = {}  # node and listener where none stands by any more, and since when
        self._replacing: set[str] = set()  # the slots in which an upgrade has two of them side by side

    @property
    def is_replacing(self) -> bool:
        """Whether an upgrade is exchanging proxies."""
        return bool(self._replacing)

    async def start_beside(self, proxy: ProxyState) -> str:
        """Start another one on the same port; its id, once it serves the live table. ``retire`` ends the old one.

        Raises OperatorError where it does not get ready, or runs another version than this controller: then it is gone.
        """
        slot = slot_of(proxy.id)
        orders = self._wanted(self._fronts(self._stacks.goal))
        order = next((order for order in orders if order.id == slot), None)
        if order is None:
            raise OperatorError(f"proxy {proxy.id} is wanted no more", code="proxy_failed")
        new = replace(order, id=f"{slot}~{secrets.token_hex(3)}")
        self._replacing.add(slot)
        try:
            await self._cluster.start_proxy(new)
            await self._until_it_serves(new.id)
        except BaseException:  # a cancel too: a proxy that nobody knows must not stay
            await self._cluster.stop_proxy(new.id, drain_s=0)
            self._replacing.discard(slot)
            raise
        return new.id

    async def retire(self, proxy: ProxyState) -> None:
        """Another one serves in its place: it drains."""
        await self._cluster.stop_proxy(proxy.id, drain_s=self._longest_drain())
        self._replacing.discard(slot_of(proxy.id))

    async def _until_it_serves(self, proxy_id: str) -> None:
        deadline = self._clock.now() + READY_S
        while True:
            found = next((p for p in self._cluster.observe().proxies if p.id == proxy_id), None)
            if found is None or found.phase is ProxyPhase.FAILED:
                why = found.message if found is not None else "it has ended"
                raise OperatorError(f"the new proxy {proxy_id} did not get ready: {why}", code="proxy_failed")
            if found.phase is ProxyPhase.READY and found.serveconf != __version__:
                raise OperatorError(
                    f"serveconf {found.serveconf or 'of an older version'} is installed on node {found.node_id}",
                    hint=f"pip install 'serveconf=={__version__}' there, then 'serveconf upgrade' again",
                    code="not_installed",
                )
            if found.phase is ProxyPhase.READY and found.generation >= self._table.generation.number:
                return
            if self._clock.now() > deadline:
                raise OperatorError(f"the new proxy {proxy_id} did not take the table", code="proxy_failed")
            await self._clock.sleep(LOOK_S)

    def are_ready(self, observed: Observed) -> bool:
        """Whether every proxy that the goals need is up, or has its standby serving in its place: it will stand by itself then."""
        try:
            wanted = self._wanted(self._fronts(self._stacks.goal))
        except Conflict:
            return False
        ready = {slot_of(p.id) for p in observed.proxies if p.phase in (ProxyPhase.READY, ProxyPhase.UNHEALTHY)}
        leaving = self._leaving_nodes()
        needed = (order for order in wanted if order.node_id not in leaving and not order.stands_by)
        relieved = _relieved(wanted, observed)
        return all(order.id in ready or (order.node_id, order.listener) in relieved for order in needed)

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
        there = _by_slot(observed.proxies)
        old = {order.id for order in self._wanted(self._fronts(self._stacks.ledger.current))}
        pause, leaving = IDLE_S, self._leaving_nodes()
        done = {p.id for p in observed.proxies if p.node_id in leaving and await self._has_been_told(p)}
        for order in wanted:
            if order.node_id not in leaving and not (order.stands_by and self._stacks.are_busy(observed)):
                pause = min(pause, await self._keep(order, there, new=order.id not in old and not order.stands_by))
        needed = (old | {order.id for order in wanted}) - {slot_of(proxy_id) for proxy_id in done}
        if len(done) < sum(p.node_id in leaving and p.phase in ALIVE for p in observed.proxies):
            pause = min(pause, 1.0)
        for proxy in observed.proxies:
            slot = slot_of(proxy.id)
            spare = slot not in needed or (slot not in self._replacing and there[slot].id != proxy.id)
            if spare and proxy.phase in ALIVE:
                await self._cluster.stop_proxy(proxy.id, drain_s=self._longest_drain())
        await self._relieve(observed)
        pause = min(pause, await self._have_one_stand_by(wanted, observed))
        return min(pause, await self._bring_forward(observed))

    async def _relieve(self, observed: Observed) -> None:
        """Where who serves is silent the one that stands by serves at once: it holds the same listener."""
        for silent in observed.proxies:
            if silent.phase is not ProxyPhase.UNHEALTHY or silent.stands_by:
                continue
            place = (silent.node_id, silent.listener)
            beside = [p for p in observed.proxies if (p.node_id, p.listener) == place and p.phase is ProxyPhase.READY]
            if beside and all(p.stands_by for p in beside):
                try:
                    await self._cluster.serve_beside(beside[0].id)
                except ServeconfError as error:
                    log.warning("nobody serves beside a silent proxy", extra={"reason": error.message})

    async def _have_one_stand_by(self, wanted: Sequence[ProxyOrder], observed: Observed) -> float:
        """Where one that was silent answers again both serve: one of them is to wait for the other one's end once more.

        Both seem to serve also where one has died and the other, which has taken its place, could say so before anybody heard of the
        death: so they have to do it for a while.
        """
        slots, now = {order.id for order in wanted}, self._clock.now()
        since, self._both_serve = self._both_serve, {}
        for order in wanted:
            place = (order.node_id, order.listener)
            both = [p for p in observed.proxies if (p.node_id, p.listener) == place and slot_of(p.id) in slots]
            serve = all(p.phase is ProxyPhase.READY and not p.stands_by for p in both)
            if not order.stands_by or len(both) < 2 or not serve:
                continue
            self._both_serve[place] = since.get(place, now)
            if now - self._both_serve[place] < BOTH_S:
                continue
            for proxy in sorted(
                both, key=lambda p: slot_of(p.id) != order.id
            ):  # whichever of them has not got the port
                try:
                    if await self._cluster.stand_by_again(proxy.id):
                        break
                except ServeconfError as error:
                    log.warning("a proxy does not stand by again", extra={"reason": error.message})
        return min(
            (BOTH_S - (now - begun) for begun in self._both_serve.values() if now - begun < BOTH_S), default=IDLE_S
        )

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
            await self._cluster.stop_proxy(proxy.id, drain_s=0)
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


_BEST_FIRST = (ProxyPhase.READY, ProxyPhase.UNHEALTHY, ProxyPhase.STARTING, ProxyPhase.FAILED, ProxyPhase.DRAINING)


def _relieved(wanted: Iterable[ProxyOrder], observed: Observed) -> set[tuple[str, str]]:
    """Node and listener of those that serve and were started to stand by."""
    standbys = {order.id for order in wanted if order.stands_by}
    serving = (p for p in observed.proxies if p.phase is ProxyPhase.READY and not p.stands_by)
    return {(p.node_id, p.listener) for p in serving if slot_of(p.id) in standbys}


def _by_slot(proxies: Iterable[ProxyState]) -> dict[str, ProxyState]:
    """Slot -> who fills it: of two that a controller has left which died in an upgrade, the one that serves, and is new."""
    found: dict[str, ProxyState] = {}
    for proxy in sorted(proxies, key=lambda p: (_BEST_FIRST.index(p.phase), p.serveconf != __version__, p.id)):
        found.setdefault(slot_of(proxy.id), proxy)
    return found
