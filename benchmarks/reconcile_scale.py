"""How the work of the controller grows with the cluster: first apply and a roll of everything, in simulation.

    python benchmarks/reconcile_scale.py [--largest 10000]

N replicas in N/10 deployments on N/10 nodes. A step is one look of the reconciler.
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
        total = sum(steps)
        print(
            f"{size:8} {len(cluster.nodes()):6} {what:8} {len(steps):6} {max(steps) * 1000:16.1f} {total:8.2f} "
            f"{total / size * 1000:11.3f}"
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


def stack(deployments: int, version: int) -> DesiredStack:
    """So many deployments, in that version of their code."""
    specs: list[Any] = [
        DeploymentSpec(name=f"d{i}", import_path="m:app", num_replicas=PER_DEPLOYMENT) for i in range(deployments)
    ]
    spec = StackSpec(name="big", deployments=specs)
    return make_desired(spec, revision=version, code=f"c{version}", files_for=lambda _: {"m.py": str(version)})


if __name__ == "__main__":
    main()
