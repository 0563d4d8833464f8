"""From the save of a route or of a middleware to the first answer that shows it, with ``serveconf run`` on a terminal, a load
running, and old replicas that still answer long requests. By hand:

    python tests/e2e/saves.py [--edits 30] [--pause 0]

Each save comes as soon as the one before it is live. Before every fifth the code of another deployment is changed, whose old
replica has a request of ``LONG_S`` to end then; before the tenth, the twentieth, … of two deployments.
"""

from __future__ import annotations

import argparse
import http.client
import os
import pty
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from edited import ADDED
from load import Load
from place import COMMAND, Place, until

LONG_S = 12.0
EVERY = 5
LIVE_S = 30.0  # after so long a save is not live
LONG = """
import asyncio

async def app(request):
    if "long" in request.query_params:
        await asyncio.sleep(float(request.query_params["long"]))
    return {"said": "%s"}
"""
SPEC = """name: saved
http_options: {{port: {port}}}
defaults: {{ray_actor_options: {{num_cpus: 0.05}}, graceful_shutdown_timeout_s: 30}}
deployments:
  - {{name: steady, import_path: 'steady:app'}}
  - {{name: long0, import_path: 'long0:app'}}
  - {{name: long1, import_path: 'long1:app'}}
  - name: edited
    import_path: steady:app
    route_prefix: {prefix}
    middlewares: [{{import_path: 'added:Adds', kwargs: {{value: {added}}}}}]
"""


class Saves:
    """A folder, a ``run`` of it on a terminal, and what was seen."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.folder = place.root / "app"
        self.folder.mkdir()
        self.screen = bytearray()
        self.prefix, self.added = "/edited", "first"
        self.took: dict[str, list[float]] = {"route": [], "middleware": []}
        self.long: list[int] = []  # statuses of the long requests
        self.asking: list[threading.Thread] = []
        self.write("added", ADDED)
        self.write("steady", LONG % "steady")
        for name in ("long0", "long1"):
            self.write(name, LONG % "first")
        self.spec()
        self.connection = http.client.HTTPConnection("127.0.0.1", place.http_port, timeout=60)

    def write(self, module: str, text: str) -> None:
        (self.folder / f"{module}.py").write_text(text)

    def spec(self) -> None:
        text = SPEC.format(port=self.place.http_port, prefix=self.prefix, added=self.added)
        (self.folder / "serve.yaml").write_text(text)

    def run(self) -> subprocess.Popen[bytes]:
        """``serveconf run`` on a terminal of its own."""
        terminal, its = pty.openpty()
        process = subprocess.Popen(
            [str(COMMAND), "run", str(self.folder / "serve.yaml")],
            stdin=its, stdout=its, stderr=its, env={**self.place.env, "TERM": "xterm"}, start_new_session=True,
        )  # fmt: skip
        os.close(its)
        threading.Thread(target=self._read, args=(terminal,), daemon=True).start()
        return process

    def _read(self, terminal: int) -> None:
        try:
            while part := os.read(terminal, 65536):
                self.screen += part
        except OSError:  # who wrote has ended
            os.close(terminal)

    def ask(self, path: str) -> tuple[int, bytes, str | None]:
        """Status, body and the middleware's header."""
        try:
            self.connection.request("GET", path)
            answer = self.connection.getresponse()
            return answer.status, answer.read(), answer.getheader("x-added")
        except (OSError, http.client.HTTPException):  # nobody listens yet
            self.connection.close()
            return 0, b"", None

    def is_live(self) -> bool:
        status, _, added = self.ask(self.prefix)
        return status == 200 and added == self.added

    def save(self, number: int) -> None:
        """One edit, until it is live."""
        before = self.prefix
        kind = ("route", "middleware")[number % 2]
        if kind == "route":
            self.prefix = f"/edited{number}"
        else:
            self.added = f"v{number}"
        began = time.monotonic()
        self.spec()
        while not (self.is_live() and (kind != "route" or self.ask(before)[0] == 404)):
            assert time.monotonic() < began + LIVE_S, self.screen.decode(errors="replace")[-4000:]
            time.sleep(0.002)
        self.took[kind].append(time.monotonic() - began)
        print(f"{number}: {kind} {self.took[kind][-1]:.3f} s", flush=True)

    def roll(self, name: str, word: str) -> None:
        """New code for a deployment that has a long request to end; returns when the new one answers."""
        thread = threading.Thread(target=self._ask_long, args=(name,))
        thread.start()
        self.asking.append(thread)
        time.sleep(0.3)
        self.write(name, LONG % word)
        until(lambda: word.encode() in self.ask(f"/{name}")[1], "the new code answers")

    def _ask_long(self, name: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.place.http_port, timeout=60)
        try:
            connection.request("GET", f"/{name}?long={LONG_S}")
            self.long.append(connection.getresponse().status)
        except (OSError, http.client.HTTPException):
            self.long.append(0)
        connection.close()


def measure(place: Place, edits: int, pause: float) -> None:
    """All of it, and a report."""
    here = Saves(place)
    process = here.run()
    try:
        until(here.is_live, "it serves", 120)
        time.sleep(3)
        with Load(place.http_port, ["/steady"]) as load:
            for number in range(1, edits + 1):
                if number % EVERY == 0:
                    for name in ("long0", "long1")[: 1 + (number % (2 * EVERY) == 0)]:
                        here.roll(name, f"w{number}")
                here.save(number)
                time.sleep(pause)
            for thread in here.asking:
                thread.join()
        process.send_signal(signal.SIGINT)
        code = process.wait(60)
    finally:
        process.kill()
        process.wait()
    for kind, took in here.took.items():
        print(f"{kind}: median {statistics.median(took):.2f} s, worst {max(took):.2f} s of {len(took)}")
    print(f"{load.answers} requests beside, {len(load.failures)} failed {load.failures[:3]}")
    print(f"{len(here.long)} long requests, {sum(status != 200 for status in here.long)} failed; run ended with {code}")
    Path(os.environ.get("SCREEN", os.devnull)).write_bytes(here.screen)
    assert not load.failures and set(here.long) == {200} and code == 0


def main() -> None:
    """By hand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=30)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between a save that is live and the next")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing is left then either
    place = Place()
    try:
        measure(place, args.edits, args.pause)
    finally:
        place.run("shutdown")
        place.close()


if __name__ == "__main__":
    main()
