"""Jobs in forked children of one warm process: each starts with what the parent has imported and leaves nothing behind.

A job that crashes, exits, hangs or changes global state takes only its own child with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Job = Callable[[], dict[str, Any]]

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.2  # how often a dead child is noticed whose own children keep its pipe open


@dataclass
class _Child:
    index: int
    pid: int
    pipe: int
    deadline: float
    received: bytes = b""


def run_forked(jobs: Sequence[Job], *, at_once: int, timeout_s: float | None) -> list[dict[str, Any] | str]:
    """The result of every job in order; for a child that gave none, the reason as a sentence's end."""
    results: list[dict[str, Any] | str] = ["did not run"] * len(jobs)
    waiting = list(enumerate(jobs))
    with selectors.DefaultSelector() as selector:
        while waiting or selector.get_map():
            while waiting and len(selector.get_map()) < at_once:
                index, job = waiting.pop(0)
                child = _start(index, job, timeout_s)
                selector.register(child.pipe, selectors.EVENT_READ, child)
            selector.select(_POLL_S)
            for key in list(selector.get_map().values()):
                child = key.data
                result = _look(child, timeout_s=timeout_s)
                if result is not None:
                    results[child.index] = result
                    selector.unregister(child.pipe)
                    os.close(child.pipe)
    return results


def _start(index: int, job: Job, timeout_s: float | None) -> _Child:
    sys.stdout.flush()
    sys.stderr.flush()
    read_end, write_end = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _be_child(job, write_end, parent)
    os.close(write_end)
    os.set_blocking(read_end, False)
    return _Child(index, pid, read_end, time.monotonic() + timeout_s if timeout_s is not None else float("inf"))


def _be_child(job: Job, pipe: int, parent: int) -> None:
    """Run the job, write its result, and leave without running anything that the user's code left for the exit."""
    status = 1
    try:
        os.setsid()  # so that whatever it starts can be ended with it
        _die_with(parent)
        data = json.dumps(job()).encode()
        with os.fdopen(pipe, "wb") as out:
            out.write(data + b"\n")
        status = 0
    except BaseException:  # noqa: BLE001 - the child must end here, whatever happens in it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _look(child: _Child, *, timeout_s: float | None) -> dict[str, Any] | str | None:
    """What has become of a child: its result, why there is none, or None while it runs."""
    pid, status = os.waitpid(child.pid, os.WNOHANG)  # first: what it wrote before it ended is then all there to be read
    closed = _read(child)
    if child.received.endswith(b"\n"):
        _end(child, pid)
        return json.loads(child.received)  # type: ignore[no-any-return]
    if pid:
        _kill_group(child.pid)
        return _reason(status)
    if closed:
        return _reason(_end(child, pid))
    if time.monotonic() > child.deadline:
        _end(child, pid)
        return f"did not end within {timeout_s:g} s"
    return None


def _read(child: _Child) -> bool:
    """Take in what it wrote so far; True where it closed its end."""
    while True:
        try:
            chunk = os.read(child.pipe, 1 << 16)
        except BlockingIOError:
            return False
        if not chunk:
            return True
        child.received += chunk


def _end(child: _Child, reaped: int) -> int:
    """Kill it with all that it started, unless it ends by itself; its exit status."""
    status = 0
    for _ in range(50):
        if reaped or time.monotonic() > child.deadline:
            break
        time.sleep(0.002)
        reaped, status = os.waitpid(child.pid, os.WNOHANG)
    _kill_group(child.pid)
    return status if reaped else os.waitpid(child.pid, 0)[1]


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left
        os.killpg(pid, signal.SIGKILL)


def _reason(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"ended the process by signal {number} ({signal.Signals(number).name})"
    return f"ended the process with exit code {os.WEXITSTATUS(status)}"
