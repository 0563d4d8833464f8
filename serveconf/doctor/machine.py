"""What of this machine matters to serveconf, looked at once: plain facts, for ``checks`` to judge. Changes nothing."""

from __future__ import annotations

import importlib.metadata
import os
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from serveconf import __version__
from serveconf.client import Client
from serveconf.control_port import DEFAULT_ADDRESS, LOOPBACK, control_place
from serveconf.doctor.leftovers import Leftovers, look_for_leftovers
from serveconf.home import read_record
from serveconf.local_ray import is_running, ray_in_reach
from serveconf.private import ours_in, temp_folder
from serveconf.proxy.ports import find_listener, port_is_free


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package that is needed: the least version, and the one that is installed."""

    name: str
    least: str
    installed: str | None


@dataclass(frozen=True, kw_only=True)
class Port:
    """A port that is needed, for what, and who has it: None where it is free, "" where nobody can tell."""

    number: int
    purpose: str
    holder: str | None = None


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder of ours. ``mode``: None where it is not there yet."""

    path: str
    private: bool  # whether nobody else may look into it
    mode: int | None = None
    is_ours: bool = True
    is_writable: bool = True
    free_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Left:
    """What former runs have left: the address that is remembered, the Ray that was started, folders."""

    address: str = ""
    answers: bool = False  # whether a controller answers at that address
    ray_pid: int | None = None  # of a Ray that serveconf has started and that still runs
    folders: Leftovers = field(default_factory=Leftovers)
    other_rays: tuple[int, ...] = ()  # processes of Rays that serveconf did not start


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Everything that was looked at."""

    version: str
    python: tuple[int, int, int]
    platform: str
    packages: tuple[Package, ...]
    cpus: int
    memory_bytes: int | None  # available, within the container's limit
    shm_bytes: int | None  # free in /dev/shm
    open_files: tuple[int, int]  # soft and hard limit; -1: none
    clock_ahead_s: float  # by how much files of this installation are newer than now
    folders: tuple[Folder, ...]
    temp_path: str  # where a Ray of ours keeps its sockets
    ports: tuple[Port, ...]
    left: Left
    ray_address: str | None  # RAY_ADDRESS
    ray_answers: bool


def look_at_machine(http: tuple[str, int], address: str | None = None) -> Machine:
    """The facts. ``http``: host and port that the proxies would want; ``address``: where the control API should be."""
    record = read_record()
    address = address or record.address or DEFAULT_ADDRESS
    answers = _answers(address)
    return Machine(
        version=__version__,
        python=sys.version_info[:3],
        platform=sys.platform,
        packages=tuple(_packages()),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_memory(),
        shm_bytes=shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else None,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE),
        clock_ahead_s=max(path.stat().st_mtime for path in Path(__file__).parent.iterdir()) - time.time(),
        folders=tuple(_folders()),
        temp_path=str(ours_in(temp_folder()) / "ray"),
        ports=() if answers else tuple(_ports(address, http)),
        left=Left(
            address=record.address,
            answers=bool(record.address) and _answers(record.address),
            ray_pid=record.ray.pid if record.ray and is_running(record.ray) else None,
            folders=look_for_leftovers(_ours_in_temp()),
            other_rays=tuple(_other_rays(record.ray.pid if record.ray else None)),
        ),
        ray_address=os.environ.get("RAY_ADDRESS"),
        ray_answers=ray_in_reach() is not None,
    )


def _answers(address: str) -> bool:
    client = Client(address, "")
    try:
        return client.healthy()
    finally:
        client.close()


def _packages() -> Iterator[Package]:
    """What serveconf itself requires, but for its extras."""
    for line in importlib.metadata.requires("serveconf") or ():
        found = re.match(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?>=([0-9][^;,\s]*)", line)
        if found is None or "extra ==" in line:
            continue
        try:
            installed = importlib.metadata.version(found[1])
        except importlib.metadata.PackageNotFoundError:
            installed = None
        yield Package(name=found[1], least=found[2], installed=installed)


def _memory() -> int | None:
    """Bytes that can still be had: the system's, or what the container's limit leaves."""
    found: list[int] = []
    try:
        meminfo = Path("/proc/meminfo").read_text()
        if available := re.search(r"MemAvailable:\s+(\d+) kB", meminfo):
            found.append(int(available[1]) * 1024)
    except OSError:
        return None
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        if limit != "max":
            found.append(int(limit) - int((folder / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no limit, or another kind of cgroup
    return min(found, default=None)


def _folders() -> Iterator[Folder]:
    home = Path(os.environ.get("SERVECONF_HOME") or Path.home() / ".serveconf")
    yield _folder(home, private=True)
    yield _folder(home / "cluster.json", private=True)
    yield _folder(_ours_in_temp(), private=True)
    yield _folder(temp_folder(), private=False)


def _ours_in_temp() -> Path:
    return ours_in(Path(tempfile.gettempdir()))


def _folder(path: Path, *, private: bool) -> Folder:
    try:
        found = path.stat()
    except OSError:
        return Folder(path=str(path), private=private, is_writable=_may_be_made(path))
    return Folder(
        path=str(path),
        private=private,
        mode=found.st_mode & 0o777,
        is_ours=found.st_uid == os.getuid(),
        is_writable=os.access(path, os.W_OK),
        free_bytes=shutil.disk_usage(path).free,
    )


def _may_be_made(path: Path) -> bool:
    there = next((folder for folder in path.parents if folder.exists()), Path("/"))
    return os.access(there, os.W_OK)


def _ports(address: str, http: tuple[str, int]) -> Iterator[Port]:
    host, port = control_place(address)
    if host in LOOPBACK:
        yield _port(host, port, "the control API")
    yield _port(*http, "HTTP")


def _port(host: str, number: int, purpose: str) -> Port:
    holder = None if port_is_free(host, number) else find_listener(number) or ""
    return Port(number=number, purpose=purpose, holder=holder)


def _other_rays(own: int | None) -> Iterator[int]:
    """Head processes of Rays of this user that are in no session of ours."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "comm").read_text().strip() != "gcs_server" or folder.stat().st_uid != os.getuid():
                continue
            if os.getsid(int(folder.name)) != own:
                yield int(folder.name)
        except OSError:
            continue  # it has ended
