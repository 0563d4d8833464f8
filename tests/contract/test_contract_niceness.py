"""At which niceness a process of ours works: where it may choose, where it may not, and where somebody else has chosen."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

CHILD = """
import json, os, sys, threading
from serveconf.cluster.niceness import take_normal_priority

threading.Thread(target=threading.Event().wait, daemon=True).start()  # as those of Ray, which are there before
if sys.argv[1] != "0":
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
take_normal_priority()
print(json.dumps(sorted(os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir("/proc/self/task"))))
"""
SAID = "RAY_worker_niceness"
NOBODY = "65534"


def niceness(began_at: int, said: str | None = None, user: str = "0") -> list[int]:
    """Of each thread of a process that began at that niceness."""
    env = {**{name: value for name, value in os.environ.items() if name != SAID}, **({SAID: said} if said else {})}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, user],
        env=env,
        preexec_fn=lambda: os.setpriority(os.PRIO_PROCESS, 0, began_at),
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[int] = json.loads(done.stdout)
    return found


def may_choose() -> bool:
    """Whether a process here may have a lower niceness than it began with."""
    return niceness(15) == [0, 0]


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not may_choose(), reason="who may not lower a niceness can't see it done"
)


@needs_root
def test_all_threads_work_at_the_niceness_at_which_others_start() -> None:
    assert niceness(15) == [0, 0]


@needs_root
def test_what_ray_was_told_is_left_as_it_is() -> None:
    assert niceness(15, said="15") == [15, 15]


@needs_root
def test_a_process_that_comes_before_others_already_goes_on_to() -> None:
    assert niceness(-3) == [-3, -3]


@needs_root
def test_who_may_not_works_as_ray_has_it() -> None:
    assert niceness(15, user=NOBODY) == [15, 15]
