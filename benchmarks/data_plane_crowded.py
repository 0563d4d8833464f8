"""What polling takes from others who want the cores: programs that compute, and one connection that asks without end.

    python benchmarks/data_plane_crowded.py [--rounds 3] [--seconds 3]

Needs wrk. For each number of such programs, in turns: nothing asked, asked with polling, asked without it. How much of their
work they still get done, what the connection sees, and what the replica spends.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import data_plane as bench

PROGRAM = """
import sys, time
done, found = 0, {}
until = time.perf_counter() + float(sys.argv[1])
while time.perf_counter() < until:
    for i in range(2000):
        found[i % 97] = found.get(i % 97, 0) + i
    done += 1
print(done)
"""
LONGER_S = 0.2  # than the load, at its beginning


def begin(number: int, seconds: float) -> list[subprocess.Popen[bytes]]:
    """Programs that use a core each, if they can have it."""
    command = [sys.executable, "-c", PROGRAM, str(seconds)]
    return [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(number)]


def end(programs: list[subprocess.Popen[bytes]]) -> int:
    """What they have got done."""
    return sum(int(program.communicate()[0]) for program in programs)


def measure(number: int, seconds: float) -> dict[str, tuple[float, float, float]]:
    """With polling and without: the share of their work that they get done, p50 in ms, cores that the replica used."""
    alone = end(begin(number, seconds + LONGER_S))
    found = {}
    for switch in ("1", "0"):
        os.environ["SERVECONF_POLLING"] = switch
        with tempfile.TemporaryDirectory() as folder, bench.processes(Path(folder)) as running:
            replica = running.pids[1][1]
            programs = begin(number, seconds + LONGER_S)
            before = bench.cpu_seconds((replica,))
            load = bench.wrk(running.bases[1] + "/hello", 1, seconds)
            cores = (bench.cpu_seconds((replica,)) - before) / seconds
            found[switch] = end(programs) / alone if number else 1.0, load.p50_ms, cores
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{'programs':>8}{'polling':>10}{'they keep':>12}{'p50 ms':>10}{'replica, cores':>16}")
    for number in range(4):
        rounds = [measure(number, arguments.seconds) for _ in range(arguments.rounds)]
        for switch, name in (("1", "yes"), ("0", "no")):
            kept, p50, cores = (
                statistics.median(values) for values in zip(*(one[switch] for one in rounds), strict=True)
            )
            print(f"{number:8}{name:>10}{kept:12.2f}{p50:10.2f}{cores:16.2f}", flush=True)


if __name__ == "__main__":
    main()
