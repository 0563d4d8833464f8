"""A whole controller on fakes, and a way to let it run until nothing is left to do."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from serveconf.reconcile.apply import Deps
from serveconf.reconcile.control import ControlPlane
from serveconf.reconcile.events import EventLog
from serveconf.reconcile.journal import Journal
from serveconf.reconcile.kept_figures import KeptFigures
from serveconf.reconcile.loop import Reconciler
from serveconf.reconcile.operations import Operation
from serveconf.reconcile.packages import Packages
from serveconf.reconcile.records import Ledger
from serveconf.reconcile.requests import ApplyRequest
from serveconf.reconcile.stacks import Stacks
from serveconf.routing import Generation
from serveconf.testing import FakeCluster, FakePreflight, ManualClock, MemoryStore


class World:
    """Everything around one controller; ``restart`` kills the controller and nothing else."""

    def __init__(self, folder: Path, nodes: int = 1) -> None:
        self.store = MemoryStore()
        self.cluster = FakeCluster(nodes)
        self.clock = ManualClock()
        self.preflight = FakePreflight()
        self._folder = folder
        self._build()

    def _build(self) -> None:
        self.ledger = Ledger(self.store)
        self.events, self.figures = EventLog(self.store, self.clock), KeptFigures()
        journal = Journal(note=self.events.note, figures=self.figures)
        self.stacks = Stacks(self.ledger, journal)
        self.reconciler = Reconciler(self.cluster, self.stacks, self.clock, journal)
        deps = Deps(
            reconciler=self.reconciler, cluster=self.cluster, stacks=self.stacks, clock=self.clock, journal=journal
        )
        packages = Packages(self.store, self._folder)
        self.plane = ControlPlane(deps, packages=packages, preflight=self.preflight)

    async def restart(self) -> None:
        """A new controller finds what the old one left."""
        self._build()
        await self.stacks.load()
        await self.reconciler.scaling.load()

    async def look(self) -> None:
        """One pass; then what it asked for comes true."""
        await self.reconciler.pass_once()
        await asyncio.sleep(0)
        self.cluster.settle()

    async def run(self, operation: Operation, looks: int = 30) -> dict[str, Any]:
        """Let an operation come to its end."""
        for _ in range(looks):
            if operation.result is not None:
                break
            await asyncio.sleep(0)
            await self.look()
        for _ in range(4):
            await self.look()
        assert operation.task is not None
        await asyncio.wait_for(operation.task, 120)
        assert operation.result is not None
        return operation.result

    async def apply(self, *deployments: dict[str, Any], stack: str = "default", **more: Any) -> dict[str, Any]:
        """Apply a stack of these deployments."""
        return await self.run(self.plane.apply(request(*deployments, stack=stack, **more)))

    @property
    def live(self) -> Generation:
        """What the proxies serve; all of them the same."""
        served = {generation.number: generation for generation in self.cluster.live.values()}
        assert len(served) == 1
        return next(iter(served.values()))

    def serving(self, prefix: str) -> list[str]:
        """Ids of the replicas behind a prefix."""
        return [r.id for route in self.live.routes if route.prefix == prefix for r in route.replicas]

    def replicas(self) -> list[str]:
        """Ids of all replicas."""
        return sorted(r.id for r in self.cluster.observe().replicas)


def request(*deployments: dict[str, Any], stack: str = "default", **more: Any) -> ApplyRequest:
    """A request for a stack whose code is one file per deployment, and of which nothing is kept warm."""
    http = more.pop("http_options", None)
    spec: dict[str, Any] = {"name": stack, "deployments": list(deployments), "standbys": more.pop("standbys", 0)}
    if http is not None:
        spec["http_options"] = http
    if "moved" in more:
        spec["moved"] = [{"from": old, "to": new} for old, new in more.pop("moved").items()]
    files = more.pop("files", {"a.py": "1", "b.py": "1", "c.py": "1"})
    code = more.pop("code", "c0de" + "".join(files.values()))
    return ApplyRequest(spec=spec, code=code, files=files, app_dir="/app", **more)
