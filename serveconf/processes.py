"""Whose process it is: sessions of processes that were started here, told from what has their numbers by now.

A number is given away again when its process has ended; so it is remembered with the time at which the process started
and with a mark in the environment of all that came of it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from serveconf.private import TRUSTED

if TYPE_CHECKING:
    import psutil

CLOCK_S = 1.0  # as far as a start may seem to move when the system's clock is set
LISTENING = "0A"  # linux/include/net/tcp_states.h: TCP_LISTEN


def started_at(pid: int) -> float:
    """When a process started, in seconds since the epoch; 0 where there is none."""
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return 0.0


def session_is_of(leader: int, started: float, mark: tuple[str, str]) -> bool:
    """Whether the session of that number is the one whose first process started then, or holds one that bears the mark."""
    return any(_is_of(process, leader, started, mark) for process in session(leader))


def session(leader: int) -> Iterator[psutil.Process]:
    """The live processes of a session, but for those that have ended and wait to be reaped."""
    import psutil

    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(pid) == leader and (process := psutil.Process(pid)).status() != psutil.STATUS_ZOMBIE:
                yield process


def _is_of(process: psutil.Process, leader: int, started: float, mark: tuple[str, str]) -> bool:
    import psutil

    try:
        name, value = mark
        if value and process.environ().get(name) == value:
            return True
    except psutil.Error:  # somebody else's
        return False
    return process.pid == leader and abs(process.create_time() - started) <= CLOCK_S


def listener_is_trusted(host: str, port: int) -> bool:
    """False where somebody else listens on that port of this machine. What runs elsewhere nobody can tell here."""
    import psutil

    if sys.platform != "linux":
        return True
    own = {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}
    return host not in {*own, "localhost"} or all(uid in TRUSTED for uid in _listeners(port))


def _listeners(port: int) -> Iterator[int]:
    """The users whose sockets listen on a TCP port (proc_pid_net(5))."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, _, _, _, uid, *_ = line.split()
                if state == LISTENING and int(local.rpartition(":")[2], 16) == port:
                    yield int(uid)
