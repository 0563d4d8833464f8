"""A Ray of serveconf's own on this machine, for those who have none running. Imports no Ray: it runs Ray's command.

It listens on loopback alone and asks for a token; its sockets and logs lie in a folder that only its user can enter, so
that no program takes it for a Ray of everybody. Everything that is started is in one session of processes (setsid), so
that stopping it leaves nothing and touches nobody else's.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType

from serveconf.disk import told_when_full
from serveconf.errors import OperatorError
from serveconf.home import LocalRay, home_folder, read_record
from serveconf.private import ours_in, own_folder, read_trusted, temp_folder
from serveconf.processes import listener_is_trusted, session, session_is_of, started_at
from serveconf.ray_env import MARK, PASS, access, clean_environment

START_S = 120.0
STOP_S = 4.0  # Ray drains its node when it is asked to stop; nothing of ours is left on it by then
READY = "Ray runtime started"
HOST = "127.0.0.1"
LAST_WORKER_PORT = 19_999  # `ray start` gives its workers those from 10,002 on
DEALT_OUT = Path("/proc/sys/net/ipv4/ip_local_port_range")
FIRST_DYNAMIC = 49_152  # RFC 6335

Tell = Callable[[str], None]

_ports: list[int] = []  # those that free_port may still tell


def ray_in_reach() -> str | None:
    """The address of a running cluster: what RAY_ADDRESS names, else the one that was started here, else that of this user.

    A file in a folder of everybody is believed where we, or root, have written it, and nobody else listens there by now.
    """
    named = os.environ.get("RAY_ADDRESS")
    if named:
        return named
    ours = read_record().ray
    if ours is not None and is_running(ours):
        return ours.address
    address = (read_trusted(temp_folder() / "ray" / "ray_current_cluster") or b"").decode(errors="replace").strip()
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or not _answers(host, int(port)) or not listener_is_trusted(host, int(port)):
        return None
    return address


def access_to(address: str | None) -> dict[str, str]:
    """What the environment of a process that connects to the Ray at ``address`` must hold; None: one that is yet to start."""
    ours = read_record().ray
    return access() if address is None or (ours is not None and ours.address == address) else {}


def start_local_ray(tell: Tell, shell: Mapping[str, str] = os.environ) -> LocalRay:
    """Start Ray here and wait until it runs. Raises OperatorError with Ray's own last lines where it does not."""
    tell(
        f"no Ray cluster in reach: starting a local one; of this shell's variables apps get few ({PASS}=NAME,… for more)"
    )
    port = free_port()
    log = home_folder() / "ray.log"
    mark = secrets.token_hex(16)
    command = [
        *_ray_command(),
        "start",
        "--head",
        "--block",
        f"--node-ip-address={HOST}",
        f"--port={port}",
        f"--temp-dir={_folder()}",
        "--include-dashboard=false",
        "--disable-usage-stats",
    ]
    process = None
    ray = LocalRay(pid=0, address=f"{HOST}:{port}", mark=mark)
    try:
        with (
            told_when_full("Ray's log", log.parent),
            open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output,
            _ctrl_c_later(),
        ):
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=home_folder(),
                env=clean_environment(shell, mark),
            )
            ray = replace(ray, pid=process.pid, started=started_at(process.pid))
        _wait_started(process, log)
    except BaseException:  # Ctrl-C too: a Ray that did not come up must not stay
        if process is not None:
            stop_local_ray(ray)
        raise
    process.returncode = 0  # it lives on by itself; a Popen that nobody waits for warns in a process that goes on
    return ray


def _folder() -> Path:
    """Where Ray keeps its sockets and logs. Ray opens its own folder to everybody, so it lies in one that is ours alone.

    Short, because a socket's path holds 107 bytes.
    """
    place = temp_folder()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"Ray's files can't lie in {place}: {error.strerror}", hint="see RAY_TMPDIR") from error
    return own_folder(ours_in(place)) / "ray"


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
    if not is_running(ray):  # ended already: its number may be somebody else's by now
        return
    for wait_s, number in ((STOP_S, signal.SIGTERM), (30.0, signal.SIGKILL)):
        deadline = time.monotonic() + wait_s
        for pid in _pids(ray) if number == signal.SIGKILL else [ray.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while _pids(ray) and time.monotonic() < deadline:
            _reap(ray.pid)
            time.sleep(0.05)
        if not _pids(ray):
            return


def is_running(ray: LocalRay) -> bool:
    """Whether anything of it is still there."""
    return session_is_of(ray.pid, ray.started, (MARK, ray.mark))


def _pids(ray: LocalRay) -> list[int]:
    """Its live processes. As long as one is there, the session's number is given to nobody else."""
    return [process.pid for process in session(ray.pid)]


def free_port() -> int:
    """A TCP port that nobody has just now, nor is dealt out to before it is listened on: one that the kernel gives neither to
    an outgoing connection nor to who asks for any port, as Ray's own processes do; a process is told each one once.
    """
    for port in _ports_left():
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return int(probe.getsockname()[1])
    with socket.socket() as probe:  # the kernel deals out all of them here
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _ports_left() -> Iterator[int]:
    if not _ports:
        _ports.extend(range(LAST_WORKER_PORT + 1, _first_dealt_out()))
        random.shuffle(_ports)
    while _ports:
        yield _ports.pop()


def _first_dealt_out() -> int:
    try:
        return int(DEALT_OUT.read_text().split()[0])
    except (OSError, ValueError, IndexError):  # no Linux
        return FIRST_DYNAMIC


def _wait_started(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while READY not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(errors="replace").strip().splitlines()[-5:]
            raise OperatorError(
                "Ray did not start:\n  " + "\n  ".join(lines), hint=f"its log: {log}", code="ray_failed"
            )
        time.sleep(0.05)


def _ray_command() -> list[str]:
    """Ray's command of this environment."""
    beside = Path(sys.executable).parent / "ray"
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "ray.scripts.scripts"]


def _reap(pid: int) -> None:
    """Collect the launcher where it is our child."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except (OSError, ValueError):
        return False
