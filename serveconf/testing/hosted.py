"""What lives in the actors of ``FakeEngine``: a replica, a process, a proxy and a standby without their work."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from serveconf import __version__
from serveconf.cluster.settings import ClusterSettings
from serveconf.figures import LoadReport, ProxyFigures, ReplicaFigures
from serveconf.plan.state import Phase, ProxyState, ReplicaState, StandbyState
from serveconf.reconcile.ports import (
    Answers,
    Counters,
    LogPart,
    NodeState,
    ProcessOrder,
    ProxyOrder,
    ReplicaOrder,
    StandbyOrder,
    Store,
    Totals,
)
from serveconf.routing import Generation, decode


def starting_replica(order: ReplicaOrder, node_id: str) -> ReplicaState:
    """What a replica is when it begins."""
    return ReplicaState(
        id=order.id,
        stack=order.stack,
        deployment=order.deployment.name,
        version=order.deployment.version,
        phase=Phase.STARTING,
        config_hash=order.deployment.config_hash,
        node_id=node_id,
        uds=f"/run/{order.id}",
        serveconf=__version__,
    )


def starting_proxy(order: ProxyOrder) -> ProxyState:
    """What a proxy is when it begins."""
    return ProxyState(
        id=order.id,
        node_id=order.node_id,
        phase=Phase.STARTING,
        listener=order.listener,
        address=f"{order.host}:{order.port}",
        serveconf=__version__,
        stands_by=order.stands_by,
    )


class FakeReplica:
    """Has the methods of ``cluster.replica.Replica``. Its import path says what becomes of it: ``broken:``, ``slow:``."""

    def __init__(self, order: ReplicaOrder, settings: ClusterSettings, node: NodeState) -> None:
        self.sick = ""  # what its health check says
        self.staged: dict[int, Generation] = {}
        self.live: Generation | None = None  # what it calls by
        self.asked: list[tuple[Any, ...]] = []  # its health checks' arguments
        self.drained = asyncio.Event()  # set by who lets it finish; else the drain takes its time
        self._order = order
        self._ready = asyncio.Event()
        self._may_return = False
        self.state = replace(starting_replica(order, node.id), pid=1)
        path = order.deployment.spec.get("import_path", "")
        if path.startswith("broken"):
            self.state = replace(self.state, phase=Phase.FAILED, message="RuntimeError: broken\nTraceback")
            self._ready.set()
        elif not path.startswith("slow"):
            self.state = replace(self.state, phase=Phase.READY)
            self._ready.set()

    async def describe(self) -> ReplicaState:
        """What it is now."""
        return self.state

    async def wait_ready(self) -> ReplicaState:
        """When it is ready or has failed."""
        await self._ready.wait()
        return self.state

    async def stage(self, data: bytes) -> None:
        """It keeps the generation."""
        generation = decode(data)
        self.staged[generation.number] = generation

    async def commit(self, number: int) -> None:
        """It calls by what it staged; it never goes back to an older one."""
        if self.live is None or number > self.live.number:
            self.live = self.staged.pop(number, self.live)

    async def abort(self, number: int) -> None:
        """It forgets what it staged."""
        self.staged.pop(number, None)

    async def load_report(self, seen: int, slower: float) -> LoadReport:
        """It calls nobody, and says so once."""
        if seen:
            await asyncio.Event().wait()
        return LoadReport(number=1)

    async def check(self, path: str | None, timeout_s: float) -> str:
        """What a test says."""
        self.asked.append((path, timeout_s))
        return self.sick

    async def reconfigure(self, user_config: Any, config_hash: str) -> tuple[str, str] | None:
        """It takes everything but "bad"."""
        if user_config == "bad":
            return "ValueError: no such threshold", "Traceback"
        self.state = replace(self.state, config_hash=config_hash)
        return None

    async def rename(self, name: str) -> None:
        """It has the name."""
        self.state = replace(self.state, deployment=name)

    async def listen_tcp(self) -> str:
        """Somewhere."""
        self.state = replace(self.state, tcp="10.0.0.1:1024")
        return "10.0.0.1:1024"

    async def figures(self) -> bytes:
        """It has counted nothing."""
        return msgspec.msgpack.encode(ReplicaFigures())

    async def read_log(self, position: Mapping[str, int] | None, tail: int) -> LogPart:
        """One line, once."""
        return LogPart(lines=(f"hello from {self.state.id}",) if position is None else (), position={"out": 1})

    async def drain(self, timeout_s: float) -> bool:
        """Idle ones are drained at once; a ``busy:`` one when its time is over or it is let go."""
        self.state = replace(self.state, phase=Phase.DRAINING)
        self._may_return = self._order.deployment.spec.get("import_path", "").startswith("busy")
        if self._may_return:
            try:
                async with asyncio.timeout(timeout_s):
                    await self.drained.wait()
            except TimeoutError:
                return False
        return True

    async def take_back(self) -> bool:
        """Where it drains still."""
        if self._may_return:
            self._may_return = False
            self.state = replace(self.state, phase=Phase.READY)
            self.drained.set()
            return True
        return self.state.phase is Phase.READY


class FakeProcess:
    """Has the methods of ``cluster.shared.SharedProcess``."""

    def __init__(self, order: ProcessOrder, settings: ClusterSettings, node: NodeState) -> None:
        self.replicas = {one.id: FakeReplica(one, settings, node) for one in order.replicas}

    async def room(self, replica_id: str, method: str, args: tuple[Any, ...]) -> Any:
        """What the replica answers."""
        return await getattr(self.replicas[replica_id], method)(*args)

    async def read_log(self, position: Mapping[str, int] | None, tail: int, deployment: str) -> LogPart:
        """One line, once."""
        return LogPart(lines=(f"hello from {deployment}",) if position is None else (), position={"out": 1})


class FakeProxy:
    """Has the methods of ``cluster.proxy.Proxy``; it serves the stored generation when it comes back."""

    def __init__(self, order: ProxyOrder, store: Store, *, restarted: bool) -> None:
        self.state = replace(starting_proxy(order), phase=Phase.READY, pid=2 if restarted else 1)
        self.waits = order.stands_by
        self.staged: dict[int, Generation] = {}
        self.live: Generation | None = None

    async def describe(self) -> ProxyState:
        """What it is now."""
        return self.state

    async def wait_ready(self) -> ProxyState:
        """At once."""
        return self.state

    async def check(self) -> ProxyState:
        """What it is now, as of the real one."""
        return self.state

    async def stage(self, data: bytes) -> tuple[str, str, bool] | None:
        """It builds the generation, or can't: a middleware "broken:X"."""
        generation = decode(data)
        for middleware in generation.front.middlewares:
            if middleware.import_path.startswith("broken"):
                return f"middleware {middleware.import_path} cannot be built", "Traceback", True
        self.staged[generation.number] = generation
        return None

    async def commit(self, number: int) -> int:
        """It serves what it staged; it never goes back to an older one."""
        if number > self.state.generation:
            self.live = self.staged.pop(number)
            self.state = replace(self.state, generation=number)
        return self.state.generation

    async def warn(self) -> None:
        """It serves on."""

    async def serve_beside(self) -> None:
        """It serves."""
        self.state = replace(self.state, stands_by=False)

    async def stand_by_again(self) -> bool:
        """It stands by, where it was started for that."""
        self.state = replace(self.state, stands_by=self.waits)
        return self.waits

    async def abort(self, number: int) -> None:
        """It forgets what it staged."""
        self.staged.pop(number, None)

    async def count(self, operation: str, begin: bool) -> Counters:
        """Nothing was asked, nothing failed."""
        return Counters()

    async def totals(self) -> tuple[Totals, bytes]:
        """Nothing was asked."""
        return Totals(pid=self.state.pid, deployments={"default/a": Answers()}), msgspec.msgpack.encode(ProxyFigures())

    async def load_report(self, seen: int, slower: float) -> LoadReport:
        """Nothing is asked, and that is said once."""
        if seen:
            await asyncio.Event().wait()
        return LoadReport(number=1)

    async def drain(self, timeout_s: float) -> None:
        """At once."""
        self.state = replace(self.state, phase=Phase.DRAINING)


class FakeStandby:
    """Has the methods of ``cluster.standby.Standby``."""

    def __init__(self, order: StandbyOrder, node: NodeState) -> None:
        self.state = StandbyState(
            id=order.id, kind=order.kind, node_id=node.id, phase=Phase.READY, pid=3, serveconf=__version__
        )

    async def describe(self) -> StandbyState:
        """What it is now."""
        return self.state

    async def wait_ready(self) -> StandbyState:
        """At once."""
        return self.state

    async def check(self) -> str:
        """It answers."""
        return ""
