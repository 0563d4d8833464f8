"""The faults of chaos.py that Ray Serve has, too, on Ray Serve: a killed replica, proxy and controller, under the same load.

    pip install -e . 'ray[serve]'           # in a virtual environment of its own
    python tests/nodes/chaos_ray_serve.py --seed 7 --seconds 120 --connections 24

The same apps, numbers of replicas, nodes and visitors; a proxy is judged again when ``/-/healthz`` says that it is well.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "e2e")]

from chaos_load import PORT, Load  # noqa: E402 - found by the path above
from chaos_scene import NODE, title_of  # noqa: E402
from machines import Machines  # noqa: E402
from place import until  # noqa: E402

APP = """
    import asyncio
    import sys

    import ray
    from fastapi import FastAPI
    from ray import serve

    app = FastAPI()

    @serve.deployment(ray_actor_options={"num_cpus": 0.1})
    @serve.ingress(app)
    class Shaken:
        @app.get("/")
        async def tell(self) -> str:
            return "here"

        @app.get("/slow")
        async def slow(self) -> str:
            await asyncio.sleep(0.2)
            return "slow"

    ray.init(address=sys.argv[1], log_to_driver=False)
    serve.start(http_options={"host": "0.0.0.0", "port": 8000, "location": "EveryNode"})
    for name, number in (("spread", 3), ("pair", 2)):
        serve.run(Shaken.options(num_replicas=number).bind(), name=name, route_prefix=f"/{name}")
    """
PATHS = ("/spread/", "/pair/", "/spread/slow", "/pair/slow")
KINDS = {
    "kill a replica": "ray::ServeReplica",
    "kill a proxy": "ray::ProxyActor",
    "kill the controller": "ray::ServeController",
}
NUMBERS = {"kill a replica": 5, "kill a proxy": 3, "kill the controller": 1}
AFTER_S = 3.0
BACK_S = 60.0


def running(machines: Machines, fault: str) -> list[tuple[str, int]]:
    """Where there are processes of the kind that the fault ends, and which."""
    found = [(node.ip, pid) for node in machines.nodes for pid in node.processes()]
    return [(ip, pid) for ip, pid in found if title_of(pid).startswith(KINDS[fault])]


def is_well(ip: str) -> bool:
    """What a proxy says of itself. Raises OSError."""
    connection = http.client.HTTPConnection(ip, PORT, timeout=1)
    try:
        connection.request("GET", "/-/healthz")
        return connection.getresponse().status == 200
    finally:
        connection.close()


def strike(machines: Machines, load: Load, fault: str, dice: random.Random) -> dict[str, Any]:
    """One of them, until there are as many processes as before."""
    before = sum(load.counts.failed.values())
    load.window()
    ip, pid = dice.choice(sorted(running(machines, fault)))
    began = time.monotonic()
    if fault == "kill a proxy":
        load.excuse(ip)
    os.kill(pid, signal.SIGKILL)
    until(
        lambda: len([1 for _, other in running(machines, fault) if other != pid]) == NUMBERS[fault],
        "it is back",
        BACK_S,
    )
    until(lambda: is_well(ip), "the proxy there is well", BACK_S)
    took = time.monotonic() - began
    load.judge(ip)
    time.sleep(AFTER_S)
    failed = sum(load.counts.failed.values()) - before
    told = {
        "fault": fault,
        "where": ip,
        "failed": failed,
        "slowest_s": round(load.window(), 2),
        "back_after_s": round(took, 1),
    }
    print(json.dumps(told), flush=True)
    return told


def shake(seed: int, seconds: float, connections: int) -> dict[str, Any]:
    """A whole run."""
    machines, dice, load = Machines(), random.Random(seed), Load(connections, PATHS)
    try:
        for _ in range(3):
            machines.add(*NODE).joined()
        script = machines.specs / "shaken.py"
        script.write_text(textwrap.dedent(APP))
        command = machines.head.inside([sys.executable, str(script), machines.gcs])
        subprocess.run(command, env=machines.head.env, check=True)
        until(lambda: all(is_well(node.ip) for node in machines.nodes), "all proxies are well")
        load.visit([node.ip for node in machines.nodes])
        time.sleep(1)
        deadline, told = time.monotonic() + seconds, []
        while time.monotonic() < deadline:
            told += [strike(machines, load, fault, dice) for fault in dice.sample(sorted(KINDS), len(KINDS))]
        load.end()
        counts = load.counts
        return {
            "seed": seed,
            "faults": len(told),
            "requests": counts.requests,
            "failed": dict(counts.failed),
            "excused": counts.excused,
        }
    finally:
        machines.close()


def main() -> None:
    """The command line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing is left then either
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=24)
    args = parser.parse_args()
    print(json.dumps(shake(args.seed, args.seconds, args.connections), indent=1))


if __name__ == "__main__":
    main()
