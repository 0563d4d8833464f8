"""Hundreds of code changes in a row under load, which ``serveconf watch`` follows: what is left of them? By hand:

    python tests/e2e/changes.py [--changes 500] [--every 50] [--minutes 20]

Each save comes as soon as the one before it answers. All the while eight connections ask the deployment that changes and one that
does not, and no request may fail. In between, when all is quiet: processes, and memory, threads, files and sockets of whatever
lives on, Ray's own too; files and sockets below the folders of Ray and serveconf. Their numbers must not grow with the changes.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import stat
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from load import Load
from place import COMMAND, Place, ask, until

LIVE_S = 60.0  # after so long a change is not live
QUIET_S = 90.0
WARM = 25  # changes before the first look: pools and caches fill
MODULE = """import os
from fastapi import FastAPI
app = FastAPI()

@app.get("/")
def answer() -> dict:
    return {"said": "%s"}
"""
SPEC = """name: changing
http_options: {port: %d}
deployments:
  - {name: edited, import_path: "edited:app"}
  - {name: steady, import_path: "steady:app"}
"""
LONG_LIVED = ("controller", "proxy", "second proxy", "watcher", "raylet", "gcs_server")
Look = dict[str, Any]


class Changes:
    """A place with one stack, and its watcher."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.folder = place.root / "stack"
        self.folder.mkdir()
        (place.root / "tmp").mkdir()
        place.env["TMPDIR"] = str(place.root / "tmp")
        (self.folder / "serve.yaml").write_text(SPEC % place.http_port)
        for module in ("edited", "steady"):
            (self.folder / f"{module}.py").write_text(MODULE % "w0")
        place.ok("apply", self.folder / "serve.yaml")
        ready = place.root / "ready"
        with (place.root / "watch.log").open("wb") as log:
            self.watcher = subprocess.Popen(
                [str(COMMAND), "watch", str(self.folder / "serve.yaml"), "--ready-file", str(ready)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=place.env,
            )  # fmt: skip
        until(ready.exists, "the watcher is ready")

    def change(self, number: int) -> float:
        """Seconds from a save to its answer."""
        began = time.monotonic()
        (self.folder / "edited.py").write_text(MODULE % f"w{number}")
        while f'"w{number}"' not in ask(f"{self.place.url}/edited/")[1]:
            assert time.monotonic() - began < LIVE_S, f"change {number} is not live\n{self.tail()}"
            time.sleep(0.005)
        return time.monotonic() - began

    def tail(self) -> str:
        """The watcher's last words."""
        return "\n".join((self.place.root / "watch.log").read_text().splitlines()[-15:])

    def is_quiet(self) -> bool:
        """Nothing starts or drains; two replicas and two proxies are there, and a standby. A proxy that stood by serves, where
        the other one was silent for a while.
        """
        status = self.place.status()
        replicas = [r for s in status["stacks"] for d in s["deployments"] for r in d["replicas"]]
        there = [*replicas, *status["standbys"], *status["proxies"]]
        return self.place.is_whole() and {one["state"] for one in there} == {"Ready"} and len(there) == 2 + 1 + 2

    def look(self) -> Look:
        """What is there, when all is quiet for three looks in a row."""
        quiet = 0
        ends = time.monotonic() + QUIET_S
        while quiet < 3:
            quiet = quiet + 1 if self.is_quiet() else 0
            assert time.monotonic() < ends, f"never quiet: {self.place.status()}"
            time.sleep(1)
        status = self.place.status()
        running = self.place.processes()
        standing_by = [one for one in status["standbys"] if one["kind"] == "proxy"]
        first, second = (one["pid"] for one in (*status["proxies"], *standing_by))
        pids = {
            "controller": status["controller"]["pid"],
            "proxy": first,
            "second proxy": second,
            "watcher": self.watcher.pid,
        }
        for line in running:
            pid, _, command = line.partition(" ")
            name = Path(command.split()[0]).name if command.split() else ""
            if name in ("raylet", "gcs_server"):
                pids[name] = int(pid)
        return {
            "processes": Counter(_role(line) for line in running),
            "lives": {role: _process(pids[role]) for role in LONG_LIVED if role in pids},
            "files": _files(self.place.root),
        }


def _role(line: str) -> str:
    """What runs there, without what differs from one to the next."""
    words = line.split()[1:]
    title = next((word for word in words if word.startswith("ray::")), "")
    if title:
        return re.sub(r"[^A-Za-z:_]+.*", "", title)
    named = [Path(word).name for word in words if not word.startswith("-")]
    return next((name for name in named if not name.startswith("python")), line)


def _process(pid: int) -> dict[str, float]:
    """Memory that is its own (MB), threads, open files, sockets."""
    folder = Path(f"/proc/{pid}")
    rows = (folder / "smaps_rollup").read_text().splitlines()
    own = sum(int(row.split()[1]) for row in rows if row.startswith("Private_"))
    ends = [os.readlink(one) for one in _listed(folder / "fd")]
    sockets = sum(end.startswith("socket:") for end in ends)
    return {
        "MB": round(own / 1024, 1),
        "threads": len(list((folder / "task").iterdir())),
        "files": len(ends) - sockets,
        "sockets": sockets,
    }


def _listed(folder: Path) -> Iterator[Path]:
    for one in folder.iterdir():
        if one.is_symlink():
            yield one


def _files(root: Path) -> dict[str, int]:
    """Files and sockets below the folders, and what they hold in MB; Ray's logs, of which each process has some, by themselves."""
    found: Counter[str] = Counter()
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                state = (Path(folder) / name).lstat()
            except FileNotFoundError:
                continue
            if stat.S_ISLNK(state.st_mode):
                continue
            kind = "sockets" if stat.S_ISSOCK(state.st_mode) else "logs" if "/logs" in folder else "files"
            found[kind] += 1
            found[f"{kind} KB"] += state.st_size // 1024
    return {key: value for key, value in sorted(found.items()) if value}


def run(here: Changes, changes: int, every: int, minutes: float) -> None:
    """Print each look; raises where a request failed, or where something grew."""
    took: list[float] = []
    looks: list[tuple[int, Look]] = []
    ends = time.monotonic() + 60 * minutes
    with Load(here.place.http_port, ["/edited/", "/steady/"]) as load:
        for number in range(1, changes + 1):
            took.append(here.change(number))
            if number == WARM or number % every == 0:
                looks.append((number, here.look()))
                _print(number, looks[-1][1], took, load.answers)
            assert not load.failures, load.failures[:5]
            if time.monotonic() > ends:
                print(f"the time is up after {number} changes")
                break
    print(
        f"{len(took)} changes, {load.answers} requests, {len(load.failures)} failed; "
        f"save to answer: median {statistics.median(took):.2f} s, p95 {sorted(took)[int(len(took) * 0.95)]:.2f} s"
    )
    (_, first), (_, last) = looks[0], looks[-1]
    assert last["processes"] == first["processes"], (first["processes"], last["processes"])


def _print(number: int, look: Look, took: list[float], answers: int) -> None:
    print(f"after {number}: median {statistics.median(took[-50:]):.2f} s, {answers} requests")
    print("  processes", sum(look["processes"].values()), dict(sorted(look["processes"].items())))
    for role, figures in look["lives"].items():
        print(f"  {role:14}", *(f"{value:g} {name}" for name, value in figures.items()))
    print("  below the folders", look["files"], flush=True)


def main() -> None:
    """By hand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=500)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=20.0)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing is left then either
    place = Place()
    here = None
    try:
        here = Changes(place)
        run(here, args.changes, args.every, args.minutes)
    finally:
        if here is not None:
            here.watcher.send_signal(signal.SIGTERM)
            here.watcher.wait(60)
        place.run("shutdown")
        left = place.processes()
        place.close()
    assert not left, left


if __name__ == "__main__":
    main()
