"""Ray put on the plain classes: one thin actor each, and how Ray is asked to place it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from serveconf.cluster.kv import RayStore
from serveconf.cluster.own_log import read_own_log
from serveconf.cluster.process import set_up_process
from serveconf.cluster.settings import NAMESPACE, PROXY_PREFIX, REPLICA_PREFIX, ClusterSettings
from serveconf.plan.state import ProxyState, ReplicaState
from serveconf.reconcile.placement import asked_resources
from serveconf.reconcile.ports import Counters, LogPart, ProxyOrder, ReplicaOrder, Totals
from serveconf.routing import Generation


class ReplicaActor:
    """``cluster.replica.Replica`` as an actor."""

    def __init__(self, order: ReplicaOrder, settings: ClusterSettings) -> None:
        from serveconf.cluster.replica import Replica

        set_up_process()
        self._order = order
        context = ray.get_runtime_context()
        self._replica = Replica(
            order,
            settings,
            RayStore(),
            node_id=context.get_node_id(),
            node_ip=str(ray.util.get_node_ip_address()),  # type: ignore[no-untyped-call]
        )

    async def order(self) -> ReplicaOrder:
        """What it was started with."""
        return self._order

    async def describe(self) -> ReplicaState:
        """See Replica."""
        return self._replica.describe()

    async def wait_ready(self) -> ReplicaState:
        """See Replica."""
        return await self._replica.wait_ready()

    async def check(self) -> str:
        """See Replica."""
        return await self._replica.check()

    async def reconfigure(self, user_config: Any, config_hash: str) -> tuple[str, str] | None:
        """See Replica."""
        return await self._replica.reconfigure(user_config, config_hash)

    async def listen_tcp(self) -> str:
        """See Replica."""
        return await self._replica.listen_tcp()

    async def read_log(self, position: Mapping[str, int] | None, tail: int) -> LogPart:
        """What its process has written."""
        return read_own_log(position, tail)

    async def drain(self, timeout_s: float) -> bool:
        """See Replica."""
        return await self._replica.drain(timeout_s)

    async def closed(self) -> None:
        """Never returns; who waits for it hears of the process's end at once."""
        await asyncio.Event().wait()


class ProxyActor:
    """``cluster.proxy.Proxy`` as an actor."""

    def __init__(self, order: ProxyOrder, settings: ClusterSettings, alone: bool) -> None:
        from serveconf.cluster.proxy import Proxy

        set_up_process()
        self._order = order
        restarted = ray.get_runtime_context().was_current_actor_reconstructed
        self._proxy = Proxy(order, settings, RayStore(), alone=alone and not restarted)

    async def order(self) -> ProxyOrder:
        """What it was started with."""
        return self._order

    async def describe(self) -> ProxyState:
        """See Proxy."""
        return self._proxy.describe()

    async def wait_ready(self) -> ProxyState:
        """See Proxy."""
        return await self._proxy.wait_ready()

    async def stage(self, generation: Generation) -> tuple[str, str, bool] | None:
        """See Proxy."""
        return await self._proxy.stage(generation)

    async def commit(self, number: int) -> None:
        """See Proxy."""
        await self._proxy.commit(number)

    async def abort(self, number: int) -> None:
        """See Proxy."""
        await self._proxy.abort(number)

    async def count(self, operation: str, begin: bool) -> Counters:
        """See Proxy."""
        return await self._proxy.count(operation, begin=begin)

    async def totals(self) -> Totals:
        """See Proxy."""
        return await self._proxy.totals()

    async def drain(self, timeout_s: float) -> None:
        """See Proxy."""
        await self._proxy.drain(timeout_s)

    async def closed(self) -> None:
        """Never returns; who waits for it hears of the process's end at once."""
        await asyncio.Event().wait()


def start_replica_actor(order: ReplicaOrder, settings: ClusterSettings) -> Any:
    """Have Ray start a replica where its ray_actor_options fit. It is never restarted as it is: the loop starts a new one."""
    options = order.deployment.spec["ray_actor_options"]
    asked = asked_resources(options)
    extra = {key: options[key] for key in ("accelerator_type", "label_selector") if options.get(key)}
    if options.get("runtime_env"):
        extra["runtime_env"] = options["runtime_env"]
    return (
        ray.remote(ReplicaActor)
        .options(
            name=REPLICA_PREFIX + order.id,
            namespace=NAMESPACE,
            lifetime="detached",
            max_restarts=0,
            num_cpus=asked.get("CPU", 0),
            num_gpus=asked.get("GPU", 0),
            memory=asked.get("memory") or None,
            resources=options.get("resources") or None,
            scheduling_strategy="SPREAD",  # by itself Ray fills one node first: its end would take all replicas
            **extra,
        )
        .remote(order, settings)
    )


def start_proxy_actor(order: ProxyOrder, settings: ClusterSettings, *, alone: bool) -> Any:
    """Have Ray start a proxy on its node, and restart it there when it dies."""
    return (
        ray.remote(ProxyActor)
        .options(
            name=PROXY_PREFIX + order.id,
            namespace=NAMESPACE,
            lifetime="detached",
            max_restarts=-1,
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(order.node_id, soft=False),
        )
        .remote(order, settings, alone)
    )


def kill_actor(actor: Any) -> None:
    """End the actor's process for good."""
    ray.kill(actor, no_restart=True)


def kill(name: str) -> None:
    """End the actor of that name, if there is one."""
    try:
        kill_actor(ray.get_actor(name, namespace=NAMESPACE))
    except ValueError:
        return
