"""How the work of the controller grows with the cluster, in simulation: first apply, a roll of everything, looks at what runs.

    python benchmarks/reconcile_scale.py [--largest 10000]

N replicas in N/10 deployments on N/10 nodes, of one stack; at last of N/100 stacks. A step is one look of the reconciler at all
stacks: all that it orders in it included, which for "start" and "roll" is every replica there is. "idle": it was woken, and nothing
has changed; "look": nothing has changed, and everything is looked at again, as every five seconds; "death": one replica has died and
is replaced; "change": one deployment of them all has new code. Times are the processor's: nothing waits here.
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
from serveconf.reconcile.stack_pass import IDLE_S
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
        f"{'replicas':>8} {'stacks':>6} {'nodes':>6} {'what':8} {'steps':>6} {'longest step ms':>16} {'total s':>8} {'ms/replica':>11}"
    )
    size = 100
    while size <= largest:
        asyncio.run(measure(size))
        size = min(size * 10, largest) if size < largest else largest + 1
    if largest >= 1000:
        asyncio.run(measure(largest, largest // 100))


async def measure(size: int, stacks_in_all: int = 1) -> None:
    """Apply and roll stacks of that size in all, and print a line for each kind of work."""
    clock = ManualClock()
    stacks, cluster = Stacks(Ledger(MemoryStore())), FakeCluster(max(1, size // PER_DEPLOYMENT))
    reconciler, names = Reconciler(cluster, stacks, clock), [f"s{number}" for number in range(stacks_in_all)]
    deployments = size // PER_DEPLOYMENT // stacks_in_all

    async def measured(what: str) -> None:
        tell(size, stacks_in_all, len(cluster.nodes()), what, await converge(reconciler, cluster, stacks))

    async def begin(desired: DesiredStack) -> None:
        head = stacks.head(desired.name)
        plan = make_plan(stacks.ledger.current(desired.name), desired, cluster.observe())
        assert plan.changed
        revision = Revision(number=desired.revision, stack=desired.name, time=0, desired=desired)
        await stacks.begin(revision, base=head.current if head else None, deleting=False, pinned=False)

    for number, what in ((1, "start"), (2, "roll")):
        for name in names:
            await begin(stack(name, deployments, number))
        await measured(what)
        assert len(cluster.observe().replicas) == size
    await measured("idle")
    clock.advance(IDLE_S)
    await measured("look")
    before = len(cluster.log)
    cluster.kill(cluster.observe().replicas[size // 2].id)
    await measured("death")
    assert len([what for what, _ in cluster.log[before:] if what == "start"]) == 1
    before = len(cluster.log)
    await begin(stack("s0", deployments, 3, changed="d0"))
    await measured("change")
    assert len([what for what, _ in cluster.log[before:] if what == "start"]) == PER_DEPLOYMENT


def tell(size: int, stacks: int, nodes: int, what: str, steps: list[float]) -> None:
    """A line of the table."""
    total = sum(steps)
    print(
        f"{size:8} {stacks:6} {nodes:6} {what:8} {len(steps):6} {max(steps) * 1000:16.1f} {total:8.2f} {total / size * 1000:11.3f}",
        flush=True,
    )


async def converge(reconciler: Reconciler, cluster: FakeCluster, stacks: Stacks) -> list[float]:
    """Look until the target is reached and what it replaced is gone. Returns the seconds of each step."""
    steps: list[float] = []
    while len(steps) < 100:
        began = time.thread_time()
        await reconciler.pass_once()
        steps.append(time.thread_time() - began)
        before = cluster.observe()
        cluster.settle()
        if all(head.target is None for head in stacks.ledger.heads.values()) and cluster.observe() == before:
            return steps
    raise RuntimeError("it does not converge")


def stack(name: str, deployments: int, version: int, changed: str | None = None) -> DesiredStack:
    """So many deployments, in that version of their code; with ``changed`` that one alone, the others in the one before."""

    def files(deployment: str) -> dict[str, str]:
        return {"m.py": str(version if changed in (None, deployment) else version - 1)}

    specs: list[Any] = [
        DeploymentSpec(name=f"d{i}", route_prefix=f"/{name}/d{i}", import_path="m:app", num_replicas=PER_DEPLOYMENT)
        for i in range(deployments)
    ]
    spec = StackSpec(name=name, deployments=specs)
    return make_desired(spec, revision=version, code=f"c{version}", files_for=files)


if __name__ == "__main__":
    main()
