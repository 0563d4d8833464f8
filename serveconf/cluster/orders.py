"""What actors were started with, in the store beside them; and what an order asks of the engine and of a handle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

import msgspec
from msgspec.structs import replace

from serveconf.background import Tasks
from serveconf.cluster.engine import EngineError, Place
from serveconf.cluster.handle import Care
from serveconf.cluster.logs import get_logger
from serveconf.errors import ServeconfError
from serveconf.reconcile.asked import asked_resources, counts_as, group_of
from serveconf.reconcile.ports import ProcessOrder, ProxyOrder, ReplicaOrder, StandbyOrder, Store
from serveconf.routing import CALLERS

log = get_logger("cluster")

FOLDER = "orders/"

Order = ReplicaOrder | ProcessOrder | ProxyOrder | StandbyOrder
_DECODER: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)


class Orders:
    """By the actor's name."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._forgetting = Tasks()

    async def keep(self, name: str, order: Order) -> None:
        """Before the actor is started, so that there is none without."""
        await self._store.put(FOLDER + name, msgspec.msgpack.encode(order))

    async def find(self, name: str) -> Order | None:
        """What the actor of that name was started with."""
        data = await self._store.get(FOLDER + name)
        return None if data is None else _DECODER.decode(data)

    def forget(self, name: str, process: str = "") -> None:
        """The actor is gone, and with it the process of replicas that is called so. Nobody waits for it."""
        self._forgetting.start(self._delete(name, process), name=f"forget {name}")

    async def _delete(self, name: str, process: str) -> None:
        try:
            await self._store.delete(FOLDER + name)
            if process:
                await self._store.delete(CALLERS + process)
        except (ServeconfError, EngineError) as error:
            log.warning("an order could not be forgotten", actor=name, reason=str(error))


def kind_of_order(order: ReplicaOrder | ProcessOrder) -> str:
    """The kind of hosted object that performs it: ``hosted.KINDS``."""
    match order:
        case ReplicaOrder():
            return "replica"
        case ProcessOrder():
            return "process"
        case _:
            assert_never(order)


def order_id(order: ReplicaOrder | ProcessOrder) -> str:
    """Of the replica, or of the first of several in a process."""
    return order.replicas[0].id if isinstance(order, ProcessOrder) else order.id


def place_of(options: Mapping[str, Any]) -> Place:
    """Where ray_actor_options fit."""
    asked = asked_resources(options)
    return Place(
        num_cpus=asked.get("CPU", 0),
        num_gpus=asked.get("GPU", 0),
        memory=asked.get("memory") or None,
        resources=options.get("resources") or {},
        accelerator_type=options.get("accelerator_type"),
        label_selector=options.get("label_selector") or {},
        fallbacks=[one["label_selector"] for one in options.get("fallback_strategy") or ()],
        runtime_env=options.get("runtime_env") or {},
    )


def place_of_order(order: ReplicaOrder | ProcessOrder) -> Place:
    """Where the replica, or the process of several, fits."""
    spec = order.deployment.spec
    place = place_of(spec["ray_actor_options"])
    if (group := group_of(spec)) is not None:
        return replace(place, bundles=list(group.bundles), strategy=group.strategy.value)
    if (most := spec.get("max_replicas_per_node")) is None:
        return place
    return replace(place, counts_as=f"{order.stack}:{counts_as(order.deployment.name, spec)}", per_node=most)


def replica_care(spec: Mapping[str, Any], ready_s: float) -> Care:
    """How a deployment's replicas are looked after: its health options, which may change while they run."""
    timeout_s = spec.get("health_check_timeout_s", 30.0)
    return Care(
        ready_s=ready_s,
        period_s=spec.get("health_check_period_s", 10.0),
        question=("check", spec.get("health_check_path"), timeout_s),
        answer_s=timeout_s + 5,
        unhealthy_after=3,
        hears_loop=True,
        blocked_s=spec.get("event_loop_timeout_s"),
    )
