"""At which niceness a process of ours works: where it may choose, where it may not, and where somebody else has chosen."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

CHILD = """
import json, os, sys, threading
from serveconf.cluster.niceness import work_as_it_started

threading.Thread(target=threading.Event().wait, daemon=True).start()  # as those of Ray, which are there before
if sys.argv[1] != "0":
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
work_as_it_started()
print(json.dumps(sorted(os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir("/proc/self/task"))))
"""
PARENT = """
import os, subprocess, sys

code, user, began_at, own = sys.argv[1:]
os.setpriority(os.PRIO_PROCESS, 0, int(own))
command = [sys.executable, "-c", code, user]
subprocess.run(command, preexec_fn=lambda: os.setpriority(os.PRIO_PROCESS, 0, int(began_at)), check=True)
"""
SAID = "RAY_worker_niceness"
NOBODY = "65534"


def niceness(began_at: int, said: str | None = None, user: str = "0", parent: int = 0) -> list[int]:
    """Of each thread of a process that began at that niceness, below a process of another one."""
    env = {**{name: value for name, value in os.environ.items() if name != SAID}, **({SAID: said} if said else {})}
    done = subprocess.run(
        [sys.executable, "-c", PARENT, CHILD, user, str(began_at), str(parent)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[int] = json.loads(done.stdout)
    return found


@pytest.fixture
def may_choose() -> None:
    """A process here may have a lower niceness than it began with, and any user."""
    try:
        found = niceness(-3, user=NOBODY)
    except subprocess.SubprocessError:
        found = []
    if found != [-3, -3]:
        pytest.skip("needs root and CAP_SYS_NICE")


@pytest.mark.usefixtures("may_choose")
def test_all_threads_work_at_the_niceness_of_the_process_that_has_started_them() -> None:
    assert niceness(15) == [0, 0]
    assert niceness(15, parent=7) == [7, 7]


@pytest.mark.usefixtures("may_choose")
def test_a_process_that_comes_before_others_already_goes_on_to() -> None:
    assert niceness(-3) == [-3, -3]


@pytest.mark.usefixtures("may_choose")
def test_who_may_not_works_as_ray_has_it() -> None:
    assert niceness(15, user=NOBODY) == [15, 15]


def test_what_ray_was_told_is_left_as_it_is() -> None:
    assert niceness(15, said="15") == [15, 15]
