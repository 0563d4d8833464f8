"""A whole control API with its dashboard, over a cluster in memory that gets requests: no Ray, one thread."""

from __future__ import annotations

import asyncio
import copy
import random
import threading
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from serveconf.admin.app import make_app
from serveconf.admin.server import AdminServer
from serveconf.client import Client
from serveconf.figures import DeploymentFigures, ProcessFigures, ProxyFigures
from serveconf.plan.state import ReplicaPhase
from serveconf.reconcile.apply import Deps
from serveconf.reconcile.control import ControlPlane
from serveconf.reconcile.events import EventLog
from serveconf.reconcile.journal import Journal
from serveconf.reconcile.kept_figures import KeptFigures
from serveconf.reconcile.loop import Reconciler
from serveconf.reconcile.packages import Packages
from serveconf.reconcile.ports import LogPart, Totals
from serveconf.reconcile.pulse import Pulse
from serveconf.reconcile.records import Ledger
from serveconf.reconcile.requests import ApplyRequest
from serveconf.reconcile.stacks import Stacks
from serveconf.testing import FakeCluster, FakePreflight, MemoryStore

T = TypeVar("T")
STEP_S = 0.05
DRAINED_S = 120.0


class WallClock:
    """The real time."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class BusyCluster(FakeCluster):
    """Every deployment with a replica is asked a few times a second, and its replicas write lines."""

    def __init__(self) -> None:
        super().__init__()
        self.figures: dict[str, DeploymentFigures] = {}
        self.lines: dict[str, list[str]] = {}
        self.held = asyncio.Event()  # while it is clear, what starts stays Starting
        self.held.set()
        self._dice = random.Random(7)

    def settle(self) -> None:
        if self.held.is_set():
            super().settle()

    def answer(self, requests: int) -> None:
        """So many requests to each deployment."""
        for replica in self.observe().replicas:
            if replica.phase is ReplicaPhase.READY:
                one = self.figures.setdefault(f"{replica.stack}/{replica.deployment}", DeploymentFigures())
                for _ in range(requests):
                    status = 500 if self._dice.random() < 0.01 else 200
                    one.duration("GET", status).observe(self._dice.lognormvariate(-5, 0.8))
                one.active = self._dice.randrange(4)

    async def totals(self, proxy_id: str) -> Totals:
        process = ProcessFigures(began=1.0, resident_bytes=80_000_000, cpu_s=3.0)
        figures = ProxyFigures(deployments=copy.deepcopy(self.figures), process=process)
        return Totals(pid=7, figures=figures)

    async def read_log(self, replica_id: str, position: Mapping[str, int] | None, tail: int) -> LogPart:
        lines = self.lines.get(replica_id, [f"hello from {replica_id}"])
        begin = (position or {}).get("out", 0)
        return LogPart(lines=tuple(lines[begin:]), position={"out": len(lines)})


class Stage:
    """The control API in a thread of its own; ``do`` runs something there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.do(self._start())

    def do(self, work: Coroutine[Any, Any, T], timeout_s: float = 120.0) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def close(self) -> None:
        self.do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def apply(self, *deployments: dict[str, Any], stack: str = "shop", code: str = "1") -> dict[str, Any]:
        return self.do(self._apply(stack, deployments, code))

    def begin(self, *deployments: dict[str, Any], stack: str = "shop", code: str = "1") -> None:
        """The same, and nobody waits for it."""

        async def begin() -> None:
            self.plane.apply(request(stack, deployments, code))

        self.do(begin())

    async def note(self, **event: Any) -> None:
        """Something happened."""
        self.events.note(**event)

    def hold(self) -> None:
        """What starts stays Starting."""
        self._loop.call_soon_threadsafe(self.cluster.held.clear)

    def let_go(self) -> None:
        """… and becomes ready."""
        self._loop.call_soon_threadsafe(self.cluster.held.set)

    def empty(self) -> None:
        """Every stack is taken away, whatever has become of it, and has drained."""
        self.let_go()
        self.cluster.broken = set()
        client = Client(self.url, "secret")
        for one in client.status()["stacks"]:
            if one["state"] != "Deleting":
                list(client.events(client.begin(one["name"], "delete", {"author": "ada@host"})))
        deadline = time.monotonic() + DRAINED_S
        while client.status()["stacks"]:
            assert time.monotonic() < deadline, client.status()["stacks"]
            time.sleep(STEP_S)

    async def _start(self) -> None:
        store, clock = MemoryStore(), WallClock()
        self.events, kept = EventLog(store, clock), KeptFigures(store)
        journal = Journal(note=self.events.note, figures=kept)
        stacks = Stacks(Ledger(store), journal)
        self.cluster = BusyCluster()
        reconciler = Reconciler(self.cluster, stacks, clock, journal)
        deps = Deps(reconciler=reconciler, cluster=self.cluster, stacks=stacks, clock=clock, journal=journal)
        self.preflight = FakePreflight()
        self.plane = ControlPlane(deps, packages=Packages(store, self._folder), preflight=self.preflight)
        pulse = Pulse(self.cluster, kept, clock)
        self._server = AdminServer("127.0.0.1", 0)
        self._server.bind()
        self.url = f"http://127.0.0.1:{self._server.port}"
        app = make_app(
            self.plane,
            token="secret",
            address=self.url,
            host="127.0.0.1",
            on_shutdown=self._nothing,
            events=self.events,
            pulse=pulse,
        )
        works = (self._reconcile(reconciler), self._ask(), pulse.run(), self._server.serve(app))
        self._tasks = [asyncio.create_task(work) for work in works]

    async def _stop(self) -> None:
        """With every connection that the browser has left open."""
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for _ in range(10):  # sockets are closed by the loop's next turns
            await asyncio.sleep(0.005)
        await self._loop.shutdown_asyncgens()

    async def _reconcile(self, reconciler: Reconciler) -> None:
        while True:
            await reconciler.pass_once()
            self.cluster.settle()
            await asyncio.sleep(STEP_S)

    async def _ask(self) -> None:
        while True:
            self.cluster.answer(3)
            await asyncio.sleep(0.1)

    async def _apply(self, stack: str, deployments: tuple[dict[str, Any], ...], code: str) -> dict[str, Any]:
        async for event in self.plane.apply(request(stack, deployments, code)).follow():
            last = event
        return last

    async def _nothing(self) -> None:
        return None


def request(stack: str, deployments: tuple[dict[str, Any], ...], code: str) -> ApplyRequest:
    """For a stack whose modules all change with ``code``."""
    modules = {f"{d['import_path'].partition(':')[0]}.py": code for d in deployments}
    spec = {"name": stack, "deployments": list(deployments)}
    return ApplyRequest(
        spec=spec, code=f"c0de{code}", files=modules, app_dir="/app", author="ada@host", source="serve.yaml"
    )
