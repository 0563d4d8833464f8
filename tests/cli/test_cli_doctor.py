"""``doctor``: each thing that can be in the way is found, with what to do; a good machine gets no complaint."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from serveconf.cli.doctor import render
from serveconf.cli.parser import app
from serveconf.doctor.checks import Finding, Grade, examine
from serveconf.doctor.leftovers import Leftovers
from serveconf.doctor.machine import Folder, Left, Machine, Package, Port, look_at_machine
from serveconf.home import Record, write_record
from serveconf.local_ray import free_port

GIB = 2**30
GOOD = Machine(
    version="1",
    python=(3, 12, 1),
    platform="linux",
    packages=(Package(name="ray", least="2.54", installed="2.60.0"), Package(name="httpx", least="0.28", installed="0.28.1")),
    cpus=2,
    memory_bytes=8 * GIB,
    shm_bytes=4 * GIB,
    open_files=(1024, 65536),
    clock_ahead_s=-5.0,
    folders=(Folder(path="/home/a/.serveconf", private=True, mode=0o700), Folder(path="/tmp", private=False, free_bytes=9 * GIB)),
    temp_path="/tmp/serveconf-1000/ray",
    ports=(Port(number=8001, purpose="the control API"), Port(number=8000, purpose="HTTP")),
    left=Left(),
    ray_address=None,
    ray_answers=False,
)  # fmt: skip


def complaints(**changed: Any) -> list[tuple[str, str, str]]:
    """Subject, grade and message of what is not well; each with a hint."""
    found = [finding for finding in examine(replace(GOOD, **changed)) if finding.grade is not Grade.OK]
    assert all(finding.hint for finding in found)
    return [(finding.subject, str(finding.grade), finding.message) for finding in found]


def test_a_good_machine_gets_no_complaint() -> None:
    assert complaints() == []
    assert all(finding.hint is None for finding in examine(GOOD))


@pytest.mark.parametrize(
    ("python", "platform", "grade"),
    [((3, 10, 9), "linux", "error"), ((2, 7, 18), "linux", "error"), ((3, 12, 0), "darwin", "warning")],
)
def test_another_python_or_platform(python: tuple[int, int, int], platform: str, grade: str) -> None:
    (found,) = complaints(python=python, platform=platform)
    assert found[:2] == ("python", grade)


@pytest.mark.parametrize(
    ("package", "message"),
    [
        (Package(name="uvicorn", least="0.54", installed=None), "uvicorn is not installed"),
        (Package(name="ray", least="2.54", installed="2.9.3"), "ray 2.9.3 is older than 2.54"),
        (Package(name="pydantic", least="2.12", installed="2.12.0rc1+local"), None),
        (Package(name="pydantic", least="2.12.1", installed="2.12"), "pydantic 2.12 is older than 2.12.1"),
    ],
)
def test_packages_that_are_missing_or_old(package: Package, message: str | None) -> None:
    assert complaints(packages=(package,)) == ([("packages", "error", message)] if message else [])


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"memory_bytes": 300 * 2**20}, ("memory", "warning", "300 MiB available")),
        ({"memory_bytes": 0}, ("memory", "warning", "0 MiB available")),
        ({"memory_bytes": None}, None),
        ({"shm_bytes": 64 * 2**20}, ("/dev/shm", "warning", "64 MiB free")),
        ({"shm_bytes": 0}, ("/dev/shm", "warning", "0 MiB free")),
        ({"shm_bytes": None}, None),
        ({"open_files": (256, 1024)}, ("open files", "warning", "at most 1024 (now 256)")),
        ({"open_files": (1024, -1)}, None),
        ({"open_files": (256, 4095)}, ("open files", "warning", "at most 4095 (now 256)")),
        ({"clock_ahead_s": 86400.0}, ("clock", "warning", "it is 86400 s behind the files of this installation")),
        ({"clock_ahead_s": 61.0}, ("clock", "warning", "it is 61 s behind the files of this installation")),
        ({"clock_ahead_s": 59.0}, None),
        ({"temp_path": "/very/long" * 8}, ("folders", "error", f"{'/very/long' * 8} is too long for the sockets of Ray")),
        ({"ray_address": "10.0.0.1:6379"}, None),
        ({"ray_answers": True}, None),
    ],
)  # fmt: skip
def test_what_there_is_too_little_of(changed: dict[str, Any], complaint: tuple[str, str, str] | None) -> None:
    assert complaints(**changed) == ([complaint] if complaint else [])


@pytest.mark.parametrize(
    ("folder", "grade", "message"),
    [
        (Folder(path="/h", private=True, mode=0o755), "error", "/h can be looked into by others"),
        (Folder(path="/h/cluster.json", private=True, mode=0o640), "error", "/h/cluster.json can be looked into by others"),
        (Folder(path="/h", private=True, mode=0o700, is_ours=False), "error", "/h belongs to someone else"),
        (Folder(path="/h", private=True, is_writable=False), "error", "/h cannot be written to"),
        (Folder(path="/tmp", private=False, mode=0o1777, free_bytes=GIB // 2), "warning", "512 MiB free at /tmp"),
    ],
)  # fmt: skip
def test_folders(folder: Folder, grade: str, message: str) -> None:
    assert complaints(folders=(folder,)) == [("folders", grade, message)]


def test_nobody_is_told_to_remove_what_is_somebody_elses() -> None:
    (found,) = (
        one for one in examine(replace(GOOD, folders=(Folder(path="/h", private=True, is_ours=False),))) if one.hint
    )
    assert found.hint is not None and "TMPDIR" in found.hint and "remove" not in found.hint


@pytest.mark.parametrize(
    ("port", "grade", "message"),
    [
        (Port(number=8000, purpose="HTTP", holder="nginx (pid 7)"), "error", "8000 for HTTP is taken by nginx (pid 7)"),
        (Port(number=80, purpose="HTTP", holder=""), "error", "80 for HTTP is taken"),
        (Port(number=8001, purpose="the control API", holder="x"), "warning", "8001 for the control API is taken by x"),
    ],
)
def test_ports(port: Port, grade: str, message: str) -> None:
    assert complaints(ports=(port,)) == [("ports", grade, message)]


@pytest.mark.parametrize(
    ("left", "messages"),
    [
        (Left(address="http://127.0.0.1:8001", answers=True, ray_pid=3), []),
        (Left(address="http://127.0.0.1:8001"), ["http://127.0.0.1:8001 is remembered, and nobody answers there"]),
        (
            Left(address="http://127.0.0.1:8001", ray_pid=3),
            ["the Ray of a former run still runs (pid 3), and no controller answers"],
        ),
        (
            Left(folders=Leftovers(removable=("/tmp/serveconf-1/a", "/tmp/serveconf-1/ray/b"))),
            ["2 folders of clusters and Rays that have ended, yours and unused here for an hour"],
        ),
        (
            Left(folders=Leftovers(with_data=("/tmp/serveconf-1/a",))),
            ["1 folder of clusters that have ended, with files that apps have written among their code"],
        ),
        (Left(other_rays=(4, 5)), []),
    ],
)
def test_what_former_runs_have_left(left: Left, messages: list[str]) -> None:
    assert [message for _, _, message in complaints(left=left)] == messages


def test_findings_are_lines_with_what_to_do_below() -> None:
    found = [
        Finding(subject="ports", grade=Grade.ERROR, message="taken", hint="stop it"),
        Finding(subject="ray", grade=Grade.OK, message="none"),
    ]
    assert render(found, color=False) == "FAIL  ports  taken\n             → stop it\nok    ray    none"
    assert "\x1b[31mFAIL\x1b[0m" in render(found, color=True)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, with nobody at its address."""
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SERVECONF_ADDRESS", f"http://127.0.0.1:{free_port()}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_machine_is_looked_at_as_it_is(place: Path) -> None:
    write_record(Record(address=os.environ["SERVECONF_ADDRESS"], token="t"))
    (place / "home" / "cluster.json").chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = look_at_machine(("127.0.0.1", taken.getsockname()[1]), os.environ["SERVECONF_ADDRESS"])
    assert found.python[:2] >= (3, 11)
    assert next(p for p in found.packages if p.name == "ray").installed
    assert [(port.purpose, port.holder is None) for port in found.ports] == [("the control API", True), ("HTTP", False)]
    assert f"(pid {os.getpid()})" in (found.ports[1].holder or "")
    assert found.left.address == os.environ["SERVECONF_ADDRESS"] and not found.left.answers
    assert {folder.mode for folder in found.folders if folder.path.endswith("cluster.json")} == {0o644}


def test_what_is_left_is_removed_by_name_and_what_holds_data_is_not(place: Path) -> None:
    left = Leftovers(removable=("/tmp/serveconf-1/a", "/tmp/serveconf-1/ray/b"), with_data=("/tmp/serveconf-1/c",))
    removable, data = (finding.hint for finding in examine(replace(GOOD, left=Left(folders=left))) if finding.hint)
    assert removable.endswith("shares /tmp/serveconf-1: rm -r /tmp/serveconf-1/a /tmp/serveconf-1/ray/b")
    assert "rm" not in data.split() and data.endswith(": /tmp/serveconf-1/c")


@pytest.mark.parametrize("port_is_taken", [False, True])
def test_the_command_says_what_it_found(place: Path, port_is_taken: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] if port_is_taken else free_port()
        (place / "serve.yaml").write_text(f"http_options: {{port: {port}}}\n")
        done = CliRunner().invoke(app, ["doctor", "serve.yaml", "-o", "json"])
    told = json.loads(done.stdout)
    assert done.exit_code == (0 if told["ok"] else 1)
    about = next(one for one in told["findings"] if one["message"].startswith(f"{port} for HTTP"))
    assert about["grade"] == ("error" if port_is_taken else "ok")
    assert f"{port} for HTTP" in CliRunner().invoke(app, ["doctor"]).stdout  # serve.yaml is meant
