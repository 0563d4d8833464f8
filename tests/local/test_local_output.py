"""What processes write, and whose it is: lines that several share, a log that is full, a log that is read back."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serveconf import private, processes
from serveconf.cluster import own_log
from serveconf.cluster.own_log import read_log_of, read_own_log
from serveconf.errors import OperatorError
from serveconf.runtime.context import Replica, ReplicaContext, enter_room
from serveconf.runtime.shared_output import MarkedLines, PatientStream, be_patient, lines_of, mark_lines


def write_as(name: str | None, stream: Any, text: str) -> int:
    """From a task that runs for that deployment; None: for nobody."""

    def write() -> int:
        if name is not None:
            who = ReplicaContext(app_name="s", deployment=name, replica_tag=f"{name}.1")
            enter_room(Replica(context=who, max_ongoing=1, ongoing=lambda: 0, name=name))
        written: int = stream.write(text)
        return written

    return copy_context().run(write)


# Lines of a shared process

PIECE = st.text(alphabet="ab [].\n", max_size=6)


@given(st.lists(st.tuples(st.sampled_from(["one", "two.x"]), PIECE), max_size=20))
def test_however_writes_mix_each_line_is_whole_and_is_read_back_by_its_own(writes: list[tuple[str, str]]) -> None:
    below = io.StringIO()
    stream = MarkedLines(below)
    for name, text in writes:
        assert write_as(name, stream, text) == len(text)
    lines = below.getvalue().split("\n")[:-1]
    for name in ("one", "two.x"):
        said = "".join(text for writer, text in writes if writer == name)
        assert list(lines_of(name, lines)) == said.split("\n")[:-1]


def test_what_nobody_can_be_named_for_is_passed_on_at_once_and_shown_to_all() -> None:
    below = io.StringIO()
    stream = MarkedLines(below)
    write_as("one", stream, "half")
    write_as(None, stream, "a library's thread\n")
    write_as("one", stream, " and half\n")
    lines = below.getvalue().splitlines()
    assert lines == ["a library's thread", "[one] half and half"]
    assert list(lines_of("two", lines)) == ["a library's thread"]


def test_lines_are_marked_once_however_often_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    below = io.StringIO()
    monkeypatch.setattr(sys, "stdout", below)
    monkeypatch.setattr(sys, "stderr", below)
    for _ in range(2):
        mark_lines()
        be_patient()
    stream: Any = sys.stdout
    stream.writelines(["to ", "nobody\n"])
    assert below.getvalue() == "to nobody\n"
    assert stream.closed is False  # everything else is that stream's


class Disk(io.StringIO):
    """Has room, or fails with a number."""

    def __init__(self) -> None:
        super().__init__()
        self.error: int | None = None

    def write(self, text: str) -> int:
        self._fail()
        return super().write(text)

    def flush(self) -> None:
        self._fail()

    def _fail(self) -> None:
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))


def test_lines_that_a_full_disk_does_not_take_are_counted_and_nobody_fails() -> None:
    disk = Disk()
    stream = PatientStream(disk)
    stream.write("before\n")
    for error in (errno.ENOSPC, errno.EDQUOT):
        disk.error = error
        assert stream.write("lost\n") == 5
        stream.writelines(["lost\n"])
        stream.flush()
    disk.error = None
    stream.write("after\n")
    stream.write("and on\n")
    assert disk.getvalue() == ("before\nserveconf: 6 lines of this log were lost, its disk was full\nafter\nand on\n")


@pytest.mark.parametrize("error", [errno.EBADF, errno.EPIPE])
def test_a_log_that_fails_otherwise_says_so(error: int) -> None:
    disk = Disk()
    disk.error = error
    stream = PatientStream(disk)
    for act in (lambda: stream.write("x"), stream.flush):
        with pytest.raises(OSError, match=os.strerror(error)):
            act()


# The log of this process


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, Path]:
    """Where the two streams of this process go."""
    files = {1: tmp_path / "worker-1-42.out", 2: tmp_path / "worker-1-42.err"}
    for file in files.values():
        file.touch()
    monkeypatch.setattr(own_log, "_own_file", files.get)
    return files


def test_a_line_is_told_when_it_is_whole_and_once(log: dict[int, Path]) -> None:
    log[1].write_text("one\ntwo\nhal")
    first = read_own_log(None, 1)
    assert first.lines == ("two",)
    with log[1].open("a") as file:
        file.write("f\nlast\n")
    second = read_own_log(first.position, 1)  # all that is new, however few were wanted first
    assert second.lines == ("half", "last")
    assert read_own_log(second.position, 1).lines == ()


@given(pieces=st.lists(st.text(alphabet="ab\n", max_size=5), max_size=8))
def test_whenever_it_is_read_no_line_is_missed_or_told_twice(pieces: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "worker-1-42.out"
        file.touch()
        patch.setattr(own_log, "_own_file", {1: file}.get)
        position, told = read_own_log(None, 100).position, []
        for piece in pieces:
            with file.open("a") as stream:
                stream.write(piece)
            part = read_own_log(position, 0)
            told += part.lines
            position = part.position
    assert told == "".join(pieces).split("\n")[:-1]


def test_a_log_that_was_rotated_or_begun_anew_is_read_from_its_beginning(log: dict[int, Path]) -> None:
    log[1].write_text("old one\nold two\n")
    position = read_own_log(None, 10).position
    log[1].rename(log[1].with_suffix(".1"))
    log[1].write_text("a new file whose lines are longer than all of the old ones\n")
    part = read_own_log(position, 10)
    assert part.lines == ("a new file whose lines are longer than all of the old ones",)
    log[1].write_text("cut\n")  # the same file, shorter
    assert read_own_log(part.position, 10).lines == ("cut",)


def test_what_ray_writes_itself_and_what_is_others_is_left_out(log: dict[int, Path]) -> None:
    log[1].write_text(":job_id:1\n:actor_name:x\n[a] mine\n[b] theirs\nnobody's\n")
    log[2].write_text(":task_name:y\n[a] wrong\n")
    assert set(read_own_log(None, 10, "a").lines) == {"mine", "nobody's", "wrong"}
    assert set(read_own_log(None, 10).lines) == {"[a] mine", "[b] theirs", "nobody's", "[a] wrong"}


def test_a_long_log_is_read_from_near_its_end_and_bytes_that_are_no_text_stop_nothing(
    log: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_log, "LARGEST_BYTES", 20)
    log[1].write_bytes(b"x" * 1000 + b"\nfine\n\xff\xfe\n")
    assert read_own_log(None, 2).lines == ("fine", "��")


def test_a_process_without_a_log_has_no_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for file in (None, tmp_path / "gone"):
        monkeypatch.setattr(own_log, "_own_file", lambda descriptor, file=file: file)
        part = read_own_log({"out": 7}, 5)
        assert (part.lines, part.position["out"]) == ((), 7)
    monkeypatch.setattr(own_log, "_own_file", lambda descriptor: None)
    with pytest.raises(OperatorError, match="keeps no logs"):
        read_log_of(7, 5)


def test_of_a_process_that_has_ended_the_last_log_is_read_and_its_absence_is_said(log: dict[int, Path]) -> None:
    folder = log[1].parent
    for number, name in enumerate(("worker-0-77.out", "worker-1-77.out")):
        (folder / name).write_text(f"{name}\n")
        os.utime(folder / name, (number, number))
    assert read_log_of(77, 5).lines == ("worker-1-77.out",)
    with pytest.raises(OperatorError, match="process 7 is not there any more"):
        read_log_of(7, 5)


# Whose processes they are


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """The first process of a session of its own."""
    environment = {**os.environ, "SC_TEST_MARK": "m"}
    command = [sys.executable, "-S", "-c", "import sys; print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, env=environment
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_a_session_is_known_by_its_start_or_its_mark_and_by_no_other(sleeper: subprocess.Popen[bytes]) -> None:
    began = processes.started_at(sleeper.pid)
    nobody = ("SC_TEST_MARK", "")
    assert processes.session_is_of(sleeper.pid, began, nobody)
    assert not processes.session_is_of(sleeper.pid, began - 60, nobody)
    assert processes.session_is_of(sleeper.pid, began - 60, ("SC_TEST_MARK", "m"))
    assert not processes.session_is_of(sleeper.pid, began - 60, ("SC_TEST_MARK", "other"))
    assert not processes.session_is_of(os.getpid(), began, ("SC_TEST_NONE", "m"))


def test_who_has_ended_and_waits_to_be_reaped_is_nobody(sleeper: subprocess.Popen[bytes]) -> None:
    began = processes.started_at(sleeper.pid)
    assert [process.pid for process in processes.session(sleeper.pid)] == [sleeper.pid]
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked for its code
    assert list(processes.session(sleeper.pid)) == []
    assert not processes.session_is_of(sleeper.pid, began, ("SC_TEST_MARK", "m"))
    sleeper.wait()
    assert processes.started_at(sleeper.pid) == 0.0


# What is nobody's code


def test_our_places_are_known_by_what_they_are_and_not_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, out = tmp_path / "home", tmp_path / "out.txt"
    monkeypatch.setenv("SERVECONF_HOME", str(home))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "ray"))
    assert private.own_places() == frozenset()
    private.own_folder(home)
    private.note_own_file(out)
    out.touch()
    (tmp_path / "link").symlink_to(home)
    places = private.own_places()
    for path, is_ours in ((tmp_path / "link", True), (out, True), (tmp_path, False)):
        found = path.stat()
        assert ((found.st_dev, found.st_ino) in places) == is_ours


def test_a_list_of_own_files_that_is_no_text_or_somebody_else_s_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path))
    assert private.own_files() == []
    (tmp_path / private.OWN_FILES).write_bytes(b"/a\xff\n/b\n")
    assert [os.fsencode(path) for path in private.own_files()] == [b"/a\xff", b"/b"]
    monkeypatch.setattr(private, "TRUSTED", frozenset({4711}))
    assert private.own_files() == []
