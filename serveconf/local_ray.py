"""A Ray of serveconf's own on this machine, for those who have none running. Imports no Ray: it runs Ray's command.

Everything that is started is in one session of processes (setsid), so that stopping it leaves nothing and touches
nobody else's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from serveconf.errors import OperatorError
from serveconf.home import LocalRay, home_folder

START_S = 120.0
STOP_S = 4.0  # Ray drains its node when it is asked to stop; nothing of ours is left on it by then
READY = "Ray runtime started"

Tell = Callable[[str], None]


def ray_in_reach() -> str | None:
    """The address of a running cluster: what RAY_ADDRESS names, else the one that was started last here, if it answers."""
    named = os.environ.get("RAY_ADDRESS")
    if named:
        return named
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray"
    try:
        address = (folder / "ray_current_cluster").read_text().strip()
    except OSError:
        return None
    return address if _answers(address) else None


def start_local_ray(tell: Tell) -> LocalRay:
    """Start Ray here and wait until it runs. Raises OperatorError with Ray's own last lines where it does not."""
    tell("no Ray cluster in reach: starting a local one")
    port = free_port()
    log = home_folder() / "ray.log"
    command = [
        *_ray_command(),
        "start",
        "--head",
        "--block",
        f"--port={port}",
        "--include-dashboard=false",
        "--disable-usage-stats",
    ]
    process = None
    try:
        with open(log, "wb") as output, _ctrl_c_later():
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=home_folder(),
            )
        _wait_started(process, log)
    except BaseException:
        if process is not None:
            stop_local_ray(LocalRay(pid=process.pid, address=""))
        raise
    process.returncode = 0  # it lives on by itself; a Popen that nobody waits for warns in a process that goes on
    return LocalRay(pid=process.pid, address=_address_in(log, port))


@contextlib.contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """A Ctrl-C within, or what a command takes for one, is heard at the end: in the middle of a start it would leave a
    process that nobody knows."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[tuple[int, FrameType | None]] = []
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: handler for number in ends if callable(handler := signal.getsignal(number))}
    for number in before:
        signal.signal(number, lambda number, frame: heard.append((number, frame)))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard:
        before[signal.Signals(heard[0][0])](*heard[0])


def stop_local_ray(ray: LocalRay) -> None:
    """End what ``start_local_ray`` started: asked first, then by force; returns when no process of it is left."""
    for wait_s, number in ((STOP_S, signal.SIGTERM), (30.0, signal.SIGKILL)):
        deadline = time.monotonic() + wait_s
        for pid in _session(ray.pid) if number == signal.SIGKILL else [ray.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while _session(ray.pid) and time.monotonic() < deadline:
            _reap(ray.pid)
            time.sleep(0.05)
        if not _session(ray.pid):
            return


def is_running(ray: LocalRay) -> bool:
    """Whether anything of it is still there."""
    return bool(_session(ray.pid))


def free_port() -> int:
    """A TCP port that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_started(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while READY not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(errors="replace").strip().splitlines()[-5:]
            raise OperatorError(
                "Ray did not start:\n  " + "\n  ".join(lines), hint=f"its log: {log}", code="ray_failed"
            )
        time.sleep(0.05)


def _address_in(log: Path, port: int) -> str:
    """Ray picks the node's address by itself and tells it in its greeting."""
    for word in log.read_text(errors="replace").split():
        candidate = word.strip("'\"").removeprefix("--address='")
        if candidate.endswith(f":{port}"):
            return candidate
    return f"127.0.0.1:{port}"


def _ray_command() -> list[str]:
    """Ray's command of this environment."""
    beside = Path(sys.executable).parent / "ray"
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "ray.scripts.scripts"]


def _session(leader: int) -> list[int]:
    """The live processes of a session, but for those that have ended and wait to be reaped."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,stat="], capture_output=True, text=True, check=True).stdout
    pids = [int(pid) for pid, stat in (line.split()[:2] for line in listed.splitlines()) if not stat.startswith("Z")]
    found = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == leader:
                found.append(pid)
    return found


def _reap(pid: int) -> None:
    """Collect the launcher where it is our child."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1.0):
            return True
    except (OSError, ValueError):
        return False
