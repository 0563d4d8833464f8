"""The ``Cluster`` port on Ray: replicas and proxies are named detached actors, watched from here.

Nothing is remembered that can't be found again: ``refresh`` lists the actors by name and asks each what it is, so a
controller that was killed adopts what it finds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.exceptions import GetTimeoutError, RayError

from serveconf.cluster.actors import kill, start_proxy_actor, start_replica_actor
from serveconf.cluster.logs import get_logger
from serveconf.cluster.settings import HEAD_RESOURCE, NAMESPACE, PROXY_PREFIX, REPLICA_PREFIX, ClusterSettings
from serveconf.cluster.watched import WatchedProxy, WatchedReplica
from serveconf.errors import CodeFailed, OperatorError
from serveconf.plan.state import Observed
from serveconf.reconcile.ports import Counters, LogPart, NodeState, ProxyOrder, ReplicaOrder, Totals
from serveconf.routing import Generation

log = get_logger("cluster")

NODES_PERIOD_S = 2.0
STAGE_TIMEOUT_S = 20.0


class RayCluster:
    """Implements ``reconcile.ports.Cluster``."""

    def __init__(self, settings: ClusterSettings) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._settings = settings
        self._replicas: dict[str, WatchedReplica] = {}
        self._proxies: dict[str, WatchedProxy] = {}
        self._nodes: tuple[NodeState, ...] = ()

    # -- what is there ------------------------------------------------------------------------------------------

    def observe(self) -> Observed:
        """What the watchers have seen last."""
        return Observed(
            replicas=tuple(watched.state for watched in self._replicas.values()),
            proxies=tuple(watched.state for watched in self._proxies.values()),
        )

    def nodes(self) -> tuple[NodeState, ...]:
        """The live nodes, as of at most two seconds ago."""
        return self._nodes

    async def refresh(self) -> None:
        """Adopt every actor that is there by name."""
        await self._look_at_nodes()
        named = await asyncio.to_thread(ray.util.list_named_actors, all_namespaces=True)
        names = [actor["name"] for actor in named if actor["namespace"] == NAMESPACE]
        await asyncio.gather(*(self._adopt(name) for name in names))

    async def keep_nodes_fresh(self) -> None:
        """Look at the nodes every two seconds, for ever; tell when one has come or gone."""
        while True:
            await asyncio.sleep(NODES_PERIOD_S)
            before = {node.id for node in self._nodes}
            await self._look_at_nodes()
            if {node.id for node in self._nodes} != before:
                self.on_change()

    async def _look_at_nodes(self) -> None:
        nodes = await asyncio.to_thread(ray.nodes)
        free = await asyncio.to_thread(available_resources_per_node)
        self._nodes = tuple(
            NodeState(
                id=node["NodeID"],
                is_head=HEAD_RESOURCE in node["Resources"],
                ip=node["NodeManagerAddress"],
                total=dict(node["Resources"]),
                available=dict(free.get(node["NodeID"], {})),
            )
            for node in nodes
            if node["Alive"]
        )

    async def _adopt(self, name: str) -> None:
        kind = next((prefix for prefix in (REPLICA_PREFIX, PROXY_PREFIX) if name.startswith(prefix)), None)
        if kind is None:
            return
        known: dict[str, Any] = self._replicas if kind == REPLICA_PREFIX else self._proxies
        if name.removeprefix(kind) in known:
            return
        try:
            actor = await asyncio.to_thread(ray.get_actor, name, namespace=NAMESPACE)
            watched_type: Any = WatchedReplica if kind == REPLICA_PREFIX else WatchedProxy
            known[name.removeprefix(kind)] = await watched_type.adopt(actor, self._changed)
        except (ValueError, RayError, GetTimeoutError, TimeoutError) as error:
            log.warning("an actor could not be adopted", actor=name, reason=error)
            kill(name)

    def _changed(self) -> None:
        self.on_change()

    # -- replicas -----------------------------------------------------------------------------------------------

    async def start_replica(self, order: ReplicaOrder) -> None:
        """Ray places it; its watcher tells when it is ready or has failed."""
        try:
            actor = start_replica_actor(order, self._settings)
            self._replicas[order.id] = WatchedReplica.started(order, actor, self._changed)
        except (ValueError, TypeError, RayError) as error:  # options that Ray refuses
            self._replicas[order.id] = WatchedReplica.refused(order, str(error), self._changed)

    async def reconfigure(self, replica_id: str, user_config: Any, config_hash: str) -> None:
        """Hand a new user_config over."""
        watched = self._replica(replica_id)
        refused = await _asked(watched.reconfigure(user_config, config_hash), f"replica {replica_id}")
        if refused is not None:
            raise CodeFailed(refused[0], traceback=refused[1])

    async def stop_replica(self, replica_id: str, *, drain_s: float) -> None:
        """Drain and stop it beside the loop; then it is gone."""
        watched = self._replicas.get(replica_id)
        if watched is not None:
            watched.stop(drain_s, gone=lambda: self._replicas.pop(replica_id, None))

    async def tcp_address(self, replica_id: str) -> str | None:
        """Where it is reached from other nodes."""
        address: str = await _asked(self._replica(replica_id).listen_tcp(), f"replica {replica_id}")
        return address

    async def refresh_load(self) -> None:
        """Ask every replica how many requests it has now: for a status."""
        await asyncio.gather(*(watched.look() for watched in self._replicas.values()))

    async def read_log(self, replica_id: str, position: Mapping[str, int] | None, tail: int) -> LogPart:
        """What a replica's process has written."""
        part: LogPart = await _asked(self._replica(replica_id).read_log(position, tail), f"replica {replica_id}")
        return part

    def _replica(self, replica_id: str) -> WatchedReplica:
        watched = self._replicas.get(replica_id)
        if watched is None:
            raise OperatorError(f"replica {replica_id} is gone", code="no_answer")
        return watched

    # -- proxies ------------------------------------------------------------------------------------------------

    async def start_proxy(self, order: ProxyOrder) -> None:
        """Start a proxy on its node; alone on its port it first makes sure that nobody else has it."""
        alone = not any(p.state.node_id == order.node_id and p.port == order.port for p in self._proxies.values())
        actor = start_proxy_actor(order, self._settings, alone=alone)
        self._proxies[order.id] = WatchedProxy.started(order, actor, self._changed)

    async def stop_proxy(self, proxy_id: str, *, drain_s: float) -> None:
        """Drain and stop it beside the loop; then it is gone."""
        watched = self._proxies.get(proxy_id)
        if watched is not None:
            watched.stop(drain_s, gone=lambda: self._proxies.pop(proxy_id, None))

    async def stage(self, proxy_id: str, generation: Generation) -> None:
        """Have it build the generation beside the one it serves."""
        watched = self._proxy(proxy_id)
        refused = await _asked(watched.stage(generation, STAGE_TIMEOUT_S), f"proxy {proxy_id}")
        if refused is None:
            return
        message, trace, is_code = refused
        raise CodeFailed(message, traceback=trace) if is_code else OperatorError(message)

    async def commit(self, proxy_id: str, number: int) -> None:
        """Have it serve what it staged."""
        await _asked(self._proxy(proxy_id).commit(number), f"proxy {proxy_id}")

    async def abort(self, proxy_id: str, number: int) -> None:
        """Have it forget what it staged."""
        await _asked(self._proxy(proxy_id).abort(number), f"proxy {proxy_id}")

    async def count(self, proxy_id: str, operation: str, *, begin: bool) -> Counters:
        """Begin to count, or read what was counted."""
        counted: Counters = await _asked(self._proxy(proxy_id).count(operation, begin=begin), f"proxy {proxy_id}")
        return counted

    async def totals(self, proxy_id: str) -> Totals:
        """What it has counted since its process began."""
        counted: Totals = await _asked(self._proxy(proxy_id).totals(), f"proxy {proxy_id}")
        return counted

    def _proxy(self, proxy_id: str) -> WatchedProxy:
        watched = self._proxies.get(proxy_id)
        if watched is None:
            raise OperatorError(f"proxy {proxy_id} is gone", code="no_answer")
        return watched


async def _asked(answer: Awaitable[Any], who: str) -> Any:
    """The answer; an actor that is dead or silent is an OperatorError here, as everywhere above this room."""
    try:
        return await answer
    except (RayError, TimeoutError) as error:
        raise OperatorError(f"{who} does not answer: {type(error).__name__}", code="no_answer") from error
