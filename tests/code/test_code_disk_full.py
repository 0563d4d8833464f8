"""A disk that is full: an error with a name, nothing half-written, and what was there before is there still.

The disk is a small tmpfs where a test may mount one, else this process may write no large file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from serveconf.admin.failures import answer_fault
from serveconf.code.package import pack
from serveconf.code.snapshot import take_snapshot
from serveconf.disk import DiskFull, write_whole
from serveconf.private import write_private
from serveconf.proxy.access_log import AccessLog
from serveconf.proxy.tally import Trail
from serveconf.reconcile.packages import Packages
from serveconf.runtime.shared_output import be_patient
from serveconf.testing import MemoryStore

FITS, TOO_MUCH = 20_000, 600_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for 200 kB, or for files of that size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(folder)]
    if os.getuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        yield folder
        subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    yield folder
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def package(folder: Path, size: int) -> tuple[str, bytes]:
    folder.mkdir()
    (folder / "app.py").write_text("app = 1")
    (folder / "weights.bin").write_bytes(os.urandom(size))
    snapshot = take_snapshot(folder)
    return snapshot.digest, pack(folder, snapshot)


@pytest.mark.anyio
async def test_code_that_has_no_room_is_refused_by_name_and_leaves_nothing_behind(tmp_path: Path, disk: Path) -> None:
    store = MemoryStore()
    small, large = package(tmp_path / "small", FITS), package(tmp_path / "large", TOO_MUCH // 3)
    packages = Packages(store, disk)
    for digest, data in (small, large):
        await packages.put(digest, data)
    there = await packages.folder(small[0])
    with pytest.raises(DiskFull) as refused:
        await packages.folder(large[0])
    assert refused.value.code == "disk_full"
    assert str(disk) in refused.value.message
    assert "TMPDIR" in str(refused.value.hint)
    assert (there / "app.py").read_text() == "app = 1"
    assert [path.name for path in disk.iterdir() if path.is_dir()] == [small[0]]


def test_a_file_of_ours_is_what_it_was_where_the_new_one_has_no_room(disk: Path) -> None:
    file = disk / "cluster.json"
    write_private(file, b"before")
    with pytest.raises(DiskFull) as refused:
        write_private(file, b"x" * TOO_MUCH)
    assert f"no space left for cluster.json in {disk}" in refused.value.message
    assert file.read_bytes() == b"before"
    assert [path.name for path in disk.iterdir()] == ["cluster.json"]


def test_a_file_that_a_command_writes_is_whole_or_what_it_was(disk: Path) -> None:
    file = disk / "serve.yaml"
    write_whole(file, "before")
    file.chmod(0o640)
    with pytest.raises(DiskFull):
        write_whole(file, "x" * TOO_MUCH)
    write_whole(file, "after")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("after", 0o640)
    assert [path.name for path in disk.iterdir()] == ["serve.yaml"]


@pytest.mark.parametrize("command", [["schema"], ["validate", "-o", "json", "serve.yaml"]])
def test_a_command_whose_output_has_no_room_says_so_and_is_no_fault(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "serve.yaml").write_text("deployments: []\n")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", "from serveconf.cli.main import main; main()", *command],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode != 0
    assert "no space left for the output" in done.stderr
    assert "fault of serveconf" not in done.stderr


@pytest.mark.anyio
async def test_the_control_api_answers_507_with_the_name() -> None:
    async def full(request: Request) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device", "/data")

    app = Starlette(routes=[Route("/", full)], exception_handlers={Exception: answer_fault})
    transport = ASGITransport(app=app, raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "disk_full")
    assert "/data" in answer.json()["error"]["message"]


def test_access_log_lines_that_have_no_room_are_dropped_and_counted() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    log = AccessLog(descriptor)
    log.write({"method": "GET", "headers": []}, Trail(began=time.monotonic()), 200, 0, 0, 0.01)
    log.flush(5)
    assert log.dropped == 1
    os.close(descriptor)


def test_what_an_app_prints_onto_a_full_disk_is_lost_and_told_when_there_is_room(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not disk.is_mount():
        pytest.skip("no disk of its own may be mounted here")
    filler, log = disk / "filler", disk / "worker.out"
    with open(log, "w", buffering=1, encoding="utf-8") as output, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", output)
        patch.setattr(sys, "stderr", output)
        be_patient()
        print("before")
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 1000)
        for _ in range(5_000):
            print("a line that the log may have no room for, and that fails no request")
        filler.unlink()
        print("after")
    lines = log.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert any("lines of this log were lost, its disk was full" in line for line in lines)
