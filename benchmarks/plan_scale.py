"""How long a plan takes, by the number of deployments: from the spec to the actions, with a tenth of them changed.

python benchmarks/plan_scale.py [--largest 10000]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from serveconf.plan.desired import make_desired
from serveconf.plan.diff import make_plan
from serveconf.plan.state import DesiredStack, Observed, ReplicaPhase, ReplicaState
from serveconf.spec.models import DeploymentSpec, StackSpec


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--largest", type=int, default=10_000)
    largest = parser.parse_args().largest
    print(f"{'deployments':>11} {'desired s':>10} {'plan s':>8} {'both s':>8} {'actions':>8}")
    size = 100
    while size <= largest:
        measure(size)
        size = min(size * 10, largest) if size < largest else largest + 1


def measure(size: int) -> None:
    """One line."""
    before = desired(spec(size, 1), {})
    observed = Observed(
        replicas=tuple(
            ReplicaState(id=d.name, stack="big", deployment=d.name, version=d.version, phase=ReplicaPhase.READY)
            for d in before.deployments
        )
    )
    changed = spec(size, 1)
    files = {f"d{i}": {"m.py": "2"} for i in range(0, size, 10)}
    began = time.perf_counter()
    after = desired(changed, files)
    made = time.perf_counter()
    plan = make_plan(before, after, observed)
    done = time.perf_counter()
    print(f"{size:11} {made - began:10.3f} {done - made:8.3f} {done - began:8.3f} {len(plan.actions):8}")


def spec(size: int, replicas: int) -> StackSpec:
    """So many deployments."""
    specs: list[Any] = [DeploymentSpec(name=f"d{i}", import_path="m:app", num_replicas=replicas) for i in range(size)]
    return StackSpec(name="big", deployments=specs)


def desired(said: StackSpec, files: dict[str, dict[str, str]]) -> DesiredStack:
    """As it should be, with these files for some of the deployments."""
    return make_desired(said, revision=1, code="c", files_for=lambda name: files.get(name, {"m.py": "1"}))


if __name__ == "__main__":
    main()
