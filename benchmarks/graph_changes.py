"""Changes of a graph of deployments under load, counted: ``python benchmarks/graph_changes.py [--changes 20] [--clients 16]``.

Clients ask an outer deployment over HTTP, which asks an inner one twice. First the inner one's code changes, and it rolls
alone; then code that both of them import. Each answer says which versions have answered: more than one of the inner
one's in a request, or another one than the outer one's where both change, is half of a change.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from data_plane_on_ray import SERVECONF

from serveconf.local_ray import free_port

FILES = {
    "app.py": "from outer import Outer\nfrom inner import Inner\n\napp = Outer.bind(Inner.bind())\n",
    "outer.py": """
import asyncio
from serveconf import serve
from shared import VERSION

@serve.deployment(max_ongoing_requests=4, num_replicas=2)
class Outer:
    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, request):
        first = await self.inner.remote()
        await asyncio.sleep(0.005)
        return [VERSION, first, await self.inner.remote()]
""",
    "inner.py": """
from serveconf import serve
from shared import VERSION
OWN = 0

@serve.deployment(max_ongoing_requests=2, num_replicas=2)
class Inner:
    async def __call__(self):
        return [VERSION, OWN]
""",
    "shared.py": "VERSION = 0\n",
    "serve.yaml": "http_options: {port: PORT}\ndeployments:\n  - {name: graph, import_path: app:app, route_prefix: /}\n",
}


class Load:
    """Clients that ask until they are told to stop, and what has come back."""

    def __init__(self, port: int, clients: int) -> None:
        self._port = port
        self._over = threading.Event()
        self.counts: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while not self._over.is_set():
            self.counts["requests"] += 1
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200:
                    self.counts["failed"] += 1
                    continue
            except (OSError, http.client.HTTPException):
                self.counts["failed"] += 1
                connection.close()
                continue
            outer, first, second = json.loads(body)
            self.counts["half"] += first != second or outer != first[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--changes", type=int, default=20)
    parser.add_argument("--clients", type=int, default=16)
    arguments = parser.parse_args()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as place:
        folder = Path(place) / "app"
        folder.mkdir()
        environment = {
            **os.environ,
            "SERVECONF_HOME": f"{place}/home",
            "SERVECONF_ADDRESS": f"http://127.0.0.1:{free_port()}",
            "RAY_TMPDIR": place,
        }
        for name, text in FILES.items():
            (folder / name).write_text(text.replace("PORT", str(port)))

        def run(*command: str) -> Any:
            done = subprocess.run([SERVECONF, *command, "-o", "json"], env=environment, check=True, capture_output=True)
            return json.loads(done.stdout)

        def outer() -> set[str]:
            (stack,) = run("status")["stacks"]
            return {r["id"] for d in stack["deployments"] if d["name"] == "graph" for r in d["replicas"]}

        run("apply", str(folder / "serve.yaml"))
        try:
            for name, variable in (("inner.py", "OWN"), ("shared.py", "VERSION")):
                text, before, receipts = (folder / name).read_text(), outer(), 0
                with Load(port, arguments.clients) as load:
                    for number in range(1, arguments.changes + 1):
                        (folder / name).write_text(text.replace(f"{variable} = 0", f"{variable} = {number}"))
                        receipts += run("apply", str(folder / "serve.yaml"))["receipt"]["failed"]
                counts, alone = load.counts, outer() == before
                print(
                    f"{arguments.changes} changes of {name}: {counts['requests']} requests, {counts['failed']} failed "
                    f"(receipts: {receipts}), {counts['half']} saw half of a change; the outer one "
                    f"{'stayed' if alone else 'rolled too'}",
                    flush=True,
                )
        finally:
            subprocess.run([SERVECONF, "shutdown"], env=environment, check=False, capture_output=True)


if __name__ == "__main__":
    main()
