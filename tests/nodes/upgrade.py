"""An upgrade of two nodes under load from many connections: what fails, and the longest time without an answer.

    python tests/nodes/upgrade.py --connections 64

The same is measured beforehand for as long, while nothing happens: what the machine adds by itself. Then come a version whose replicas
do not get ready, one whose proxies do not, and a sound one.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import signal
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "e2e")]

from installed import Installed  # noqa: E402 - found by the path above
from machines import Machines  # noqa: E402
from place import until  # noqa: E402

APP = """
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/")
    def tell() -> str:
        return "here"
    """
SPEC = """
    http_options: {host: 0.0.0.0, location: EveryNode}
    deployments:
      - {name: spread, import_path: 'upgraded:app', num_replicas: 2, ray_actor_options: {num_cpus: 0.1}}
      - {name: pair, import_path: 'upgraded:app', num_replicas: 2, ray_actor_options: {num_cpus: 0.1}}
    """
PATHS = ("/spread", "/pair")
PORT = 8000
PAUSE_S = 0.1  # between two requests of one connection
QUIET_S = 20.0
AFTER_S = 3.0  # what is met so long after it belongs to it


class Crowd:
    """Connections to all proxies, kept as long as both sides do; while the ``with`` block runs."""

    def __init__(self, ips: list[str], connections: int, paths: tuple[str, ...] = PATHS) -> None:
        self.failures: list[str] = []
        self._paths = paths
        self._answered: list[tuple[str, float, float]] = []  # by whom, when, after how long
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(ips[number % len(ips)], number)) for number in range(connections)
        ]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def told(self, since: float = 0.0) -> dict[str, Any]:
        """Requests, failures, the longest time in which nobody at a node had an answer, the slowest answer."""
        found = [one for one in self._answered if one[1] >= since]
        gap = 0.0
        for ip in {one[0] for one in found}:
            moments = [moment for one, moment, _ in found if one == ip]
            gap = max([gap, *(later - earlier for earlier, later in itertools.pairwise(moments))])
        return {
            "requests": len(found),
            "failed": len(self.failures),
            "longest_gap_ms": round(gap * 1000),
            "slowest_ms": round(max((took for *_, took in found), default=0) * 1000),
        }

    def _work(self, ip: str, turn: int) -> None:
        connection, kept = http.client.HTTPConnection(ip, PORT, timeout=30), False
        while not self._stop.is_set():
            turn += 1
            began = time.monotonic()
            try:
                connection.request("GET", self._paths[turn % len(self._paths)])
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if not kept or not isinstance(error, ConnectionError):
                    self.failures.append(f"{ip}: {error!r}")
                kept = False  # closed while idle: a client asks again (RFC 9112 section 9.3.1)
                continue
            kept = not answer.will_close
            if answer.status == 200:
                self._answered.append((ip, time.monotonic(), time.monotonic() - began))
            else:
                self.failures.append(f"{ip}: {answer.status} {body[:100]!r}")
            time.sleep(PAUSE_S)
        connection.close()


def versions(status: Any) -> set[str]:
    """Of everything that runs."""
    replicas = [r for s in status["stacks"] for d in s["deployments"] for r in d["replicas"]]
    return {one["serveconf"] for one in [status["controller"], *status["proxies"], *replicas]}


def upgrade(machines: Machines, package: Installed, crowd: Crowd, version: str, *, broken: str = "") -> dict[str, Any]:
    """To that version; the exit code, the receipt, and what the crowd has met."""
    package.install(version, broken=broken)
    began = time.monotonic()
    done = machines.run("upgrade", "-o", "json")
    time.sleep(AFTER_S)
    return {
        "code": done.code,
        "receipt": done.json.get("receipt"),
        "error": done.json.get("error"),
        **crowd.told(began),
    }


def measure(connections: int) -> dict[str, Any]:
    """The whole story."""
    machines = Machines()
    try:
        package = Installed(machines.root / "site")
        machines.env |= package.env
        package.install("0.1.0")
        for _ in range(2):
            machines.add("--num-cpus=2").joined()
        (machines.specs / "upgraded.py").write_text(textwrap.dedent(APP))
        (machines.specs / "serve.yaml").write_text(textwrap.dedent(SPEC))
        machines.ok("apply", machines.specs / "serve.yaml")
        until(lambda: len(machines.look()["proxies"]) == 2, "each node has its proxy")
        told = {}
        with Crowd([node.ip for node in machines.nodes], connections) as crowd:
            time.sleep(1)
            began = time.monotonic()
            time.sleep(QUIET_S)
            told["nothing happens"] = crowd.told(began)
            told["its replicas do not get ready"] = upgrade(machines, package, crowd, "0.2.0", broken="replica")
            told["its proxies do not get ready"] = upgrade(machines, package, crowd, "0.3.0", broken="proxy")
            told["it is sound"] = upgrade(machines, package, crowd, "0.4.0")
            until(lambda: versions(machines.look()) == {"0.4.0"}, "everything runs the new version")
        assert machines.run("shutdown").code == 0
        return {**told, "failures": crowd.failures}
    finally:
        machines.close()


def main() -> None:
    """The command line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing is left then either
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=64)
    print(json.dumps(measure(parser.parse_args().connections), indent=1))


if __name__ == "__main__":
    main()
