"""What Ray keeps of actors that have ended, in the process that had started them: memory in use by malloc, by the number of them.

    python benchmarks/ended_actors.py [--actors 60]

Nothing of serveconf is imported: it is what the controller's memory grows by with each replica and each standby that comes and goes.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import time

import ray

FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class Mallinfo(ctypes.Structure):
    """mallinfo2(3) of glibc."""

    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


def in_use() -> int:
    """Bytes that malloc has given out."""
    gc.collect()
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Mallinfo
    return int(mallinfo().uordblks)


class Actor:
    """Answers."""

    async def call(self) -> None:
        """Nothing."""


def main() -> None:
    """Print it after every ten."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", type=int, default=60)
    actors = parser.parse_args().actors
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    remote = ray.remote(Actor)
    first = 0
    for number in range(1, actors + 1):
        actor = remote.options(name=f"actor{number}", lifetime="detached", num_cpus=0.01).remote()
        for _ in range(10):
            ray.get(actor.call.remote())
        ray.kill(actor)
        del actor
        if number % 10 == 0:
            time.sleep(1)
            used = in_use()
            first = first or used
            each = f", {(used - first) / (number - 10) / 1e3:.1f} KB for each since 10" if number > 10 else ""
            print(f"{number} actors have ended: {used / 1e6:.2f} MB{each}", flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
