"""Code packages on several nodes: what an apply takes with and without many megabytes of code, and two ways to a node beside.

    python tests/nodes/packages.py --megabytes 60 --nodes 3

The ways, each for all nodes but the head at once: out of Ray's key-value store, as packages go; and as an object of Ray's object store,
which nodes hand on to each other.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "e2e")]

from machines import Machines  # noqa: E402 - found by the path above

APP = """
    from starlette.applications import Starlette

    MARK = {mark}
    app = Starlette()
    """
SPEC = """
    http_options: {{host: 0.0.0.0, location: EveryNode}}
    deployments:
      - {{name: a, import_path: 'packed:app', num_replicas: {nodes}, ray_actor_options: {{num_cpus: 0.1}}}}
    """
WAYS = """
import json, os, sys, time
import ray
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ray.init(address=sys.argv[1], log_to_driver=False)
data = os.urandom(int(sys.argv[2]) * 1_000_000)
others = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["NodeManagerAddress"] != sys.argv[3]]

@ray.remote(num_cpus=0)
class There:
    def ready(self):
        return True
    def by_store(self):
        return len(_internal_kv_get(b"measured", namespace=b"measured"))
    def by_object(self, boxed):
        return len(ray.get(boxed[0]))

there = [There.options(scheduling_strategy=NodeAffinitySchedulingStrategy(n, soft=False)).remote() for n in others]
ray.get([one.ready.remote() for one in there])
took = {}
for turn in range(3):
    began = time.monotonic()
    _internal_kv_put(b"measured", data, overwrite=True, namespace=b"measured")
    took.setdefault("store: put", []).append(time.monotonic() - began)
    began = time.monotonic()
    ray.get([one.by_store.remote() for one in there])
    took.setdefault("store: all have it", []).append(time.monotonic() - began)
    began = time.monotonic()
    boxed = [ray.put(data)]
    took.setdefault("object: put", []).append(time.monotonic() - began)
    began = time.monotonic()
    ray.get([one.by_object.remote(boxed) for one in there])
    took.setdefault("object: all have it", []).append(time.monotonic() - began)
    del boxed
    time.sleep(1)
print(json.dumps({what: [round(s, 2) for s in seconds] for what, seconds in took.items()}))
"""


def measure(megabytes: int, nodes: int) -> dict[str, Any]:
    """All of it."""
    machines = Machines()
    try:
        for _ in range(nodes):
            machines.add("--num-cpus=2", "--object-store-memory=500000000").joined()
        (machines.specs / "serve.yaml").write_text(textwrap.dedent(SPEC.format(nodes=nodes)))
        machines.ok("apply", _with_code(machines, 0))
        found: dict[str, Any] = {
            "apply without, s": [_apply(machines, 0, mark) for mark in (1, 2, 3)],
            "apply with, s": [_apply(machines, megabytes, mark) for mark in (4, 5, 6)],
        }
        machines.ok("shutdown")
        command = [sys.executable, "-c", WAYS, machines.gcs, str(megabytes), machines.head.ip]
        done = subprocess.run(
            machines.head.inside(command), env=machines.head.env, check=True, capture_output=True, text=True
        )
        return found | json.loads(done.stdout.splitlines()[-1])
    finally:
        machines.close()


def _with_code(machines: Machines, mark: int) -> Path:
    (machines.specs / "packed.py").write_text(textwrap.dedent(APP.format(mark=mark)))
    return machines.specs / "serve.yaml"


def _apply(machines: Machines, megabytes: int, mark: int) -> float:
    """New code each time, and new data beside it, as much as is asked for: no node has any of it."""
    weights = machines.specs / "weights.bin"
    weights.write_bytes(os.urandom(megabytes * 1_000_000))
    spec = _with_code(machines, mark)
    began = time.monotonic()
    machines.ok("apply", spec)
    return round(time.monotonic() - began, 1)


def main() -> None:
    """The command line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing is left then either
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=60)
    parser.add_argument("--nodes", type=int, default=3)
    args = parser.parse_args()
    print(json.dumps(measure(args.megabytes, args.nodes), indent=1))


if __name__ == "__main__":
    main()
