"""Machines on one machine: network namespaces on a bridge, each with an address, a TMPDIR and a Ray node of its own.

The namespaces share the file system, so each hides the folder of the specs from all nodes but the head (an empty tmpfs):
what a replica elsewhere imports has travelled. What runs in a namespace is how ``close`` knows what to end.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from place import Done, end, until

BIN = Path(sys.executable).parent
GCS_PORT = 6379
HTTP_PORT = 8000
STATUS_URL = "http://127.0.0.1:8001/api/v1/status"
DISK_MB = 256  # where disks are small
COMPILER = shutil.which("cc")
ASK_THERE = """
import sys
from urllib.request import Request, urlopen
with urlopen(Request(sys.argv[1], headers={sys.argv[2]: sys.argv[3]}), timeout=5) as answer:
    print(answer.read().decode(), answer.status, sep="\\n", end="")
"""
MAY_DO = "ip link add scb0 type bridge && ip link add scv0 type veth peer name scw0 && mount -t tmpfs none /tmp"
MASK_AND_RUN = 'mount -t tmpfs none "$0" && exec "$@"'


def why_not() -> str | None:
    """Why this machine can't have namespaces; None where it can."""
    if sys.platform != "linux" or not all(map(shutil.which, ("ip", "unshare", "mount"))):
        return "needs Linux, iproute2 and util-linux"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", MAY_DO], capture_output=True, text=True, check=False
    )
    if os.geteuid() != 0 or tried.returncode != 0:
        return "needs to be root, and allowed to make network namespaces: " + (tried.stderr.strip() or "not root")
    return None


# as docs/production.md has it: a head that is started anew finds out in five seconds which nodes have died, instead of in fifteen
HEAD_SETTINGS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
}


class Node:
    """One Ray node in its namespace."""

    def __init__(self, machines: Machines, number: int) -> None:
        self.number = number
        self.ip = f"{machines.subnet}.{number}"
        self.space = f"{machines.name}n{number}"
        self.folder = machines.root / f"n{number}"
        self._machines = machines
        self._ray: subprocess.Popen[bytes] | None = None
        self._clock = machines.root / f"clock{number}"
        self._is_mounted = False
        self.is_cut = False
        self.is_up = False  # its Ray was started, and nobody has ended it

    @property
    def url(self) -> str:
        """Where a proxy of this node answers."""
        return f"http://{self.ip}:{HTTP_PORT}"

    @property
    def is_head(self) -> bool:
        """The first one is."""
        return self.number == 1

    def start(self, *options: str) -> None:
        """Have Ray start, on a node that died anew, on an empty disk; ``joined`` waits for it."""
        if self._ray is None:
            self._machines.plug(self)
        self.unmount()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.set_clock(0)
        if self._machines.disks_are_small:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", self._machines.name, self.folder], check=True
            )
            self._is_mounted = True
        role = ["--head", f"--port={GCS_PORT}", "--include-dashboard=false"]
        if not self.is_head:
            role = [f"--address={self._machines.gcs}"]
        ray = [str(BIN / "ray"), "start", "--block", "--disable-usage-stats", f"--node-ip-address={self.ip}"]
        ray += [f"--temp-dir={self.folder}", "--object-store-memory=100000000", *role, *options]
        with open(self.folder / "out", "wb") as out:
            self._ray = subprocess.Popen(
                self.inside(ray),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.env,
                cwd=self._machines.root,
                start_new_session=True,
            )
        self.is_up = True

    def joined(self) -> Node:
        """Wait until Ray runs here."""
        out = self.folder / "out"
        until(lambda: "Ray runtime started" in out.read_text(errors="replace"), f"Ray runs on {self.ip}")
        return self

    @property
    def env(self) -> dict[str, str]:
        """What a process of this node sees."""
        env = {**self._machines.env, "TMPDIR": str(self.folder)}
        if self._machines.clock_library is not None:
            env |= {"LD_PRELOAD": str(self._machines.clock_library), "CLOCK_FILE": str(self._clock)}
        return env

    def inside(self, command: list[str]) -> list[str]:
        """A command, to be run in this node's namespace."""
        entered = ["ip", "netns", "exec", self.space]
        if self.is_head:
            return [*entered, *command]
        return [*entered, "unshare", "--mount", "sh", "-c", MASK_AND_RUN, str(self._machines.hidden), *command]

    def processes(self) -> list[int]:
        """The pids of what runs here."""
        return [int(pid) for pid in _ip("netns", "pids", self.space).split()]

    def cut(self) -> None:
        """Nobody reaches it, and it reaches nobody; no connection ends by that."""
        self.is_cut = True
        _ip("link", "set", f"{self._machines.name}v{self.number}", "down")

    def mend(self) -> None:
        """The link is there again."""
        _ip("link", "set", f"{self._machines.name}v{self.number}", "up")
        self.is_cut = False

    def set_clock(self, ahead_s: int) -> None:
        """How far ahead of the machine's the clock is that its processes see, where nodes have clocks of their own."""
        descriptor = os.open(self._clock, os.O_RDWR | os.O_CREAT)
        os.pwrite(descriptor, struct.pack("=q", ahead_s), 0)
        os.close(descriptor)

    def fill_disk(self) -> None:
        """Nobody can write another byte to it."""
        assert self._is_mounted
        with contextlib.suppress(OSError), open(self.folder / "ballast", "wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(65536))

    def clear_disk(self) -> None:
        """There is room again."""
        (self.folder / "ballast").unlink()

    def unmount(self) -> None:
        """Its disk is gone, with all that is on it."""
        if self._is_mounted:
            subprocess.run(["umount", "-l", self.folder], check=True)
            self._is_mounted = False

    def ray_id(self) -> str:
        """Ray's name for the node that lives here now: for a while Ray takes the one before it for alive, too."""
        lines = [Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0") for pid in self.processes()]
        raylet = next(line for line in lines if line[0].endswith("raylet/raylet"))
        return next(word.removeprefix("--node_id=") for word in raylet if word.startswith("--node_id="))

    def die(self) -> None:
        """Everything on this node ends at once, without a word."""
        self.is_up = False
        while pids := self.processes():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self._ray is not None:
            self._ray.wait()


class Machines:
    """A head node, and as many others as are wanted; the ``serveconf`` command, typed on the head node."""

    def __init__(self) -> None:
        mark = secrets.token_hex(3)
        self.name = f"sc{mark}"
        self.subnet = f"10.213.{int(mark[:2], 16)}"
        self.root = Path(tempfile.mkdtemp(prefix="nodes"))  # short: Ray keeps unix sockets below it
        self.hidden = self.root / "hidden"  # only the head node sees what is in it
        self.specs = self.hidden / "specs"
        self.specs.mkdir(parents=True)
        self.gcs = f"{self.subnet}.1:{GCS_PORT}"
        ours = ("SERVECONF_", "RAY_", "COVERAGE_", "PYTEST_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        self.env = {**kept, "SERVECONF_HOME": str(self.root / "home"), "RAY_ADDRESS": self.gcs}
        self.env["RAY_AUTH_MODE"] = "disabled"  # whatever token lies in the home of who runs the tests
        self.nodes: list[Node] = []
        self.disks_are_small = False
        self.clock_library: Path | None = None
        self._redis: subprocess.Popen[bytes] | None = None
        self._token = ""
        _ip("link", "add", self.name, "type", "bridge")
        _ip("addr", "add", f"{self.subnet}.254/24", "dev", self.name)
        _ip("link", "set", self.name, "up")

    def keep_state_outside(self) -> None:
        """The heads that are started from now on have their GCS write to a Redis of ours, which no node's end ends."""
        address = f"{self.subnet}.254"
        self._redis = subprocess.Popen(
            ["redis-server", "--bind", address, "--protected-mode", "no", "--port", str(GCS_PORT), "--save", ""],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.root,
        )
        self.env |= {"RAY_REDIS_ADDRESS": f"{address}:{GCS_PORT}", **HEAD_SETTINGS}
        until(lambda: socket.create_connection((address, GCS_PORT), timeout=1).close() is None, "Redis listens")

    def small_disks(self) -> None:
        """The nodes that are started from now on have a disk each, which can be filled."""
        self.disks_are_small = True

    def own_clocks(self) -> None:
        """The nodes that are started from now on have a clock each, which can be set; what only grows is the machine's.

        By a preloaded library: a time namespace has clocks of its own for what only grows, and none for the time of day.
        """
        assert COMPILER is not None, "needs a C compiler"
        self.clock_library = self.root / "set_clock.so"
        source = Path(__file__).with_name("set_clock.c")
        subprocess.run([COMPILER, "-O2", "-shared", "-fPIC", "-o", self.clock_library, source], check=True)

    @property
    def head(self) -> Node:
        """The node on which Ray was started."""
        return self.nodes[0]

    def add(self, *options: str) -> Node:
        """One node more, begun."""
        node = Node(self, len(self.nodes) + 1)
        self.nodes.append(node)
        node.start(*options)
        return node

    def plug(self, node: Node) -> None:
        """A namespace for a node, with a cable to the bridge."""
        outer, inner = f"{self.name}v{node.number}", f"{self.name}w{node.number}"
        _ip("netns", "add", node.space)
        _ip("link", "add", outer, "type", "veth", "peer", "name", inner)
        _ip("link", "set", outer, "master", self.name, "up")
        _ip("link", "set", inner, "netns", node.space)
        _ip("-n", node.space, "addr", "add", f"{node.ip}/24", "dev", inner)
        _ip("-n", node.space, "link", "set", "lo", "up")
        _ip("-n", node.space, "link", "set", inner, "up")

    def start(self, *args: str | Path) -> subprocess.Popen[str]:
        """The command on the head node, begun."""
        command = self.head.inside([str(BIN / "serveconf"), *map(str, args)])
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=self.head.env
        )

    def run(self, *args: str | Path) -> Done:
        """The command on the head node, ended."""
        return end(self.start(*args))

    def ok(self, *args: str | Path) -> Done:
        """The command on the head node, ended with 0."""
        done = self.run(*args)
        assert done.code == 0, f"{args}: {done.code}\n{done.out}\n{done.err}"
        return done

    def status(self) -> Any:
        """What ``status`` tells."""
        return self.ok("status", "-o", "json").json

    def look(self) -> Any:
        """The same, asked without the command, which takes its time. Raises AssertionError where nobody answers."""
        if not self._token:
            self._token = self.ok("token").out.strip()
        bearer = f"Authorization: Bearer {self._token}"
        command = ["curl", "-s", "--max-time", "5", "-w", "\n%{http_code}", STATUS_URL, "-H", bearer]
        if shutil.which("curl") is None:
            command = [sys.executable, "-c", ASK_THERE, STATUS_URL, *bearer.split(": ")]
        done = subprocess.run(self.head.inside(command), check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"the control API does not answer: {command[0]}'s exit code {done.returncode}"
        body, _, code = done.stdout.rpartition("\n")
        assert code == "200", f"the control API answers {code}: {body[:300]}"
        return json.loads(body)

    def keep_logs(self, folder: Path) -> None:
        """Copy what Ray and we have logged on each node."""
        for node in self.nodes:
            for session in node.folder.glob("session_2*"):
                shutil.copytree(session / "logs", folder / node.ip / session.name, dirs_exist_ok=True)

    def close(self) -> None:
        """Leave nothing: no process, no namespace, no link, no folder."""
        enders = [threading.Thread(target=node.die) for node in self.nodes]
        for ender in enders:
            ender.start()
        for ender in enders:
            ender.join()
        for node in self.nodes:
            _ip("netns", "del", node.space, check=False)
            node.unmount()
        if self._redis is not None:
            self._redis.kill()
            self._redis.wait()
        _ip("link", "del", self.name, check=False)
        shutil.rmtree(self.root, ignore_errors=True)


def _ip(*args: str, check: bool = True) -> str:
    return subprocess.run(["ip", *args], check=check, capture_output=True, text=True).stdout
