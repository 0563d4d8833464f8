"""Deployments that call each other, beside the same application on Ray Serve: ``python benchmarks/composition.py``.

    python benchmarks/composition.py [--rounds 3] [--calls 2000] [--many 100000] [--without-ray-serve]

Each has a Ray of its own and the machine to itself; they take turns. What is called counts its own time, in the process
that calls. Ray Serve is left out where ``ray[serve]`` is not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import data_plane_on_ray as on_ray
from data_plane import wrk

from serveconf.local_ray import free_port

HERE = Path(__file__).parent
SPEC = """
app_dir: {here}
http_options:
  port: {port}
deployments:
  - name: graph
    import_path: composition_graph:app
    route_prefix: /
    ray_actor_options:
      runtime_env:
        env_vars: {{SERVE: serveconf}}
"""
# what is measured: its unit, whether more is better, the factor that is wanted
ROWS = {
    "call": ("ms", False, 5.0),
    "array": ("ms", False, 3.0),
    "batch of one": ("ms", False, None),
    "64 callers": ("calls/s", True, None),
    "64 callers, batched": ("calls/s", True, 3.0),
    "chain of three, HTTP": ("requests/s", True, 5.0),
}


@contextlib.contextmanager
def serveconf() -> Iterator[str]:
    """The base URL of the graph applied by serveconf, while it runs."""
    with on_ray.applied(lambda port: SPEC.format(here=HERE, port=port)) as base:
        yield base


@contextlib.contextmanager
def ray_serve() -> Iterator[str]:
    """The base URL of the graph run by Ray Serve, while it runs."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        environment = {**os.environ, "SERVE": "ray", "RAY_TMPDIR": folder, "RAY_ADDRESS": "local"}
        process = subprocess.Popen(
            [sys.executable, __file__, "--ray-serve", str(port)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield on_ray.wait_for(f"http://127.0.0.1:{port}", process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def run_ray_serve(port: int) -> None:
    """What ``ray_serve`` runs as a process of its own."""
    import ray
    from composition_graph import app
    from ray import serve

    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    ray.init(address="local", num_cpus=4, include_dashboard=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(app, blocking=True)  # type: ignore[attr-defined]
    finally:
        ray.shutdown()


def ask(base: str, path: str) -> dict[str, Any]:
    """What the graph's front has measured."""
    with urllib.request.urlopen(base + path, timeout=600) as answer:
        return json.load(answer)  # type: ignore[no-any-return]


def one_round(base: str, calls: int) -> dict[str, float]:
    """A value for each of ``ROWS``."""
    found: dict[str, float] = ask(base, f"/calls?times={calls}")
    each = max(1, calls // 20)
    found["64 callers"] = ask(base, f"/callers?callers=64&each={each}&batched=false")["calls/s"]
    found["64 callers, batched"] = ask(base, f"/callers?callers=64&each={each}&batched=true")["calls/s"]
    found["chain of three, HTTP"] = wrk(base + "/chain?value=1", 16, 3).rate
    return found


def measure(rounds: int, calls: int, many: int, with_ray_serve: bool) -> None:
    """Run and print the table, and what was lost of many."""
    reason = on_ray.why_not("Ray Serve") if with_ray_serve else "not asked for"
    ours, theirs = [], []
    for _ in range(rounds):
        with serveconf() as base:
            ours.append(one_round(base, calls))
            if len(ours) == rounds:
                lost, cancelled = (
                    ask(base, f"/callers?callers=100&each={many // 100}&batched=false"),
                    ask(base, f"/cancel?calls={many // 10}"),
                )
        if reason is None:
            with ray_serve() as base:
                theirs.append(one_round(base, calls))
    if reason is not None:
        print(f"Ray Serve is left out: {reason}")
    print(f"{'':26}{'serveconf':>12}{'Ray Serve':>12}{'better by':>11}{'wanted':>8}")
    for name, (unit, more_is_better, wanted) in ROWS.items():
        mine = statistics.median(found[name] for found in ours)
        line = f"{name + ', ' + unit:26}{mine:12.3f}"
        if theirs:
            ratio = statistics.median(
                (one[name] / two[name]) if more_is_better else (two[name] / one[name])
                for one, two in zip(ours, theirs, strict=True)
            )
            line += f"{statistics.median(found[name] for found in theirs):12.3f}{ratio:10.1f}x"
        print(line + (f"{wanted:7.1f}x" if wanted else ""))
    print(
        f"{many} calls of 100 callers: {lost['lost']} lost; cancelled {cancelled['began']}, of which {cancelled['run on']} run on"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--without-ray-serve", action="store_true")
    parser.add_argument("--ray-serve", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ray_serve is not None:
        run_ray_serve(arguments.ray_serve)
    else:
        measure(arguments.rounds, arguments.calls, arguments.many, not arguments.without_ray_serve)


if __name__ == "__main__":
    main()
