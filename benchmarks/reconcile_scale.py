"""How the work of the controller grows with the cluster, in simulation: first apply, a roll of everything, looks at what runs.

    python benchmarks/reconcile_scale.py [--largest 10000]

N replicas in N/10 deployments on N/10 nodes. A step is one look of the reconciler: all that it orders in it included, which for
"start" and "roll" is every replica there is. "idle": nothing is to do; "death": one replica has died and is replaced; "change": one
deployment of them all has new code.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

from serveconf.plan.desired import make_desired
from serveconf.plan.diff import make_plan
from serveconf.plan.state import DesiredStack
from serveconf.reconcile.loop import Reconciler
from serveconf.reconcile.records import Ledger, Revision
from serveconf.reconcile.stacks import Stacks
from serveconf.spec.models import DeploymentSpec, StackSpec
from serveconf.testing import FakeCluster, ManualClock, MemoryStore

PER_DEPLOYMENT = 10


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--largest", type=int, default=10_000)
    largest = parser.parse_args().largest
    print(
        f"{'replicas':>8} {'nodes':>6} {'what':8} {'steps':>6} {'longest step ms':>16} {'total s':>8} {'ms/replica':>11}"
    )
    size = 100
    while size <= largest:
        asyncio.run(measure(size))
        size = min(size * 10, largest) if size < largest else largest + 1


async def measure(size: int) -> None:
    """Apply and roll one stack of that size, and print two lines."""
    stacks, cluster = Stacks(Ledger(MemoryStore())), FakeCluster(max(1, size // PER_DEPLOYMENT))
    ledger, reconciler = stacks.ledger, Reconciler(cluster, stacks, ManualClock())
    for number, what in ((1, "start"), (2, "roll")):
        desired = stack(size // PER_DEPLOYMENT, number)
        plan = make_plan(ledger.current("big"), desired, cluster.observe())
        head = ledger.heads.get("big")
        revision = Revision(number=number, stack="big", time=0, desired=desired)
        await stacks.begin(revision, base=head.current if head else None, deleting=False, pinned=False)
        steps = await converge(reconciler, cluster, ledger)
        assert len(cluster.observe().replicas) == size
        assert plan.changed
        tell(size, len(cluster.nodes()), what, steps)
    tell(size, len(cluster.nodes()), "idle", await converge(reconciler, cluster, ledger))
    before = len(cluster.log)
    cluster.kill(cluster.observe().replicas[size // 2].id)
    tell(size, len(cluster.nodes()), "death", await converge(reconciler, cluster, ledger))
    assert len([what for what, _ in cluster.log[before:] if what == "start"]) == 1
    before = len(cluster.log)
    revision = Revision(number=3, stack="big", time=0, desired=stack(size // PER_DEPLOYMENT, 3, changed="d0"))
    await stacks.begin(revision, base=2, deleting=False, pinned=False)
    tell(size, len(cluster.nodes()), "change", await converge(reconciler, cluster, ledger))
    assert len([what for what, _ in cluster.log[before:] if what == "start"]) == PER_DEPLOYMENT


def tell(size: int, nodes: int, what: str, steps: list[float]) -> None:
    """A line of the table."""
    total = sum(steps)
    print(
        f"{size:8} {nodes:6} {what:8} {len(steps):6} {max(steps) * 1000:16.1f} {total:8.2f} {total / size * 1000:11.3f}",
        flush=True,
    )


async def converge(reconciler: Reconciler, cluster: FakeCluster, ledger: Ledger) -> list[float]:
    """Look until the target is reached and what it replaced is gone. Returns the seconds of each step."""
    steps: list[float] = []
    while len(steps) < 100:
        began = time.perf_counter()
        await reconciler.pass_once()
        steps.append(time.perf_counter() - began)
        before = cluster.observe()
        cluster.settle()
        if ledger.heads["big"].target is None and cluster.observe() == before:
            return steps
    raise RuntimeError("it does not converge")


def stack(deployments: int, version: int, changed: str | None = None) -> DesiredStack:
    """So many deployments, in that version of their code; with ``changed`` that one alone, the others in the one before."""

    def files(name: str) -> dict[str, str]:
        return {"m.py": str(version if changed in (None, name) else version - 1)}

    specs: list[Any] = [
        DeploymentSpec(name=f"d{i}", import_path="m:app", num_replicas=PER_DEPLOYMENT) for i in range(deployments)
    ]
    spec = StackSpec(name="big", deployments=specs)
    return make_desired(spec, revision=version, code=f"c{version}", files_for=files)


if __name__ == "__main__":
    main()
