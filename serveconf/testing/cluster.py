"""A cluster in memory: replicas and proxies as entries in a dict."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

from msgspec.structs import replace

from serveconf import __version__
from serveconf.errors import CodeFailed, OperatorError
from serveconf.figures import LoadReport, ReplicaFigures
from serveconf.plan.state import Observed, Phase, ProxyPhase, ProxyState, ReplicaPhase, ReplicaState, StandbyState
from serveconf.reconcile.asked import standby_kind
from serveconf.reconcile.ports import (
    Answers,
    Counters,
    LogPart,
    NodeState,
    ProcessOrder,
    ProxyOrder,
    ReplicaOrder,
    StandbyOrder,
    Totals,
)
from serveconf.routing import Generation
from serveconf.testing.hosted import starting_proxy, starting_replica

HEALTH = ("health_check_path", "health_check_period_s", "health_check_timeout_s")


class FakeCluster:
    """Replicas and proxies as entries in a dict. ``settle`` lets what was asked for come true.

    ``broken`` versions never start; ``refuses`` config hashes are not taken; ``hung`` proxies do not answer (``settle``
    notices), nor do callers; ``log`` holds everything that was done. Every call yields, so that what runs beside comes in between.
    """

    def __init__(self, nodes: int = 1) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.log: list[tuple[str, str]] = []
        self.serveconf = __version__  # the version that new processes run
        self.broken_proxies = False  # new ones do not start
        self.restarting: set[str] = set()  # proxies whose process takes its time to come back
        self.broken: set[str] = set()
        self.refuses: set[str] = set()
        self.unstageable: Exception | None = None
        self.hung: set[str] = set()
        self.tended: dict[str, dict[str, Any]] = {}  # replica -> the health options that it is looked after by
        self.slow: dict[str, asyncio.Event] = {}  # stack -> what staging a generation with its routes waits for
        self.live: dict[str, Generation] = {}  # proxy -> what it serves
        self.calling: dict[str, int] = {}  # replicas whose code calls others -> the generation that they call by
        self.reports: dict[str, asyncio.Queue[LoadReport]] = {}  # proxy or replica -> what it has to say of the load
        self.answered: dict[str, Answers] = {}  # "stack/deployment" -> what its replicas have answered
        self.counted: dict[str, ReplicaFigures] = {}  # by replica
        self.silent_s: float | None = None  # for so long the engine has not answered
        self._replicas: dict[str, ReplicaState] = {}
        self._waiting: dict[str, ReplicaOrder] = {}  # replicas that no node has room for
        self._proxies: dict[str, ProxyState] = {}
        self.standbys: dict[str, StandbyOrder] = {}  # all that were ever started
        self._standbys: dict[str, StandbyState] = {}
        self._staged: dict[tuple[str, int], Generation] = {}
        self._observed = Observed()
        self._nodes = tuple(NodeState(id=f"node{i}", is_head=i == 0, total={"CPU": 64.0}) for i in range(nodes))

    def settle(self) -> None:
        """What is starting becomes ready (or fails, where it is broken); what drains is gone."""
        for replica in list(self._replicas.values()):
            if replica.phase is ReplicaPhase.STARTING and not self._is_placed(replica):
                continue
            if replica.phase is ReplicaPhase.STARTING:
                failed = replica.version in self.broken
                phase = ReplicaPhase.FAILED if failed else ReplicaPhase.READY
                message = "RuntimeError: broken\nTraceback" if failed else ""
                self._replicas[replica.id] = replace(replica, phase=phase, message=message)
            elif replica.phase is ReplicaPhase.DRAINING:
                del self._replicas[replica.id]
        for standby in list(self._standbys.values()):
            if standby.phase is Phase.STARTING:
                self._standbys[standby.id] = replace(standby, phase=Phase.READY)
        for proxy in list(self._proxies.values()):
            if proxy.phase is not ProxyPhase.DRAINING and proxy.id in self.hung:
                self._proxies[proxy.id] = replace(proxy, phase=ProxyPhase.UNHEALTHY)
            elif proxy.phase is ProxyPhase.STARTING and proxy.id in self.restarting:
                continue
            elif proxy.phase is ProxyPhase.STARTING and self.broken_proxies:
                self._proxies[proxy.id] = replace(proxy, phase=ProxyPhase.FAILED, message="ImportError: broken")
            elif proxy.phase in (ProxyPhase.STARTING, ProxyPhase.UNHEALTHY):
                self._proxies[proxy.id] = replace(proxy, phase=ProxyPhase.READY)
            elif proxy.phase is ProxyPhase.DRAINING:
                del self._proxies[proxy.id]
        self.on_change()

    def get_ready(self, replica_id: str) -> None:
        """One that is starting, before all others."""
        self._replicas[replica_id] = replace(self._replicas[replica_id], phase=ReplicaPhase.READY)
        self.on_change()

    def kill(self, replica_id: str) -> None:
        """The replica's process ends."""
        process = self._replicas[replica_id].process
        for one in list(self._replicas.values()):
            if one.id == replica_id or (process and one.process == process):
                cut_short = one.was_standby and one.phase is ReplicaPhase.STARTING
                self._replicas[one.id] = replace(one, phase=ReplicaPhase.FAILED, message="killed", cut_short=cut_short)
        self.on_change()

    def fail(self, replica_id: str, message: str, *, code: str = "") -> None:
        """One that is starting can't: no fault of its code, where there is a ``code``."""
        failed = replace(self._replicas[replica_id], phase=ReplicaPhase.FAILED, message=message, code=code)
        self._replicas[replica_id] = failed
        self.on_change()

    def sicken(self, replica_id: str) -> None:
        """The replica's health checks fail, if it is ready."""
        replica = self._replicas[replica_id]
        if replica.phase is ReplicaPhase.READY:
            self._replicas[replica_id] = replace(replica, phase=ReplicaPhase.UNHEALTHY)
            self.on_change()

    def fail_standby(self, standby_id: str) -> None:
        """It does not start."""
        self._standbys[standby_id] = replace(self._standbys[standby_id], phase=Phase.FAILED, message="broken")
        self.on_change()

    def kill_proxy(self, proxy_id: str) -> None:
        """The proxy's process ends; the engine is restarting it. Where it has a standby that one serves now."""
        killed = replace(self._proxies[proxy_id], phase=ProxyPhase.STARTING, generation=0)
        for other in list(self._proxies.values()):
            same = (other.node_id, other.listener) == (killed.node_id, killed.listener)
            if same and other.stands_by and other.phase is ProxyPhase.READY and not killed.stands_by:
                self._proxies[other.id] = replace(other, stands_by=False)
                killed = replace(killed, stands_by=True)
        self._proxies[proxy_id] = killed
        self.on_change()

    def silent_for(self) -> float | None:
        """See the port."""
        return self.silent_s

    def set_nodes(self, *nodes: NodeState) -> None:
        """Other nodes are there now."""
        self._nodes = nodes
        self.on_change()

    def observe(self) -> Observed:
        """What is there."""
        found = Observed(
            replicas=tuple(self._replicas.values()),
            proxies=tuple(self._proxies.values()),
            standbys=tuple(self._standbys.values()),
        )
        if found != self._observed:  # else what was worked out of the last one is known
            self._observed = found
        return self._observed

    def nodes(self) -> tuple[NodeState, ...]:
        """The nodes."""
        return self._nodes

    async def refresh(self, serving: Collection[str] = ()) -> None:
        """There is nothing to find again."""
        await asyncio.sleep(0)

    async def refresh_load(self) -> None:
        """There is no load."""
        await asyncio.sleep(0)

    async def start_process(self, order: ProcessOrder) -> None:
        """Its replicas are starting."""
        for one in order.replicas:
            await self.start_replica(one)
            self._replicas[one.id] = replace(self._replicas[one.id], process=order.id)
        self.on_change()

    async def start_replica(self, order: ReplicaOrder) -> None:
        """A replica is starting."""
        await asyncio.sleep(0)
        self.log.append(("start", order.id))
        node = self._place(order)
        if node is None:
            self._waiting[order.id] = order
        kind = standby_kind(order.deployment.spec)
        standby = next((s for s in self._standbys.values() if s.kind == kind and s.phase is Phase.READY), None)
        if standby is not None:
            del self._standbys[standby.id]
        began = starting_replica(order, node.id if node is not None else "")
        self._replicas[order.id] = replace(began, was_standby=standby is not None, serveconf=self.serveconf)
        self.on_change()

    def _place(self, order: ReplicaOrder) -> NodeState | None:
        """The nodes in turn, or of those that say what is free the one with fewest of its deployment; None: each has as many as
        it may have, so that it starts for ever."""
        staying = [node for node in self._nodes if not node.drains] or self._nodes
        most = order.deployment.spec.get("max_replicas_per_node")
        mine = (order.stack, order.deployment.name)
        there = Counter(r.node_id for r in self._replicas.values() if (r.stack, r.deployment) == mine)
        if most is None:
            if free := [node for node in staying if node.available]:
                return min(free, key=lambda node: there[node.id])
            return staying[len(self._replicas) % len(staying)]
        return next((node for node in staying if there[node.id] < most), None)

    def _is_placed(self, replica: ReplicaState) -> bool:
        """One that waits gets the place that has become free; it is ready at the next look."""
        order = self._waiting.get(replica.id)
        if order is not None and (node := self._place(order)) is not None:
            del self._waiting[replica.id]
            self._replicas[replica.id] = replace(replica, node_id=node.id)
        return order is None

    async def reconfigure(self, replica_id: str, user_config: Any, config_hash: str) -> None:
        """It takes the config, or refuses."""
        await asyncio.sleep(0)
        self.log.append(("reconfigure", replica_id))
        if config_hash in self.refuses:
            raise CodeFailed("ValueError: no such threshold")
        self._replicas[replica_id] = replace(self._replicas[replica_id], config_hash=config_hash)
        self.on_change()

    def tend_replica(self, replica_id: str, spec: Mapping[str, Any]) -> None:
        """Noted, where it is news."""
        health = {key: spec[key] for key in HEALTH if key in spec}
        if health and self.tended.get(replica_id) != health:
            self.tended[replica_id] = health

    async def stop_replica(self, replica_id: str, *, drain_s: float) -> None:
        """A replica drains; one that has ended is forgotten."""
        await asyncio.sleep(0)
        self.log.append(("stop", replica_id))
        replica = self._replicas.get(replica_id)
        if replica is not None and replica.phase is ReplicaPhase.FAILED:
            del self._replicas[replica_id]
        elif replica is not None:
            self._replicas[replica_id] = replace(replica, phase=ReplicaPhase.DRAINING)
        self.on_change()

    async def rename_replica(self, replica_id: str, deployment: str) -> None:
        """It has the name."""
        await asyncio.sleep(0)
        self.log.append(("rename", replica_id))
        if replica_id in self._replicas:
            self._replicas[replica_id] = replace(self._replicas[replica_id], deployment=deployment)
            self.on_change()

    async def take_back(self, replica_id: str) -> bool:
        """It serves on."""
        await asyncio.sleep(0)
        self.log.append(("take_back", replica_id))
        replica = self._replicas.get(replica_id)
        if replica is None or replica.phase is not ReplicaPhase.DRAINING:
            return False
        self._replicas[replica_id] = replace(replica, phase=ReplicaPhase.READY)
        self.on_change()
        return True

    async def start_proxy(self, order: ProxyOrder) -> None:
        """A proxy is starting."""
        await asyncio.sleep(0)
        self.log.append(("start_proxy", order.id))
        self._proxies[order.id] = replace(starting_proxy(order), serveconf=self.serveconf)
        self.on_change()

    async def stop_proxy(self, proxy_id: str, *, drain_s: float) -> None:
        """A proxy drains."""
        await asyncio.sleep(0)
        self.log.append(("stop_proxy", proxy_id))
        proxy = self._proxies.get(proxy_id)
        if proxy is not None:
            self._proxies[proxy_id] = replace(proxy, phase=ProxyPhase.DRAINING)
        self.on_change()

    async def serve_beside(self, proxy_id: str) -> None:
        """It serves."""
        await self._answer_of(proxy_id)
        self.log.append(("serve_beside", proxy_id))
        self._proxies[proxy_id] = replace(self._proxies[proxy_id], stands_by=False)
        self.on_change()

    async def stand_by_again(self, proxy_id: str) -> bool:
        """It stands by, where another one of its node is there."""
        await self._answer_of(proxy_id)
        self.log.append(("stand_by_again", proxy_id))
        mine = self._proxies[proxy_id]
        others = [p for p in self._proxies.values() if (p.node_id, p.listener) == (mine.node_id, mine.listener)]
        stands_by = len(others) > 1 and all(not p.stands_by for p in others)
        self._proxies[proxy_id] = replace(mine, stands_by=stands_by)
        self.on_change()
        return stands_by

    async def warn_proxy(self, proxy_id: str) -> None:
        """It serves on."""
        await self._answer_of(proxy_id)
        self.log.append(("warn_proxy", proxy_id))

    async def start_standby(self, order: StandbyOrder) -> None:
        """A standby is starting; ``standbys`` says what it imports."""
        await asyncio.sleep(0)
        self.standbys[order.id] = order
        state = StandbyState(
            id=order.id, kind=order.kind, node_id=order.node_id, phase=Phase.STARTING, serveconf=self.serveconf
        )
        self._standbys[order.id] = state
        self.on_change()

    async def stop_standby(self, standby_id: str) -> None:
        """It is gone."""
        await asyncio.sleep(0)
        self._standbys.pop(standby_id, None)
        self.on_change()

    async def callers(self) -> tuple[str, ...]:
        """Those that are ready of ``calling``."""
        await asyncio.sleep(0)
        found = (r for r in self._replicas.values() if r.id in self.calling and r.phase is ReplicaPhase.READY)
        return tuple({(r.process or r.id): r.id for r in found}.values())

    async def stage(self, server_id: str, generation: Generation) -> None:
        """It builds the generation, or can't."""
        await self._answer_of(server_id)
        if server_id in self.calling:
            self._staged[server_id, generation.number] = generation
            return
        for stack, free in self.slow.items():
            if any(route.stack == stack for route in generation.routes):
                await free.wait()
        if self.unstageable is not None:
            raise self.unstageable
        self._staged[server_id, generation.number] = generation

    async def commit(self, server_id: str, number: int) -> None:
        """It serves what it staged; it never goes back to an older one."""
        await self._answer_of(server_id)
        if server_id in self.calling:
            if (server_id, number) in self._staged and number > self.calling[server_id]:
                self.calling[server_id] = number
            return
        if number <= self._proxies[server_id].generation:
            return
        self.log.append(("commit", f"{server_id}:{number}"))
        self.live[server_id] = self._staged.pop((server_id, number))
        self._proxies[server_id] = replace(self._proxies[server_id], generation=number)

    async def abort(self, server_id: str, number: int) -> None:
        """It forgets what it staged."""
        await self._answer_of(server_id)
        self._staged.pop((server_id, number), None)

    async def count(self, proxy_id: str, operation: str, *, begin: bool) -> Counters:
        """Nothing was asked, nothing failed."""
        await asyncio.sleep(0)
        return Counters()

    async def load_report(self, source: str, seen: int, *, slower: float) -> LoadReport:
        """The next of its ``reports``; a first one that there is nothing, since nothing was asked."""
        await asyncio.sleep(0)
        if (source not in self._proxies and source not in self._replicas) or source in self.hung:
            raise OperatorError(f"{source} does not answer", code="no_answer")
        reports = self.reports.setdefault(source, asyncio.Queue())
        return LoadReport(number=1) if not seen and reports.empty() else await reports.get()

    async def totals(self, proxy_id: str) -> Totals:
        """What a test says that was answered (``answered``)."""
        await asyncio.sleep(0)
        return Totals(deployments=dict(self.answered))

    async def replica_figures(self, replica_id: str) -> ReplicaFigures:
        """What a test says that it has counted (``counted``)."""
        await asyncio.sleep(0)
        if replica_id not in self._replicas:
            raise OperatorError(f"replica {replica_id} is gone", code="no_answer")
        return self.counted.get(replica_id, ReplicaFigures())

    async def read_ended_log(self, node_id: str, pid: int, tail: int) -> LogPart:
        """One line."""
        await asyncio.sleep(0)
        return LogPart(lines=(f"the last words of {pid} on {node_id}",))

    async def read_log(self, process_id: str, position: Mapping[str, int] | None, tail: int) -> LogPart:
        """One line, once."""
        await asyncio.sleep(0)
        return LogPart(lines=(f"hello from {process_id}",) if position is None else (), position={"out": 1})

    async def tcp_address(self, replica_id: str) -> str | None:
        """Somewhere."""
        await asyncio.sleep(0)
        address = f"10.0.0.1:{sum(map(ord, replica_id)) % 60000 + 1024}"
        self._replicas[replica_id] = replace(self._replicas[replica_id], tcp=address)
        return address

    async def _answer_of(self, proxy_id: str) -> None:
        await asyncio.sleep(0)
        while proxy_id in self.hung:  # noqa: ASYNC110 - a test says when it goes on
            await asyncio.sleep(0.01)
        if proxy_id not in self._proxies and proxy_id not in self._replicas:
            raise OperatorError(f"{proxy_id} is gone", code="no_answer")
