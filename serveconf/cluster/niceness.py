"""The niceness of our processes.

Ray lets a worker start and import at nice 0, and sets it to 15 (``RAY_worker_niceness``) before it works: on a node whose cores are all
wanted, what serves then stands still while anything else starts.
"""

from __future__ import annotations

import contextlib
import os

SAID = "RAY_worker_niceness"  # by who runs Ray; its workers have it in their environment


def take_normal_priority() -> None:
    """All threads of this process work at nice 0, where Ray was not told what to use.

    Linux asks for CAP_SYS_NICE or RLIMIT_NICE; where that is missing nothing changes.
    """
    if SAID in os.environ:
        return
    with contextlib.suppress(OSError):
        for thread in map(int, os.listdir("/proc/self/task")):
            with contextlib.suppress(ProcessLookupError):  # it has ended
                if os.getpriority(os.PRIO_PROCESS, thread) > 0:
                    os.setpriority(os.PRIO_PROCESS, thread, 0)
