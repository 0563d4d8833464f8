"""What each part of the data plane is worth: the same load with it and without it, in turns.

    python benchmarks/data_plane_parts.py [--rounds 5] [--seconds 2] [--only lanes,strand]

Needs wrk. For each part two pairs of a proxy and a replica run, one of them without it, and the table shows medians: what
was measured, and what both processes of a pair have spent for it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import statistics
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import data_plane as bench
from data_plane_app import PREFIX, WITHOUT

from serveconf.local_ray import free_port

PARTS = {  # and the legs of data_plane.py that show it
    "buffers": ("down", "up"),
    "lanes": ("down", "up", "up64"),
    "reading past the parser": ("up",),
    "gathering": ("p4", "p64"),
    "strand": ("c1", "c16", "up64"),
    "waiting for small bodies": ("apart",),
    "large bodies on the fast path": ("up64", "mib"),
    "batching": ("c16", "c64"),
    "polling": ("c1", "echo"),
}
BENEATH = {"buffers": "lanes"}  # what has to be left out on both sides: buffers are there for data that takes no lane


@dataclass(frozen=True)
class Pair:
    """A proxy and its replica."""

    base: str
    pids: tuple[int, int]


@contextlib.contextmanager
def running(folder: Path, without: str) -> Iterator[Pair]:
    """Both, while they run."""
    path, secret, port = str(folder / "replica.sock"), secrets.token_hex(32), free_port()
    started: list[subprocess.Popen[bytes]] = []
    try:
        os.environ[WITHOUT] = without
        started.append(bench.start("replica", path, secret))
        bench.wait_for(lambda: os.path.exists(path))
        started.append(bench.start("proxy", str(port), path, secret))
        base = f"http://127.0.0.1:{port}{PREFIX}"
        bench.wait_for(lambda: urllib.request.urlopen(base + "/hello").status == 200)
        yield Pair(base, (started[1].pid, started[0].pid))
    finally:
        os.environ.pop(WITHOUT, None)
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(10)


def measure(part: str, rounds: int, seconds: int) -> None:
    """One part; a row for each of its legs."""
    with contextlib.ExitStack() as stack:
        without = BENEATH.get(part, ""), ",".join(filter(None, (BENEATH.get(part), part)))
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
        pairs = [
            stack.enter_context(running(folder, left_out)) for folder, left_out in zip(folders, without, strict=True)
        ]
        legs = bench.legs(seconds, folders[0])
        for name in PARTS[part]:
            found: list[tuple[float, float]] = []
            spent: list[tuple[float, float]] = []
            for number in range(rounds):
                values, cpu = [0.0, 0.0], [0.0, 0.0]
                for which in (0, 1) if number % 2 == 0 else (1, 0):
                    pair = pairs[which]
                    before = bench.cpu_seconds(pair.pids)
                    values[which] = legs[name].run(pair.base)
                    cpu[which] = bench.cpu_seconds(pair.pids) - before
                found.append((values[0], values[1]))
                spent.append((cpu[0], cpu[1]))
            show(part, legs[name].title, found, spent, seconds)


def show(
    part: str, title: str, found: list[tuple[float, float]], spent: list[tuple[float, float]], seconds: int
) -> None:
    """A row of the table."""
    with_it, without = bench.medians(found)
    ratio = statistics.median(one / other for one, other in found)
    row = f"{part:30}{title:46}{with_it:10.2f}{without:10.2f}{ratio:8.2f}"
    if "/s" in title:
        unit = 1e4 if "MB/s" in title else 1e6
        costs = [
            (a / (x * seconds) * unit, b / (y * seconds) * unit) for (a, b), (x, y) in zip(spent, found, strict=True)
        ]
        row += "{:10.1f}{:10.1f}".format(*bench.medians(costs))
    print(row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--only", default="", help="comma-separated: " + ", ".join(PARTS))
    arguments = parser.parse_args()
    only = set(filter(None, arguments.only.split(",")))
    print(f"{'':76}{'with':>10}{'without':>10}{'ratio':>8}{'us (or ms) of CPU':>20}")
    for part in PARTS:
        if not only or part in only:
            measure(part, arguments.rounds, arguments.seconds)


if __name__ == "__main__":
    main()
