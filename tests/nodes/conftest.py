"""Two nodes for all tests of this folder: a head node without a CPU, and one with CPUs, a label and resources.

Where this machine has a redis-server, Ray's GCS keeps its state in one, as it does in production.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent.parent / "e2e"))  # for ``place``

from chaos_scene import left_over
from machines import Machines, Node, why_not
from place import GOING, until

APP = """
    import os
    import ray
    from fastapi import FastAPI, Request, WebSocket

    app = FastAPI()

    @app.get("/")
    def tell() -> dict:
        context = ray.get_runtime_context()
        return {
            "pid": os.getpid(), "node": context.get_node_id(), "cwd": os.getcwd(), "file": __file__,
            "env": dict(os.environ), "resources": context.get_assigned_resources(),
        }

    @app.post("/size")
    async def size(request: Request) -> int:
        return sum([len(part) async for part in request.stream()])

    @app.websocket("/echo")
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            await socket.send_text(await socket.receive_text())
    """
# Ray declares a node dead after 15 s; with these it takes about two
SOON = '--system-config={"health_check_period_ms": 500, "health_check_failure_threshold": 3}'
HEAD = ("--num-cpus=0", '--resources={"one": 8}', SOON)
HERE = "name: here, import_path: 'told:app', ray_actor_options: {num_cpus: 0, resources: {one: 1}}"
THERE = "name: there, import_path: 'told:app', ray_actor_options: {resources: {two: 1}}"


class Cluster:
    """The machines, and the one stack that all tests change in turn."""

    def __init__(self, machines: Machines) -> None:
        self.machines = machines
        self.head, self.second = machines.nodes
        (machines.specs / "told.py").write_text(textwrap.dedent(APP))

    def apply(self, *deployments: str, **http: Any) -> Any:
        """Apply a stack, which must go well; the result. Each deployment is the inside of a YAML flow mapping."""
        return self.machines.ok("apply", self.spec(*deployments, **http), "-o", "json").json

    def spec(self, *deployments: str, **http: Any) -> Path:
        """Write the spec."""
        options = ", ".join(f"{key}: {value}" for key, value in {"host": "0.0.0.0", **http}.items())
        lines = [f"http_options: {{{options}}}", "deployments:", *(f"  - {{{text}}}" for text in deployments)]
        file = self.machines.specs / "serve.yaml"
        file.write_text("\n".join(lines) + "\n")
        return file

    def replicas(self, deployment: str) -> list[dict[str, Any]]:
        """The replicas of a deployment, as ``status`` tells, less those that go."""
        (stack,) = self.machines.status()["stacks"]
        found: list[dict[str, Any]] = next(d["replicas"] for d in stack["deployments"] if d["name"] == deployment)
        return [replica for replica in found if replica["state"] not in GOING]

    def proxies(self) -> list[dict[str, Any]]:
        """All proxies, as ``status`` tells."""
        found: list[dict[str, Any]] = self.machines.status()["proxies"]
        return found

    def node_of(self, pid: int) -> Node | None:
        """On which machine a process runs; None where the machine is gone."""
        return next((node for node in self.machines.nodes if pid in node.processes()), None)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes with Ray; at the end nothing of them is left."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    machines = Machines()
    try:
        if shutil.which("redis-server") is not None:
            machines.keep_state_outside()
        machines.add(*HEAD).joined()
        machines.add(
            "--num-cpus=2",
            "--num-gpus=2",
            "--memory=1000000000",
            '--resources={"two": 8, "accelerator_type:T4": 1}',
            "--labels=zone=east",
        ).joined()
        yield Cluster(machines)
        done = machines.run("shutdown")
        assert done.code == 0, done.err
        until(lambda: nothing_is_left(machines), "nothing is left of it")
    finally:
        machines.close()


def nothing_is_left(machines: Machines) -> bool:
    """Says what is: a process that was ended may take a moment."""
    left = left_over(machines)
    assert not left, "\n".join(left)
    return True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs Ray."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.ray)
