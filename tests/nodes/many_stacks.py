"""Many stacks on several nodes for real: how long until all of them answer, what a change of one costs, and what they weigh.

    python tests/nodes/many_stacks.py --stacks 30 --deployments 3 --nodes 3

Each stack's deployments share a process; with ``--own`` each has one of its own.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "e2e")]

from chaos_scene import left_over, title_of  # noqa: E402 - found by the path above
from machines import Machines  # noqa: E402
from place import ask  # noqa: E402

APP = """
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/")
    def tell() -> str:
        return "{word}"
    """
AT_ONCE = 3  # applies


def measure(stacks: int, deployments: int, nodes: int, *, own: bool) -> dict[str, Any]:
    """All of it."""
    machines = Machines()
    try:
        for _ in range(nodes):
            machines.add(f"--num-cpus={stacks * deployments}").joined()
        folders = [_stack(machines, number, deployments, own=own) for number in range(stacks)]
        found: dict[str, Any] = {"stacks": stacks, "deployments": stacks * deployments, "own processes": own}
        began = time.monotonic()
        machines.ok("apply", folders[0])
        with ThreadPoolExecutor(AT_ONCE) as people:
            list(people.map(lambda file: machines.ok("apply", file), folders[1:]))
        found["all applied, s"] = round(time.monotonic() - began, 1)
        paths = [f"/s{number}/d{index}" for number in range(stacks) for index in range(deployments)]
        answers = [ask(f"{node.url}{path}")[0] for node in machines.nodes for path in paths]
        found["answers"] = {str(code): answers.count(code) for code in set(answers)}
        actors = [pid for node in machines.nodes for pid in node.processes() if title_of(pid).startswith("ray::Actor")]
        found["processes"] = len(actors)
        found["MB of them"] = round(sum(map(_private_mb, actors)))
        found["one look of the status, s"] = _timed(machines.look)
        (folders[0].parent / "code0.py").write_text(textwrap.dedent(APP.format(word="new")))
        found["a change of one stack, s"] = _timed(lambda: machines.ok("apply", folders[0]))
        found["shutdown, s"] = _timed(lambda: machines.ok("shutdown"))
        found["left"] = left_over(machines)
        return found
    finally:
        machines.close()


def _stack(machines: Machines, number: int, deployments: int, *, own: bool) -> Path:
    folder = machines.specs / f"s{number}"
    folder.mkdir()
    (folder / f"code{number}.py").write_text(textwrap.dedent(APP.format(word="old")))
    lines = [f"name: s{number}", "http_options: {host: 0.0.0.0, location: EveryNode}"]
    shared = "" if own else ", process: all"
    lines += [f"defaults: {{ray_actor_options: {{num_cpus: 0.1}}{shared}}}", "deployments:"]
    for index in range(deployments):
        lines.append(f"  - {{name: d{index}, route_prefix: /s{number}/d{index}, import_path: 'code{number}:app'}}")
    (folder / "serve.yaml").write_text("\n".join(lines) + "\n")
    return folder / "serve.yaml"


def _private_mb(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_")) / 1024


def _timed(what: Any) -> float:
    began = time.monotonic()
    what()
    return round(time.monotonic() - began, 2)


def main() -> None:
    """The command line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing is left then either
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stacks", type=int, default=30)
    parser.add_argument("--deployments", type=int, default=3)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--own", action="store_true")
    args = parser.parse_args()
    print(json.dumps(measure(args.stacks, args.deployments, args.nodes, own=args.own), indent=1))


if __name__ == "__main__":
    main()
