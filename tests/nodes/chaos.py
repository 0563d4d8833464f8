"""Faults at random on real Ray nodes under load from every living proxy: seeded, so that a run can be had once more.

    python tests/nodes/chaos.py --seed 7 --seconds 600 --connections 24

Each fault (``chaos_faults``: replicas, proxies, controller, raylet and GCS killed or frozen, nodes that end, drain or are cut off, full
disks, clocks that jump) is followed by the wait for all to be well again. Counted is how long ``status`` told something false meanwhile
("late": more than five seconds), and how long it took ("slow"). Counted as failed is what a proxy that lives,
and is reached, answers with anything but 200, by cause. What a visitor meets at a proxy that has just been killed, frozen or cut off is
counted beside, as excused. A seed is a sequence of faults and of who is struck; when each comes depends on the machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "e2e")]

from chaos_faults import FAULTS  # noqa: E402 - found by the path above
from chaos_scene import NODE, Scene, left_over  # noqa: E402
from machines import COMPILER, Machines  # noqa: E402

AFTER_S = 3.0  # what a visitor meets of a fault so long after it belongs to it
GHOSTS_S = 30.0  # how long something may run that nobody names: what starts, or ends
SOON_S = 5.0  # within which the status should be true again


class Chaos(Scene):
    """The scene, and one fault after the other."""

    def __init__(self, machines: Machines, seed: int, connections: int) -> None:
        super().__init__(machines, seed, connections)
        self.told: list[dict[str, Any]] = []

    def run(self, seconds: float, names: tuple[str, ...]) -> None:
        """Faults until the time is over, each healed before the next; every one comes before any comes again."""
        deadline = time.monotonic() + seconds
        bag: list[str] = []
        while time.monotonic() < deadline:
            if not bag:
                bag = self.random.sample(names, len(names))
            self.strike(bag.pop())

    def strike(self, name: str) -> None:
        """One fault, and how long the status takes to be true again after each of its events."""
        before = sum(self.load.counts.failed.values())
        self.load.window()
        self.events, self.whole, self.course = {}, {}, []
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        where = FAULTS[name](self)
        time.sleep(AFTER_S)
        failed = sum(self.load.counts.failed.values()) - before
        told = {"fault": name, "where": where, "failed": failed, "slowest_s": round(self.load.window(), 2)}
        self.told.append(
            {**told, "true_after_s": self.events, "well_after_s": self.whole, "ghosts": self._lasting_ghosts()}
        )
        print(json.dumps(self.told[-1]), flush=True)
        if any(map(is_late, self.whole.values())):
            print(*(f"    {line}" for line in self.course), sep="\n", flush=True)

    def _lasting_ghosts(self) -> list[str]:
        deadline = time.monotonic() + GHOSTS_S
        while (found := self._ghosts()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return found

    def _ghosts(self) -> list[str]:
        try:
            return self.ghosts()
        except AssertionError as error:  # nobody answers
            return [str(error)]

    def late(self, seconds: float = SOON_S) -> list[str]:
        """After which events the status told something false for longer than that."""
        return self._later_than(seconds, "true_after_s")

    def slow(self, seconds: float = SOON_S) -> list[str]:
        """After which events something was amiss for longer than that."""
        return self._later_than(seconds, "well_after_s")

    def _later_than(self, seconds: float, what: str) -> list[str]:
        events = [(told["fault"], event, took) for told in self.told for event, took in told[what].items()]
        return [f"{fault}, {event}: {took}" for fault, event, took in events if is_late(took, seconds)]


def is_late(took: float | str, seconds: float = SOON_S) -> bool:
    """Whether it took longer than that, or never came."""
    return isinstance(took, str) or took > seconds


def shake(
    seed: int, seconds: float, connections: int, only: tuple[str, ...] = (), logs: Path | None = None
) -> dict[str, Any]:
    """A whole run; what came of it."""
    names = only or tuple(name for name in FAULTS if name != "set a clock" or COMPILER is not None)
    machines = Machines()
    try:
        if shutil.which("redis-server") is not None:
            machines.keep_state_outside()
        if "set a clock" in names:
            machines.own_clocks()
        if "fill a disk" in names:
            machines.small_disks()
        for _ in range(3):
            machines.add(*NODE).joined()
        chaos = Chaos(machines, seed, connections)
        chaos.begin()
        broken = ""
        try:
            chaos.run(seconds, names)
        except (
            OSError,
            AssertionError,
            subprocess.SubprocessError,
        ) as error:  # of this script: the counts stand all the same
            broken = repr(error)
        chaos.load.end()
        began = time.monotonic()
        ended = machines.run("shutdown")
        took = round(time.monotonic() - began, 1)
        counts = chaos.load.counts
        return {
            "seed": seed,
            "requests": counts.requests,
            "failed": dict(counts.failed),
            "excused": counts.excused,
            "faults": len(chaos.told),
            "broken": broken,
            "late": chaos.late(),
            "slow": chaos.slow(),
            "ghosts": [told["ghosts"] for told in chaos.told if told["ghosts"]],
            "shutdown": {"code": ended.code, "seconds": took, "left": left_over(machines)},
        }
    finally:
        if logs is not None:
            machines.keep_logs(logs)
        machines.close()


def main() -> None:
    """The command line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing is left then either
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=24)
    parser.add_argument("--only", action="append", default=[], choices=FAULTS)
    parser.add_argument("--logs", type=Path, help="a folder for the logs of all nodes")
    args = parser.parse_args()
    print(json.dumps(shake(args.seed, args.seconds, args.connections, tuple(args.only), args.logs), indent=1))


if __name__ == "__main__":
    main()
