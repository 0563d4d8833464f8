"""The niceness of our processes.

Ray lets a worker start and import at its own niceness, mostly 0, and sets it to 15 (``RAY_worker_niceness``) before it works: on a node
whose cores are all wanted, what serves then stands still while anything else starts.
"""

from __future__ import annotations

import contextlib
import os

SAID = "RAY_worker_niceness"  # by who runs Ray; its workers have it in their environment


def work_as_it_started() -> None:
    """All threads of this process have the niceness of the raylet that has started it, where Ray was not told what to use.

    Linux asks for CAP_SYS_NICE or RLIMIT_NICE; where that is missing nothing changes.
    """
    if SAID in os.environ:
        return
    with contextlib.suppress(OSError):
        began_at = os.getpriority(os.PRIO_PROCESS, os.getppid())
        for thread in map(int, os.listdir("/proc/self/task")):
            with contextlib.suppress(ProcessLookupError):  # it has ended
                if os.getpriority(os.PRIO_PROCESS, thread) > began_at:
                    os.setpriority(os.PRIO_PROCESS, thread, began_at)
