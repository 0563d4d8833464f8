"""The ``Cluster`` port on an engine's actors: one handle each, found again by name.

What an actor was started with lies in the store beside it, so that a controller that was killed adopts what it finds
without asking it, also where user code keeps the actor from answering just then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from serveconf.background import Tasks, keep
from serveconf.cluster.engine import Away, Engine, Gone, Refused, Silent
from serveconf.cluster.handle import ANSWER_S, Handle
from serveconf.cluster.logs import get_logger
from serveconf.cluster.lost_nodes import NODE_LOST, end_adrift, find_again, is_adrift, lose
from serveconf.cluster.node_watch import NodeWatch
from serveconf.cluster.orders import Orders, kind_of_order, place_of_order, replica_care
from serveconf.cluster.own_log import read_log_of, read_own_log
from serveconf.cluster.proxy_handles import ProxyHandles
from serveconf.cluster.replica_handles import ReplicaHandles, Rooms
from serveconf.cluster.settings import PROXY_PREFIX, REPLICA_PREFIX, STANDBY_PREFIX, ClusterSettings
from serveconf.cluster.spread import best_node
from serveconf.cluster.standby_pool import StandbyPool
from serveconf.cluster.unplaced import Unplaced
from serveconf.errors import CodeFailed, OperatorError, ServeconfError
from serveconf.figures import LoadReport, ReplicaFigures
from serveconf.plan.state import Observed, Phase, ProxyState, ReplicaState
from serveconf.reconcile.kept_figures import KeptFigures
from serveconf.reconcile.ports import (
    CONTROLLER_LOG,
    Counters,
    LogPart,
    NodeState,
    ProcessOrder,
    ProxyOrder,
    ReplicaOrder,
    StandbyOrder,
    Totals,
)
from serveconf.routing import CALLERS, Generation, encode

log = get_logger("cluster")

Handles = list[Handle[ReplicaState]]

LOAD_ANSWER_S = 30.0  # a proxy with nothing to report says so four times a minute
ADOPT_S = 3.0  # for what does not serve, and may wait for a place, to say what it is: a controller that has come back waits for it
REPLICA_ANSWER_S = 1.0  # with figures: one whose loop the user's code blocks is left out


class ActorCluster:
    """Implements ``reconcile.ports.Cluster``."""

    def __init__(self, engine: Engine, settings: ClusterSettings) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.on_silence: Callable[[str], None] = lambda message: log.warning("silence", message=message)
        self.kept: KeptFigures | None = None  # told what a process has counted when it has drained
        self._engine = engine
        self._settings = settings
        self._tasks = Tasks()
        self._orders = Orders(engine.store)
        self._replicas = ReplicaHandles(
            engine, self._orders, self._tasks, changed=self._has_changed, last_words=self._keep_replica_figures
        )
        self._proxies = ProxyHandles(
            engine, settings, self._orders, changed=self._has_changed, last_words=self._keep_proxy_figures
        )
        self._standbys = StandbyPool(engine, self._orders, self._has_changed)
        self._unplaced = Unplaced(self._replicas.handles, self._standbys, self._tasks)
        self._watch = NodeWatch(engine, lambda message: self.on_silence(message))
        self._observed: Observed | None = None  # made when somebody looks, as is the next
        self._free_nodes: tuple[NodeState, ...] | None = None

    # -- what is there ------------------------------------------------------------------------------------------

    def observe(self) -> Observed:
        """What the handles have seen last."""
        if self._observed is None:
            self._observed = Observed(
                replicas=tuple(handle.state for handle in self._replicas.handles.values()),
                proxies=tuple(
                    h.state for h in self._proxies.handles.values() if not is_adrift(h.state, self._watch.lost)
                ),
                standbys=tuple(handle.state for handle in self._standbys.handles.values()),
            )
        return self._observed

    def nodes(self) -> tuple[NodeState, ...]:
        """The live nodes that are reached, as of three seconds ago. What standbys hold is free: a replica that needs it gets it."""
        if self._free_nodes is None:
            self._free_nodes = tuple(map(self._standbys.given_back, self._watch.nodes))
        return self._free_nodes

    def silent_for(self) -> float | None:
        """See the port."""
        return self._engine.silent_for()

    async def refresh(self, serving: Collection[str] = ()) -> None:
        """Adopt every actor that is there by name. See the port."""
        await self._watch.look()
        self._free_nodes = None
        await asyncio.gather(*(self._adopt(name, serving) for name in await self._engine.names()))
        self._has_changed()
        await self._engine.tidy()

    def close(self) -> None:
        """Watch nothing any more; the actors go on."""
        self._tasks.cancel()
        for replica in self._replicas.handles.values():
            replica.let_go()
        for proxy in self._proxies.handles.values():
            proxy.let_go()
        for standby in self._standbys.handles.values():
            standby.let_go()

    async def keep_nodes_fresh(self) -> None:
        """Look at the nodes and knock at them, again and again; tell when one has come, gone or begins to drain."""
        await keep("nodes", self._follow_nodes)

    async def _follow_nodes(self) -> None:
        while True:
            seen = await self._watch.look_again()
            self._free_nodes = None
            lose((*self._replicas.handles.values(), *self._standbys.handles.values()), self._watch.lost)
            lose(self._proxies.handles.values(), self._watch.lost)
            find_again(self._proxies.handles.values(), {node.id for node in self._watch.nodes})
            self._unplaced.give_room(self._watch.nodes, self.nodes())
            if seen.came_back:  # what was given up there must not live on
                await self.refresh()
            if seen.changed:
                self._has_changed()

    async def end_what_is_adrift(self) -> None:
        """The proxies of nodes that are out of reach end, as soon as they are reached."""
        await end_adrift(self._proxies.handles.values(), self._watch.lost)

    def _drain_s(self, handle: Handle[Any], drain_s: float) -> float:
        """Nothing that is out of reach finishes anything."""
        return 0.0 if handle.state.node_id in self._watch.lost or handle.state.message == NODE_LOST else drain_s

    async def _adopt(self, name: str, serving: Collection[str]) -> None:
        if not name.startswith((REPLICA_PREFIX, PROXY_PREFIX, STANDBY_PREFIX)):
            return
        remote = await self._engine.find(name)
        order = await self._orders.find(name)
        if remote is None:
            return
        match order:
            case ReplicaOrder():  # perhaps in what was a standby
                if order.id not in self._replicas.handles:
                    handle = self._replicas.alone(name, order, remote)
                    await self._adopt_as(name, handle, self._replicas.handles, serves=order.id in serving)
            case ProcessOrder():
                rooms = Rooms(self._engine, remote, order)
                for one in order.replicas:
                    if one.id not in self._replicas.handles:
                        handle = self._replicas.in_process(name, order, one, rooms)
                        await self._adopt_as(name, handle, self._replicas.handles, serves=one.id in serving)
            case ProxyOrder():
                if order.id not in self._proxies.handles:
                    await self._adopt_as(name, self._proxies.handle(order, remote), self._proxies.handles)
            case StandbyOrder():
                if order.id not in self._standbys.handles:
                    await self._adopt_as(name, self._standbys.handle(order, remote), self._standbys.handles)
            case None:  # begun by a controller that died in that moment; nobody knows what it is
                log.warning("an actor without an order is ended", actor=name)
                await self._engine.kill(remote)

    async def _adopt_as(self, name: str, handle: Handle[Any], known: dict[str, Any], *, serves: bool = False) -> None:
        """In the state that it says it is in; one that serves and says nothing is taken for ready until its checks fail."""
        remote = handle.remote
        assert remote is not None
        try:
            state = await remote.call("describe", timeout_s=ANSWER_S if serves else ADOPT_S)
            if type(state) is not type(handle.state):  # a standby that was to become a replica when the controller died
                await handle.end_now()
                self._orders.forget(name)
                return
            handle.state = replace(state, process=handle.state.process) if isinstance(state, ReplicaState) else state
        except (Silent, Away):
            if serves:
                handle.state = replace(handle.state, phase=Phase.READY)
        except Gone as gone:
            handle.state = replace(handle.state, phase=Phase.FAILED, message=str(gone))
        known[handle.state.id] = handle
        handle.watch()

    # -- replicas -----------------------------------------------------------------------------------------------

    async def start_replica(self, order: ReplicaOrder) -> None:
        """In a standby of its kind, or where the engine places it; its handle tells when it is ready or has failed."""
        for handle in await self._warm(order) or await self._cold(order):
            self._replicas.handles[order.id] = handle
            handle.watch()
        self._has_changed()

    async def start_process(self, order: ProcessOrder) -> None:
        """As ``start_replica``, with a handle for each replica in it."""
        for handle in await self._warm(order) or await self._cold(order):
            self._replicas.handles[handle.state.id] = handle
            handle.watch()
        self._has_changed()

    async def _warm(self, order: ReplicaOrder | ProcessOrder) -> Handles:
        while (standby := self._standbys.fitting(order, self.observe().replicas, self._watch.nodes)) is not None:
            taken = await self._standbys.take(standby, order, self._settings)
            if taken is not None:
                handles = self._replicas.of_order(taken[0], order, taken[1])
                there = {"node_id": standby.state.node_id, "pid": standby.state.pid, "was_standby": True}
                for handle in handles:
                    handle.state = replace(handle.state, **there)
                return handles
        return []

    async def _cold(self, order: ReplicaOrder | ProcessOrder) -> Handles:
        self._standbys.make_room(order, self._watch.nodes)
        name = REPLICA_PREFIX + order.id
        await self._orders.keep(name, order)
        prefers = best_node(order.stack, order.deployment, self.observe().replicas, self.nodes())
        place = replace(place_of_order(order), prefers=prefers)
        try:
            remote = await self._engine.start(name, kind_of_order(order), (order, self._settings), place)
        except Refused as refused:
            handles = self._replicas.of_order(name, order, None)
            for handle in handles:
                handle.state = replace(handle.state, phase=Phase.FAILED, message=str(refused))
            return handles
        self._unplaced.add(order)
        handles = self._replicas.of_order(name, order, remote)
        for handle in handles:  # most probably; it says itself where it has come to be
            handle.state = replace(handle.state, node_id=prefers)
        return handles

    async def reconfigure(self, replica_id: str, user_config: Any, config_hash: str) -> None:
        """Hand a new user_config over."""
        handle = self._replicas.find(replica_id)
        refused = await handle.ask("reconfigure", user_config, config_hash, timeout_s=handle.care.ready_s)
        if refused is not None:
            raise CodeFailed(refused[0], traceback=refused[1])
        handle.note(config_hash=config_hash)

    def tend_replica(self, replica_id: str, spec: Mapping[str, Any]) -> None:
        """How it is looked after from now on."""
        handle = self._replicas.handles.get(replica_id)
        if handle is not None:
            handle.care = replica_care(spec, handle.care.ready_s)

    async def stop_replica(self, replica_id: str, *, drain_s: float) -> None:
        """Drain and stop it beside the loop; then it is gone."""
        handle = self._replicas.handles.get(replica_id)
        if handle is not None:
            handle.stop(self._drain_s(handle, drain_s))

    async def rename_replica(self, replica_id: str, deployment: str) -> None:
        """See the port."""
        await self._replicas.rename(replica_id, deployment)

    async def take_back(self, replica_id: str) -> bool:
        """See the port."""
        handle = self._replicas.handles.get(replica_id)
        return handle is not None and await handle.take_back()

    async def tcp_address(self, replica_id: str) -> str | None:
        """Where it is reached from other nodes."""
        handle = self._replicas.find(replica_id)
        address: str = await handle.ask("listen_tcp")
        handle.note(tcp=address)
        return address

    async def refresh_load(self) -> None:
        """Ask every replica how many requests it has now: for a status."""
        ready = [handle for handle in self._replicas.handles.values() if handle.state.phase is Phase.READY]
        await asyncio.gather(*(self._look(handle) for handle in ready))

    async def _look(self, handle: Handle[ReplicaState]) -> None:
        try:
            now: ReplicaState = await handle.ask("describe", timeout_s=0.5)
        except ServeconfError:
            return
        if (now.ongoing, now.tcp) != (handle.state.ongoing, handle.state.tcp):
            handle.state = replace(handle.state, ongoing=now.ongoing, tcp=now.tcp)  # nothing that anybody must act on
            self._observed = None

    async def replica_figures(self, replica_id: str) -> ReplicaFigures:
        """What a replica has counted since its process began."""
        figures = await self._replicas.find(replica_id).ask("figures", timeout_s=REPLICA_ANSWER_S)
        return msgspec.msgpack.decode(figures, type=ReplicaFigures)

    async def read_log(self, process_id: str, position: Mapping[str, int] | None, tail: int) -> LogPart:
        """What a replica, a proxy or this controller has written."""
        if process_id == CONTROLLER_LOG:
            return await asyncio.to_thread(read_own_log, position, tail)
        handle: Handle[Any] = self._proxies.handles.get(process_id) or self._replicas.find(process_id)
        part: LogPart = await handle.ask("read_log", position, tail)
        return part

    async def read_ended_log(self, node_id: str, pid: int, tail: int) -> LogPart:
        """Its files lie on its node: whoever runs there reads them."""
        if any(node.id == node_id and node.is_head for node in self._watch.nodes):  # as this controller does
            return await asyncio.to_thread(read_log_of, pid, tail)
        handles: list[Handle[Any]] = [*self._proxies.handles.values(), *self._replicas.handles.values()]
        for handle in handles:
            if handle.state.node_id == node_id and handle.state.phase is Phase.READY:
                part: LogPart = await handle.ask("read_log_of", pid, tail)
                return part
        raise OperatorError(f"nothing of serveconf runs on node {node_id} that could read its log", code="no_answer")

    # -- standbys -----------------------------------------------------------------------------------------------

    async def start_standby(self, order: StandbyOrder) -> None:
        """See the port."""
        await self._standbys.start(order)

    async def stop_standby(self, standby_id: str) -> None:
        """See the port."""
        self._standbys.stop(standby_id)

    # -- proxies ------------------------------------------------------------------------------------------------

    async def start_proxy(self, order: ProxyOrder) -> None:
        """See the port."""
        await self._proxies.start(order)

    async def stop_proxy(self, proxy_id: str, *, drain_s: float) -> None:
        """Drain and stop it beside the loop; then it is gone."""
        handle = self._proxies.handles.get(proxy_id)
        if handle is not None:
            handle.stop(self._drain_s(handle, drain_s))

    async def serve_beside(self, proxy_id: str) -> None:
        """See the port."""
        await self._proxies.serve_beside(proxy_id)

    async def stand_by_again(self, proxy_id: str) -> bool:
        """See the port."""
        return await self._proxies.stand_by_again(proxy_id)

    async def warn_proxy(self, proxy_id: str) -> None:
        """See the port."""
        await self._proxies.warn(proxy_id)

    async def callers(self) -> tuple[str, ...]:
        """They have put their names into the store."""
        names = {key.removeprefix(CALLERS) for key in await self._engine.store.keys(CALLERS)}
        states = [handle.state for handle in self._replicas.handles.values() if handle.state.phase is Phase.READY]
        return tuple({(s.process or s.id): s.id for s in states if (s.process or s.id) in names}.values())

    async def stage(self, server_id: str, generation: Generation) -> None:
        """See the port."""
        caller = self._replicas.handles.get(server_id)
        if caller is None:
            await self._proxies.stage(server_id, generation)
        else:
            await caller.ask("stage", encode(generation))

    async def commit(self, server_id: str, number: int) -> None:
        """See the port."""
        caller = self._replicas.handles.get(server_id)
        await (self._proxies.commit(server_id, number) if caller is None else caller.ask("commit", number))

    async def abort(self, server_id: str, number: int) -> None:
        """See the port."""
        caller = self._replicas.handles.get(server_id)
        await (self._proxies.abort(server_id, number) if caller is None else caller.ask("abort", number))

    async def count(self, proxy_id: str, operation: str, *, begin: bool) -> Counters:
        """See the port."""
        return await self._proxies.count(proxy_id, operation, begin=begin)

    async def totals(self, proxy_id: str) -> Totals:
        """See the port."""
        return await self._proxies.totals(proxy_id)

    async def _keep_proxy_figures(self, proxy: ProxyState) -> None:
        if self.kept is not None:
            self.kept.saw_proxy(proxy.id, (await self.totals(proxy.id)).figures)

    async def _keep_replica_figures(self, replica: ReplicaState) -> None:
        if self.kept is not None:
            key = f"{replica.stack}/{replica.deployment}"
            self.kept.saw_replica(replica.id, key, await self.replica_figures(replica.id))

    async def load_report(self, source: str, seen: int, *, slower: float) -> LoadReport:
        """A call that is pending until there is something to report."""
        timeout_s = LOAD_ANSWER_S * max(1.0, slower)
        handle = self._replicas.find(source) if source in self._replicas.handles else self._proxies.find(source)
        report: LoadReport = await handle.ask("load_report", seen, slower, timeout_s=timeout_s)
        return report

    # -- both ---------------------------------------------------------------------------------------------------

    def _has_changed(self) -> None:
        self._observed = self._free_nodes = None
        self.on_change()
