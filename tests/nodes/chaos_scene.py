"""What the faults of chaos.py happen to: nodes with one stack under load, and whether what ``status`` tells of them is true."""

from __future__ import annotations

import contextlib
import http.client
import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chaos_load import PORT, Load
from machines import Machines, Node
from place import until

APP = """
    import asyncio
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/")
    async def tell() -> str:
        return "here"

    @app.get("/slow")
    async def slow() -> str:
        await asyncio.sleep(0.2)
        return "slow"
    """
SPEC = """
    http_options: {host: 0.0.0.0, location: EveryNode}
    deployments:
      - {name: spread, import_path: 'shaken:app', num_replicas: 3, ray_actor_options: {num_cpus: 0.1}}
      - {name: pair, import_path: 'shaken:app', num_replicas: 2, ray_actor_options: {num_cpus: 0.1}}
    """
REPLICAS = 5
NODE = ("--num-cpus=2",)
ACTOR = "ray::Actor"
TRUE_S = 150.0  # how long the status may take to be true again, before it counts as never
LEFT = """
import ray, sys
from ray._private.state import actors
from ray.experimental.internal_kv import _internal_kv_list
ray.init(address=sys.argv[1], log_to_driver=False)
for one in actors().values():
    if one["State"] != "DEAD":
        print("actor", one["Name"], one["State"])
for one in ray.util.placement_group_table().values():
    if one["state"] != "REMOVED":
        print("group", one["name"], one["state"])
for key in _internal_kv_list(b"", namespace=b"serveconf"):
    print("key", key.decode())
"""


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a look at the status has shown."""

    false: list[str]  # told, and not so: who is dead or out of reach is ready, who lives is not; or nobody answered
    unwell: list[str]  # told truly, and not as it should be

    @property
    def is_wrong(self) -> bool:
        """Whether anything is either."""
        return bool(self.false or self.unwell)

    def __str__(self) -> str:
        return "; ".join([*(f"FALSE {one}" for one in self.false), *self.unwell])


class Scene:
    """The nodes, the stack, the visitors, and the dice."""

    def __init__(self, machines: Machines, seed: int, connections: int) -> None:
        self.machines = machines
        self.random = random.Random(seed)
        self.load = Load(connections)
        # of the fault that goes on: how long after each of its events the status told something false, how long until all was well,
        # and what was wrong meanwhile
        self.events: dict[str, float | str] = {}
        self.whole: dict[str, float | str] = {}
        self.course: list[str] = []

    def begin(self) -> None:
        """The stack, and the visitors."""
        specs = self.machines.specs
        (specs / "shaken.py").write_text(textwrap.dedent(APP))
        (specs / "serve.yaml").write_text(textwrap.dedent(SPEC))
        self.machines.ok("apply", specs / "serve.yaml")
        until(lambda: not self.look().is_wrong, "everything is up")
        self.load.visit([node.ip for node in self.living()])
        time.sleep(1)

    # -- looking ------------------------------------------------------------------------------------------------

    def look(self) -> Sight:
        """What the status tells, held against what runs."""
        try:
            status = self.machines.look()
        except (OSError, AssertionError, http.client.HTTPException) as error:
            return Sight(false=[str(error)], unwell=[])
        living = {node.ip for node in self.living()}
        place = {pid: node.ip for node in self.machines.nodes if node.ip in living for pid in node.processes()}
        replicas = [r for s in status["stacks"] for d in s["deployments"] for r in d["replicas"]]
        false, unwell = [], []
        for one in [*status["proxies"], *replicas]:
            where, state = place.get(one["pid"], "gone"), one["state"]
            told = f"{one['id']} {state} on {where}"
            if (state == "Ready") != (where != "gone") and state in ("Ready", "Unhealthy"):
                false.append(told)
            elif state != "Ready" or one.get("generation", status["generation"]) != status["generation"]:
                unwell.append(told)
        missing = living - {place.get(proxy["pid"], "gone") for proxy in status["proxies"]}
        unwell += [f"no proxy on {ip}" for ip in sorted(missing)]
        serving = sum(r["state"] == "Ready" and r["pid"] in place for r in replicas)
        for stack in status["stacks"]:
            if stack["state"] != "Healthy":
                unwell.append(f"stack {stack['name']} {stack['state']}")
            elif serving < REPLICAS:
                false.append(f"stack {stack['name']} Healthy with {serving} replicas")
        if status["controller"].get("silent_s") is not None:
            unwell.append("the GCS is silent")
        return Sight(false=false, unwell=unwell)

    def settle(self, event: str, also: Callable[[], bool] = lambda: True) -> None:
        """All is well again after this event: how long that took, and how long until the status told nothing false any more."""
        began, true_s, is_over, before = time.monotonic(), 0.0, False, None
        while not is_over:
            is_there, sight, now_s = also(), self.look(), time.monotonic() - began
            if sight != before:
                self.course.append(f"{event}, {now_s:.1f} s: {sight}")
                before = sight
            if sight.false:
                true_s = now_s
            is_well = is_there and not sight.is_wrong
            is_over = is_well or now_s > TRUE_S
            time.sleep(0.0 if is_over else 0.1)
        self.events[event] = round(true_s, 1) if not sight.false else f"never: {sight}"
        self.whole[event] = round(now_s, 1) if is_well else f"never: {sight}"

    def ghosts(self) -> list[str]:
        """What runs on the nodes as an actor, and that the status does not name."""
        status = self.machines.look()
        replicas = [r for s in status["stacks"] for d in s["deployments"] for r in d["replicas"]]
        named = {one["pid"] for one in [status["controller"], *status["proxies"], *status["standbys"], *replicas]}
        there = [(node.ip, pid) for node in self.living() for pid in node.processes() if pid not in named]
        return [f"{ip}: {pid}" for ip, pid in there if title_of(pid).startswith(ACTOR)]

    def living(self) -> list[Node]:
        """The nodes that run and are reached."""
        return [node for node in self.machines.nodes if not node.is_cut and node.is_up and node.processes()]

    def place_of(self, pid: int) -> str:
        """The address of the node on which a process runs."""
        return next((node.ip for node in self.machines.nodes if pid in node.processes()), "gone")

    def node(self, ip: str) -> Node:
        """The one at that address."""
        return next(node for node in self.machines.nodes if node.ip == ip)

    def replica(self) -> tuple[int, Node]:
        """One of them."""
        deployments = [d for s in self.machines.look()["stacks"] for d in s["deployments"]]
        replicas = [r["pid"] for d in deployments for r in d["replicas"] if r["state"] == "Ready"]
        pid = self.random.choice(replicas)
        return pid, self.node(self.place_of(pid))

    def proxy(self) -> tuple[int, Node]:
        """One that serves."""
        places = {self.place_of(proxy["pid"]): proxy["pid"] for proxy in self.machines.look()["proxies"]}
        ip = self.random.choice(sorted(places))
        return places[ip], self.node(ip)

    def controller(self) -> int:
        """Its pid."""
        pid: int = self.machines.look()["controller"]["pid"]
        return pid

    def worker(self) -> Node:
        """A node that is not the head."""
        return self.random.choice([node for node in self.living() if not node.is_head])

    def serving_on(self, node: Node) -> list[int]:
        """The pids of what serves on a node."""
        status = self.machines.look()
        actors = [*status["proxies"], *(r for s in status["stacks"] for d in s["deployments"] for r in d["replicas"])]
        there = set(node.processes())
        return [actor["pid"] for actor in actors if actor["pid"] in there]

    def answering(self) -> set[str]:
        """The nodes whose proxy says that it is well."""
        found = set()
        for node in self.machines.nodes:
            connection = http.client.HTTPConnection(node.ip, PORT, timeout=1)
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/-/healthz")
                if connection.getresponse().status == 200:
                    found.add(node.ip)
            connection.close()
        return found

    # -- a node comes back --------------------------------------------------------------------------------------

    def restart(self, node: Node) -> None:
        """Its Ray is started anew, on an empty disk; the event is that it runs."""
        node.die()
        node.start(*NODE)
        node.joined()
        self.back(node, "Ray runs there again")

    def back(self, node: Node, event: str) -> None:
        """It is reached again: from its proxy's first good word on that one is judged."""

        def is_back() -> bool:
            if node.ip in self.load.gone and node.ip in self.answering():
                self.load.judge(node.ip)
            return node.ip not in self.load.gone

        self.settle(event, is_back)
        self.load.judge(node.ip)


def left_over(machines: Machines) -> list[str]:
    """What is left of serveconf after a shutdown: processes and files on the nodes; actors, groups and keys in Ray.

    A node that has died keeps its files, as nobody is there to clear them.
    """
    found = [
        f"process {node.ip} {title}"
        for node in machines.nodes
        for title in map(title_of, node.processes())
        if _is_ours(title)
    ]
    living = [node for node in machines.nodes if node.is_up]
    found += [f"file {path}" for node in living for path in sorted(node.folder.glob("serveconf-*/**/*"))]
    command = machines.head.inside([sys.executable, "-c", LEFT, machines.gcs])
    done = subprocess.run(command, env=machines.head.env, check=True, capture_output=True, text=True)
    return found + done.stdout.splitlines()


def _is_ours(title: str) -> bool:
    return "serveconf" in title or title.startswith(ACTOR)


def title_of(pid: int) -> str:
    """The command line of a process; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
