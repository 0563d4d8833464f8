"""What every actor's process sets up before anything else."""

from __future__ import annotations

import contextlib
import resource

from serveconf.cluster.logs import write_logs


def set_up_process() -> None:
    """Write our log lines; allow as many open files as the system lets us, for each connection is one."""
    write_logs()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # some systems say "unlimited" and refuse it
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
