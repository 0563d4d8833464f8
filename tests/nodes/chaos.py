"""Faults at random on real Ray nodes under load from every living proxy: seeded, so that a run can be had once more.

    python tests/nodes/chaos.py --seed 7 --seconds 600 --connections 24

Each fault (a killed replica, proxy, controller, node or head, a cut link, a frozen replica, a drained node, a silent GCS) is
followed by the wait for ``status`` to tell the truth again. Counted as failed is what a proxy that lives, and is reached, answers
with anything but 200, by cause. What a visitor meets at a proxy that has just been killed, frozen or cut off is counted beside,
as excused.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "e2e")]

from machines import BIN, Machines, Node  # noqa: E402 - found by the path above
from place import until  # noqa: E402

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
PATHS = ("/spread", "/pair", "/spread/slow", "/pair/slow")
NODE = ("--num-cpus=2",)
PORT = 8000
REQUEST_S = 30.0
TRUE_S = 60.0  # how long the status may take to be true again
AFTER_S = 3.0  # what a visitor meets of a fault so long after it belongs to it


@dataclass
class Counts:
    """What the visitors met."""

    requests: int = 0
    excused: int = 0
    worst_s: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)


class Load:
    """Visitors at every node's proxy, each with a connection that it keeps. ``gone``: nodes whose proxy is not to be judged."""

    def __init__(self, connections: int) -> None:
        self.counts = Counts()
        self.gone: set[str] = set()
        self._since: dict[str, float] = {}  # when a proxy was last given up or taken back
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._connections = connections
        self._threads: list[threading.Thread] = []

    def visit(self, ips: list[str]) -> None:
        """Begin."""
        for number in range(self._connections):
            thread = threading.Thread(target=self._work, args=(ips[number % len(ips)], number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def end(self) -> None:
        """Every visitor has had its last answer."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def excuse(self, ip: str) -> None:
        """The proxy there is about to be killed, frozen or cut off."""
        with self._lock:
            self.gone.add(ip)

    def judge(self, ip: str) -> None:
        """It lives again."""
        with self._lock:
            self.gone.discard(ip)
            self._since[ip] = time.monotonic()

    def window(self) -> float:
        """The slowest answer since the last look, in seconds."""
        with self._lock:
            worst, self.counts.worst_s = self.counts.worst_s, 0.0
        return worst

    def _work(self, ip: str, number: int) -> None:
        connection: http.client.HTTPConnection | None = None
        turn = number
        while not self._stop.is_set():
            turn += 1
            began, path = time.monotonic(), PATHS[turn % len(PATHS)]
            kept, connection, cause = connection is not None, *_ask(connection, ip, path)
            if kept and cause == "closed while idle":
                continue
            self._count(ip, began, cause and f"{path.rpartition('/')[0] or path}: {cause}")
            if cause:
                time.sleep(0.2)
            time.sleep(0.02)
        if connection is not None:
            connection.close()

    def _count(self, ip: str, began: float, cause: str) -> None:
        with self._lock:
            self.counts.requests += 1
            if ip in self.gone or began < self._since.get(ip, 0.0):
                self.counts.excused += bool(cause)
                return
            self.counts.worst_s = max(self.counts.worst_s, time.monotonic() - began)
            if cause:
                self.counts.failed[f"{ip}{cause}"] += 1


def _ask(
    connection: http.client.HTTPConnection | None, ip: str, path: str
) -> tuple[http.client.HTTPConnection | None, str]:
    """The connection, where it goes on, and what is wrong with the answer."""
    kept = connection is not None
    connection = connection or http.client.HTTPConnection(ip, PORT, timeout=REQUEST_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        if kept and isinstance(error, ConnectionError):
            return None, "closed while idle"  # a client asks again (RFC 9112 section 9.3.1)
        return None, f" {type(error).__name__}"
    if answer.will_close:
        connection.close()
    cause = "" if answer.status == 200 else f" {answer.status} {body[:60].decode(errors='replace')}"
    return (None if answer.will_close else connection), cause


class Chaos:
    """Three nodes, one stack, and what happens to them."""

    def __init__(self, machines: Machines, seed: int, connections: int) -> None:
        self.machines = machines
        self.random = random.Random(seed)
        self.load = Load(connections)
        self.told: list[dict[str, Any]] = []

    def begin(self) -> None:
        """The stack, and the visitors."""
        specs = self.machines.specs
        (specs / "shaken.py").write_text(textwrap.dedent(APP))
        (specs / "serve.yaml").write_text(textwrap.dedent(SPEC))
        self.machines.ok("apply", specs / "serve.yaml")
        until(lambda: self.is_true(), "everything is up")
        self.load.visit([node.ip for node in self.living()])
        time.sleep(1)

    def run(self, seconds: float, only: tuple[str, ...] = ()) -> None:
        """Faults until the time is over, each healed before the next."""
        names = only or tuple(FAULTS)
        deadline = time.monotonic() + seconds
        bag: list[str] = []
        while time.monotonic() < deadline:
            if not bag:
                bag = self.random.sample(names, len(names))
            self.strike(bag.pop())

    def strike(self, name: str) -> None:
        """One fault, and how long the status takes to be true again."""
        before = sum(self.load.counts.failed.values())
        self.load.window()
        began = time.monotonic()
        where = FAULTS[name](self)
        settled: float | str = "never"
        with contextlib.suppress(AssertionError):
            until(self.is_true, f"the status is true after {name}", TRUE_S)
            settled = round(time.monotonic() - began, 1)
        time.sleep(AFTER_S)
        failed = sum(self.load.counts.failed.values()) - before
        told = {"fault": name, "where": where, "failed": failed, "slowest_s": round(self.load.window(), 2)}
        self.told.append({**told, "true_after_s": settled})
        print(json.dumps(self.told[-1]), flush=True)

    # -- looking ------------------------------------------------------------------------------------------------

    def is_true(self) -> bool:
        """Whether the status is Healthy, and names what is there: a proxy on each node that lives, and no ghost."""
        status = self.machines.status()
        living = {node.ip for node in self.living()}
        proxies = [p for p in status["proxies"] if p["state"] == "Ready" and p["generation"] == status["generation"]]
        replicas = [r for s in status["stacks"] for d in s["deployments"] for r in d["replicas"]]
        places = {self.place_of(p["pid"]) for p in proxies}
        self.last = status
        return (
            all(s["state"] == "Healthy" for s in status["stacks"])
            and places == living
            and len(status["proxies"]) == len(living)
            and all(r["state"] == "Ready" and self.place_of(r["pid"]) in living for r in replicas)
        )

    def living(self) -> list[Node]:
        """The nodes that run and are reached."""
        return [node for node in self.machines.nodes if node.processes() and not node.is_cut]

    def place_of(self, pid: int) -> str:
        """The address of the node on which a process runs."""
        return next((node.ip for node in self.machines.nodes if pid in node.processes()), "gone")

    def replica(self) -> tuple[int, Node]:
        """One of them."""
        stacks = self.machines.status()["stacks"]
        pids = [r["pid"] for d in stacks[0]["deployments"] for r in d["replicas"] if r["state"] == "Ready"]
        pid = self.random.choice(sorted(pids))
        return pid, next(node for node in self.machines.nodes if pid in node.processes())

    def worker(self) -> Node:
        """A node that is not the head."""
        return self.random.choice([node for node in self.living() if not node.is_head])

    # -- what happens -------------------------------------------------------------------------------------------

    def kill_replica(self) -> str:
        """Its process ends."""
        pid, node = self.replica()
        os.kill(pid, signal.SIGKILL)
        return node.ip

    def freeze_replica(self) -> str:
        """Its process stands still for a while: who is with it waits, and nobody is turned away."""
        pid, node = self.replica()
        os.kill(pid, signal.SIGSTOP)
        time.sleep(4)
        os.kill(pid, signal.SIGCONT)
        return node.ip

    def kill_proxy(self) -> str:
        """Its process ends, with all connections to it."""
        proxy = self.random.choice(sorted(self.machines.status()["proxies"], key=lambda p: str(p["address"])))
        place = self.place_of(proxy["pid"])
        self.load.excuse(place)
        os.kill(proxy["pid"], signal.SIGKILL)
        until(lambda: place in self.answering(), "the proxy is back")
        self.load.judge(place)
        return place

    def kill_controller(self) -> str:
        """Its process ends."""
        os.kill(self.machines.status()["controller"]["pid"], signal.SIGKILL)
        return self.machines.head.ip

    def silence_gcs(self) -> str:
        """Ray's GCS answers nobody for a while: nothing is started, and everything is served."""
        gcs = next(pid for pid in self.machines.head.processes() if "gcs/gcs_server" in _title(pid))
        os.kill(gcs, signal.SIGSTOP)
        time.sleep(10)
        os.kill(gcs, signal.SIGCONT)
        return self.machines.head.ip

    def lose_head(self) -> str:
        """The head ends with everything on it, and is started anew on the state that its GCS has in Redis."""
        head = self.machines.head
        self.load.excuse(head.ip)
        head.die()
        time.sleep(3)
        head.start(*NODE)
        head.joined()
        self._back(head)
        return head.ip

    def kill_raylet(self) -> str:
        """A node's Ray ends, and with it what it had started; it is started anew."""
        node = self.worker()
        self.load.excuse(node.ip)
        for pid in node.processes():
            with contextlib.suppress(OSError):
                if "raylet/raylet" in _title(pid):
                    os.kill(pid, signal.SIGKILL)
        self._without(node)
        return node.ip

    def kill_node(self) -> str:
        """Everything on a node ends; the node comes back."""
        node = self.worker()
        self.load.excuse(node.ip)
        node.die()
        self._without(node)
        return node.ip

    def cut_link(self) -> str:
        """Nobody reaches a node for a while; nobody says so."""
        node = self.worker()
        self.load.excuse(node.ip)
        node.cut()
        time.sleep(self.random.choice([1.0, 6.0]))
        node.mend()
        self._back(node)
        return node.ip

    def lose_node(self) -> str:
        """A node goes silent, and is gone: its link is cut first. It comes back anew."""
        node = self.worker()
        self.load.excuse(node.ip)
        node.cut()
        self._settle("without it")
        node.die()
        node.mend()
        node.start(*NODE)
        node.joined()
        self._back(node)
        return node.ip

    def drain_node(self) -> str:
        """Ray is told to drain it, as an autoscaler does; then it ends, and comes back."""
        node = self.worker()
        ray_id = node.ray_id()
        command = [str(BIN / "ray"), "drain-node", f"--address={self.machines.gcs}", f"--node-id={ray_id}"]
        command += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot", "--deadline-remaining-seconds=60"]
        subprocess.run(self.machines.head.inside(command), env=self.machines.head.env, check=True, capture_output=True)
        until(lambda: node.ip not in self.answering(), "its proxy gives notice, as a load balancer hears", TRUE_S)
        self.load.excuse(node.ip)
        until(lambda: not self.serving_on(node), "the node is empty", TRUE_S)
        node.die()
        self._without(node)
        return node.ip

    def serving_on(self, node: Node) -> list[int]:
        """The pids of what serves on a node."""
        status = self.machines.status()
        actors = [*status["proxies"], *(r for s in status["stacks"] for d in s["deployments"] for r in d["replicas"])]
        return [actor["pid"] for actor in actors if actor["pid"] in node.processes()]

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

    def _settle(self, how: str) -> None:
        began = time.monotonic()
        with contextlib.suppress(AssertionError):
            until(self.is_true, how, TRUE_S)
        print(f"  {how}: {time.monotonic() - began:.1f} s", flush=True)
        if time.monotonic() - began > TRUE_S:
            print(json.dumps(self.last), [node.ray_id() for node in self.machines.nodes if not node.is_cut], flush=True)

    def _without(self, node: Node) -> None:
        self._settle("without it")
        node.die()
        node.start(*NODE)
        node.joined()
        self._back(node)

    def _back(self, node: Node) -> None:
        with contextlib.suppress(AssertionError):
            until(lambda: node.ip in self.answering(), "its proxy is back", TRUE_S)
        self.load.judge(node.ip)


FAULTS: dict[str, Callable[[Chaos], str]] = {
    "kill a replica": Chaos.kill_replica,
    "freeze a replica": Chaos.freeze_replica,
    "kill a proxy": Chaos.kill_proxy,
    "kill the controller": Chaos.kill_controller,
    "silence the GCS": Chaos.silence_gcs,
    "lose the head": Chaos.lose_head,
    "kill a raylet": Chaos.kill_raylet,
    "kill a node": Chaos.kill_node,
    "cut a link": Chaos.cut_link,
    "lose a node": Chaos.lose_node,
    "drain a node": Chaos.drain_node,
}


def shake(seed: int, seconds: float, connections: int, only: tuple[str, ...] = ()) -> dict[str, Any]:
    """A whole run; what came of it."""
    machines = Machines()
    try:
        if shutil.which("redis-server") is not None:
            machines.keep_state_outside()
        for _ in range(3):
            machines.add(*NODE).joined()
        chaos = Chaos(machines, seed, connections)
        chaos.begin()
        chaos.run(seconds, only)
        chaos.load.end()
        began = time.monotonic()
        ended = machines.run("shutdown")
        left = [f"{node.ip} {title}" for node in machines.nodes for title in _ours(node)]
        counts = chaos.load.counts
        return {
            "seed": seed,
            "requests": counts.requests,
            "failed": dict(counts.failed),
            "excused": counts.excused,
            "faults": chaos.told,
            "shutdown": {"code": ended.code, "seconds": round(time.monotonic() - began, 1), "left": left},
        }
    finally:
        machines.close()


def _ours(node: Node) -> list[str]:
    """What runs there of serveconf."""
    return [
        title for pid in node.processes() if "serveconf" in (title := _title(pid)) or title.startswith("ray::Actor")
    ]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=24)
    parser.add_argument("--only", action="append", default=[], choices=FAULTS)
    args = parser.parse_args()
    print(json.dumps(shake(args.seed, args.seconds, args.connections, tuple(args.only)), indent=1))


if __name__ == "__main__":
    main()
