"""What of a machine is in the way of serving, and what to do about each. Pure: facts in, findings out."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from serveconf.doctor.leftovers import Leftovers
from serveconf.doctor.machine import Folder, Left, Machine, Package, Port

MIB = 1024 * 1024
LEAST_MEMORY = 1024 * MIB  # Ray itself, a controller, a proxy and a replica or two
LEAST_SHM = 256 * MIB
LEAST_FILES = 4096
LEAST_DISK = 1024 * MIB
LONGEST_TEMP = 43  # Ray's sockets lie 64 characters below it, and a socket's path holds 107
SKEW_S = 60.0


class Grade(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    grade: Grade
    message: str
    hint: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What ``doctor -o json`` prints."""
        return {**asdict(self), "grade": str(self.grade)}


def examine(machine: Machine) -> list[Finding]:
    """Everything that was looked at, each with its grade."""
    found = [_python(machine), *_packages(machine.packages), _memory(machine), _shm(machine), _files(machine)]
    found += [_clock(machine), *_folders(machine.folders), _temp(machine), *_ports(machine.ports)]
    found += [*_ray(machine), *_left(machine.left)]
    return found


def _finding(subject: str, wrong: Grade | None, message: str, hint: str | None = None) -> Finding:
    return Finding(subject=subject, grade=wrong or Grade.OK, message=message, hint=hint if wrong else None)


def _python(machine: Machine) -> Finding:
    version = ".".join(map(str, machine.python))
    wrong = None
    hint = "make a virtual environment with Python 3.11 or newer"
    if machine.python < (3, 11, 0):
        wrong = Grade.ERROR
    elif not machine.platform.startswith("linux"):
        wrong, hint = Grade.WARNING, "serveconf is tested on Linux; elsewhere some of its tricks are off"
    return _finding("python", wrong, f"Python {version} on {machine.platform}, {machine.cpus} CPUs", hint)


def _packages(packages: tuple[Package, ...]) -> Iterator[Finding]:
    for package in packages:
        needed = f"{package.name}>={package.least}"
        if package.installed is None:
            yield _finding("packages", Grade.ERROR, f"{package.name} is not installed", f"pip install '{needed}'")
        elif _numbers(package.installed) < _numbers(package.least):
            message = f"{package.name} {package.installed} is older than {package.least}"
            yield _finding("packages", Grade.ERROR, message, f"pip install -U '{needed}'")
        elif package.name == "ray":
            yield _finding("packages", None, f"ray {package.installed} and {len(packages) - 1} other packages")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _memory(machine: Machine) -> Finding:
    if machine.memory_bytes is None:
        return _finding("memory", None, "it cannot be told how much there is")
    wrong = Grade.WARNING if machine.memory_bytes < LEAST_MEMORY else None
    hint = "Ray, a controller, a proxy and a replica take about 1 GiB; each further replica about 105 MB"
    return _finding("memory", wrong, f"{_size(machine.memory_bytes)} available", hint)


def _shm(machine: Machine) -> Finding:
    if machine.shm_bytes is None:
        return _finding("/dev/shm", None, "there is none; Ray uses its temporary folder")
    wrong = Grade.WARNING if machine.shm_bytes < LEAST_SHM else None
    hint = "in a container give it more: docker run --shm-size=1g; in Kubernetes an emptyDir with medium: Memory"
    return _finding("/dev/shm", wrong, f"{_size(machine.shm_bytes)} free", hint)


def _files(machine: Machine) -> Finding:
    soft, hard = machine.open_files
    most = hard  # processes of serveconf raise their own limit to it
    wrong = Grade.WARNING if 0 <= most < LEAST_FILES else None
    shown = "no limit" if most < 0 or most >= 2**40 else f"at most {most} (now {soft})"
    return _finding(
        "open files", wrong, shown, "every connection is one: raise it with ulimit -n 65536, or LimitNOFILE"
    )


def _clock(machine: Machine) -> Finding:
    wrong = Grade.WARNING if machine.clock_ahead_s > SKEW_S else None
    message = (
        "it goes" if wrong is None else f"it is {machine.clock_ahead_s:.0f} s behind the files of this installation"
    )
    return _finding("clock", wrong, message, "set it: schedules, certificates and the history go by it")


def _folders(folders: tuple[Folder, ...]) -> Iterator[Finding]:
    for folder in folders:
        if not folder.is_ours and folder.private:
            hint = "leave it to him, and set SERVECONF_HOME or TMPDIR to a folder of yours"
            yield _finding("folders", Grade.ERROR, f"{folder.path} belongs to someone else", hint)
        elif not folder.is_writable:
            hint = f"chmod u+w {folder.path}; or set SERVECONF_HOME, TMPDIR or RAY_TMPDIR to another folder"
            yield _finding("folders", Grade.ERROR, f"{folder.path} cannot be written to", hint)
        elif folder.private and folder.mode is not None and folder.mode & 0o077:
            hint = f"chmod go= {folder.path}: it holds the token of the control API"
            yield _finding("folders", Grade.ERROR, f"{folder.path} can be looked into by others", hint)
        elif folder.free_bytes is not None and folder.free_bytes < LEAST_DISK and not folder.private:
            hint = "Ray stops to work when its disk is full: make room, or set RAY_TMPDIR"
            yield _finding("folders", Grade.WARNING, f"{_size(folder.free_bytes)} free at {folder.path}", hint)
        elif not folder.private:
            free = "" if folder.free_bytes is None else f", {_size(folder.free_bytes)} free"
            yield _finding("folders", None, f"{folder.path}{free}")


def _temp(machine: Machine) -> Finding:
    wrong = Grade.ERROR if len(machine.temp_path) > LONGEST_TEMP else None
    message = f"{machine.temp_path} is {'too long' if wrong else 'short enough'} for the sockets of Ray"
    return _finding("folders", wrong, message, "set RAY_TMPDIR to a short path, such as /tmp")


def _ports(ports: tuple[Port, ...]) -> Iterator[Finding]:
    for port in ports:
        wrong = None if port.holder is None else Grade.ERROR
        by = f" by {port.holder}" if port.holder else ""
        message = f"{port.number} for {port.purpose} is {'free' if wrong is None else f'taken{by}'}"
        if port.purpose == "HTTP":
            hint = "stop that program, or set http_options.port"
        else:
            wrong = wrong and Grade.WARNING  # without an address another port is taken
            hint = "the control API takes the next free port; SERVECONF_ADDRESS=http://127.0.0.1:PORT names one"
        yield _finding("ports", wrong, message, hint)


def _ray(machine: Machine) -> Iterator[Finding]:
    if machine.ray_address is not None:
        yield _finding("ray", None, f"RAY_ADDRESS names {machine.ray_address}")
    elif machine.ray_answers:
        yield _finding("ray", None, "a cluster runs here and will be used")
    else:
        yield _finding("ray", None, "none that would be used runs here; apply and run start one")


def _left(left: Left) -> Iterator[Finding]:
    if left.address and left.answers:
        yield _finding("left over", None, f"serveconf runs: {left.address}")
    elif left.ray_pid is not None:
        message = f"the Ray of a former run still runs (pid {left.ray_pid}), and no controller answers"
        yield _finding("left over", Grade.WARNING, message, "serveconf shutdown")
    elif left.address:
        message = f"{left.address} is remembered, and nobody answers there"
        yield _finding("left over", Grade.WARNING, message, "serveconf shutdown forgets it; apply and run start anew")
    yield from _left_folders(left.folders)
    if left.other_rays:
        pids = ", ".join(map(str, left.other_rays))
        yield _finding("left over", None, f"Rays that serveconf did not start run here (pid {pids})")
    if left == Left():
        yield _finding("left over", None, "nothing")


def _left_folders(folders: Leftovers) -> Iterator[Finding]:
    """What may go, and what has to be looked at before."""
    if folders.removable:
        message = f"{_many(folders.removable)} of clusters and Rays that have ended, yours and unused here for an hour"
        hint = f"if no other machine or container shares {_place(folders.removable)}: rm -r {shlex.join(folders.removable)}"
        yield _finding("left over", Grade.WARNING, message, hint)
    if folders.with_data:
        message = f"{_many(folders.with_data)} of clusters that have ended, with files that apps have written among their code"
        hint = f"save what you need before you remove any: {' '.join(folders.with_data)}"
        yield _finding("left over", Grade.WARNING, message, hint)


def _many(folders: tuple[str, ...]) -> str:
    return "1 folder" if len(folders) == 1 else f"{len(folders)} folders"


def _place(folders: tuple[str, ...]) -> str:
    return os.path.commonpath([os.path.dirname(folder) for folder in folders])


def _size(number: int) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / MIB:.0f} MiB"
