"""What ``doctor`` says to remove is this user's, used by nobody and nobody's data; every doubt is in its favour."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serveconf.code.package import digest_of
from serveconf.doctor.leftovers import Leftovers, look_for_leftovers

CLUSTER = "0123456789ab"


def rest(folder: Path) -> None:
    """As if nothing had changed there for two hours."""
    for here, folders, names in os.walk(folder, topdown=False):
        for path in (*(Path(here, name) for name in (*folders, *names)), Path(here)):
            os.utime(path, (time.time() - 7200,) * 2, follow_symlinks=False)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A cluster's folder with code as it was unpacked, and a session of an ended Ray."""
    digest = digest_of({"a.py": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}, frozenset())
    package = tmp_path / "s" / CLUSTER / "code" / digest
    package.mkdir(parents=True)
    (package / "a.py").touch(mode=0o400)
    (tmp_path / "s" / CLUSTER / "code" / f".{digest}.lock").touch()
    (tmp_path / "s" / "ray" / "session_2026-11-30_01-35-57_793114_25006" / "logs").mkdir(parents=True)
    rest(tmp_path / "s")
    return tmp_path / "s"


def test_folders_that_nobody_uses_are_left(ours: Path) -> None:
    session = ours / "ray" / "session_2026-11-30_01-35-57_793114_25006"
    assert look_for_leftovers(ours) == Leftovers(removable=(str(ours / CLUSTER), str(session)))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    (lock,) = (folder / "code").glob(".*.lock")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        yield


@contextmanager
def listened_on(folder: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "a.sock"))
        listening.listen()
        yield


@contextmanager
def worked_in(folder: Path) -> Iterator[None]:
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, cwd=folder / "code", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        yield
        process.stdin.close()


@contextmanager
def opened(folder: Path) -> Iterator[None]:
    with next((folder / "code").glob("*/a.py")).open():
        yield


@contextmanager
def changed(folder: Path) -> Iterator[None]:
    yield
    (folder / "code").touch()


@contextmanager
def linked(folder: Path) -> Iterator[None]:
    yield
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


@contextmanager
def somebody_elses(folder: Path) -> Iterator[None]:
    yield
    os.chown(folder, 65534, -1)


USES = [locked, listened_on, worked_in, opened, changed, linked]


@pytest.mark.parametrize("use", USES if os.getuid() else [*USES, somebody_elses])
def test_a_folder_that_somebody_uses_or_that_is_not_ours_is_not_left(
    ours: Path, use: Callable[[Path], Iterator[None]]
) -> None:
    folder = ours / CLUSTER
    with use(folder):  # type: ignore[attr-defined]
        rest(ours)
        if use not in (changed, linked, somebody_elses):
            assert str(folder) not in look_for_leftovers(ours).removable
    if use in (changed, linked, somebody_elses):
        assert str(folder) not in look_for_leftovers(ours).removable


@pytest.mark.parametrize("data", ["notes.db", "uploads/a.png", "a.py"])
def test_what_an_app_has_written_is_not_among_what_may_go(ours: Path, data: str) -> None:
    package = next((ours / CLUSTER / "code").glob("[0-9a-f]*"))
    (package / data).parent.mkdir(exist_ok=True)
    (package / data).unlink(missing_ok=True)
    (package / data).write_text("kept")
    rest(ours)
    found = look_for_leftovers(ours)
    assert found.with_data == (str(ours / CLUSTER),)
    assert str(ours / CLUSTER) not in found.removable


def test_a_place_that_is_not_there_or_not_ours_has_nothing_left(ours: Path) -> None:
    assert look_for_leftovers(ours / "none") == Leftovers()
    link = ours.with_name("link")
    link.symlink_to(ours)
    assert look_for_leftovers(link) == Leftovers()
