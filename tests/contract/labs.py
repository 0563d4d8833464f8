"""Three implementations of the ``Cluster`` port, and what can be done to each from outside."""

from __future__ import annotations

import asyncio
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from serveconf.cluster.actors import ActorCluster
from serveconf.cluster.engine import Engine
from serveconf.cluster.settings import PROXY_PREFIX, REPLICA_PREFIX, ClusterSettings
from serveconf.plan.desired import make_desired
from serveconf.plan.state import DesiredDeployment, ProxyState, ReplicaState
from serveconf.reconcile.ports import Cluster, ProxyOrder, ReplicaOrder
from serveconf.routing import CALLERS
from serveconf.spec.models import DeploymentSpec, StackSpec
from serveconf.testing import FakeCluster, FakeEngine
from serveconf.testing.engine import FakeActor

QUICK = {"health_check_period_s": 0.02, "health_check_timeout_s": 0.02}
SETTINGS = ClusterSettings(cluster_id="contract", secret=b"s" * 32)


class Lab(ABC):
    """One implementation. ``good`` and ``broken`` are import paths that start and that don't."""

    good = "good:app"
    broken = "broken:app"
    limit_s = 120.0
    cluster: Cluster

    async def until(self, what: Callable[[], object]) -> None:
        """Return when that is the case."""
        async with asyncio.timeout(self.limit_s):
            while not what():
                await asyncio.sleep(0.01)
                self.settle()

    def settle(self) -> None:  # noqa: B027 - most have nothing to do here
        """Let what was asked for come true, where that does not happen by itself."""

    @abstractmethod
    async def kill_replica(self, replica_id: str) -> None:
        """Its process ends."""

    @abstractmethod
    async def kill_proxy(self, proxy_id: str) -> None:
        """Its process ends."""

    @abstractmethod
    async def begin_to_call(self, replica_id: str, process: str = "") -> None:
        """Code of the replica, or of its process, has a handle."""

    def calls_by(self, replica_id: str) -> int | None:
        """The generation that a replica calls by, where that can be seen."""
        return None

    async def close(self) -> None:
        """Leave nothing."""
        for replica in self.cluster.observe().replicas:
            await self.cluster.stop_replica(replica.id, drain_s=0)
        for proxy in self.cluster.observe().proxies:
            await self.cluster.stop_proxy(proxy.id, drain_s=0)
        await self.until(lambda: not self.cluster.observe().replicas and not self.cluster.observe().proxies)

    def replica(self, replica_id: str) -> ReplicaState | None:
        """What is seen of it."""
        return next((r for r in self.cluster.observe().replicas if r.id == replica_id), None)

    def proxy(self, proxy_id: str) -> ProxyState | None:
        """What is seen of it."""
        return next((p for p in self.cluster.observe().proxies if p.id == proxy_id), None)

    def phase(self, actor_id: str) -> str | None:
        """Where the replica or proxy stands; None: it is gone."""
        found = self.replica(actor_id) or self.proxy(actor_id)
        return found.phase.value if found is not None else None

    def order(self, number: int, path: str = "", **said: Any) -> ReplicaOrder:
        """A replica of a deployment with one import path."""
        return ReplicaOrder(
            id=f"default.a.{number}",
            stack="default",
            deployment=deployment(path or self.good, **said),
            ready_timeout_s=60,
        )

    def proxy_order(self, port: int = 8000) -> ProxyOrder:
        """A proxy on the first node."""
        node = self.cluster.nodes()[0].id
        return ProxyOrder(id=f"proxy-{port}", node_id=node, index=0, host="127.0.0.1", port=port, listener=str(port))


class FakeLab(Lab):
    """``FakeCluster``."""

    def __init__(self) -> None:
        self.fake = self.cluster = FakeCluster()
        self.fake.broken.add(deployment(self.broken).version)

    def settle(self) -> None:
        """See Lab."""
        self.fake.settle()

    async def kill_replica(self, replica_id: str) -> None:
        """See Lab."""
        self.fake.kill(replica_id)

    async def kill_proxy(self, proxy_id: str) -> None:
        """See Lab."""
        self.fake.kill_proxy(proxy_id)

    async def begin_to_call(self, replica_id: str, process: str = "") -> None:
        """See Lab."""
        beside = [r.id for r in self.fake.observe().replicas if process and r.process == process]
        self.fake.calling |= dict.fromkeys(beside or [replica_id], 0)

    def calls_by(self, replica_id: str) -> int | None:
        """See Lab."""
        return self.fake.calling[replica_id]


class ActorLab(Lab):
    """``ActorCluster`` over some engine; there can be another controller."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.actors = self.cluster = ActorCluster(engine, SETTINGS)

    async def begin_to_call(self, replica_id: str, process: str = "") -> None:
        """As ``handles.following`` does."""
        await self.engine.store.put(CALLERS + (process or replica_id), b"")

    async def another_controller(self, *serving: str) -> None:
        """The controller dies; the next one finds what it left."""
        self.actors.close()
        self.actors = self.cluster = ActorCluster(self.engine, SETTINGS)
        await self.cluster.refresh(serving)

    @abstractmethod
    def groups(self) -> list[str]:
        """The placement groups that there are."""


class FakeEngineLab(ActorLab):
    """``ActorCluster`` over ``FakeEngine``."""

    def __init__(self) -> None:
        self.fake = FakeEngine()
        super().__init__(self.fake)

    def groups(self) -> list[str]:
        """See ActorLab."""
        return sorted(self.fake.groups)

    async def kill_replica(self, replica_id: str) -> None:
        """See Lab."""
        self.fake.actors[REPLICA_PREFIX + replica_id].die()

    async def kill_proxy(self, proxy_id: str) -> None:
        """See Lab."""
        self.fake.actors[PROXY_PREFIX + proxy_id].die()

    def calls_by(self, replica_id: str) -> int | None:
        """See Lab."""
        live = self.fake.actors[REPLICA_PREFIX + replica_id].hosted.live
        return live.number if live is not None else 0


class RayLab(ActorLab):
    """``ActorCluster`` over Ray."""

    good = "starlette.applications:Starlette"
    broken = "no_such_module:app"
    limit_s = 150.0

    def groups(self) -> list[str]:
        """See ActorLab."""
        from ray.util import placement_group_table

        return sorted(group["name"] for group in placement_group_table().values() if group["state"] != "REMOVED")

    async def kill_replica(self, replica_id: str) -> None:
        """See Lab."""
        found = self.replica(replica_id)
        assert found is not None
        os.kill(found.pid, signal.SIGKILL)

    async def kill_proxy(self, proxy_id: str) -> None:
        """See Lab."""
        found = self.proxy(proxy_id)
        assert found is not None
        os.kill(found.pid, signal.SIGKILL)


def deployment(path: str, **said: Any) -> DesiredDeployment:
    """One deployment with every default filled in."""
    factory = path == RayLab.good
    spec = StackSpec(deployments=[DeploymentSpec(name="a", import_path=path, factory=factory, **said)])
    (made,) = make_desired(spec, revision=1, code="", files_for=lambda _: {"a.py": path}).deployments
    return made


async def replica(
    lab: FakeEngineLab, path: str = "good:app", ready_s: float = 60, **said: Any
) -> tuple[str, FakeActor]:
    """One that was just started."""
    order = replace(lab.order(1, path, **said), ready_timeout_s=ready_s)
    await lab.cluster.start_replica(order)
    return order.id, lab.fake.actors[REPLICA_PREFIX + order.id]


async def proxy(lab: FakeEngineLab) -> tuple[str, FakeActor]:
    """One that listens."""
    order = lab.proxy_order()
    await lab.cluster.start_proxy(order)
    await lab.until(lambda: lab.phase(order.id) == "Ready")
    return order.id, lab.fake.actors[PROXY_PREFIX + order.id]
