"""Which Ray is believed to be ours, what its processes get of the shell, and whose processes are ended."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serveconf import local_ray, private, processes
from serveconf.errors import OperatorError
from serveconf.home import LocalRay, Record, read_record, write_record
from serveconf.launch import shut_down
from serveconf.local_ray import access_to, free_port, is_running, ray_in_reach, stop_local_ray
from serveconf.processes import started_at
from serveconf.ray_env import MARK, access, clean_environment

LEADER = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); time.sleep(60)"
Start = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_ADDRESS", "SERVECONF_ADDRESS", "SERVECONF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def session() -> Iterator[Start]:
    """Starts a session of two processes that bear a mark."""
    started: list[subprocess.Popen[bytes]] = []

    def start(mark: str) -> subprocess.Popen[bytes]:
        env = {**os.environ, MARK: mark}
        started.append(subprocess.Popen([sys.executable, "-c", LEADER], env=env, start_new_session=True))
        until(lambda: len(members(started[-1].pid)) == 2)
        return started[-1]

    yield start
    for process in started:
        for pid in members(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def members(leader: int) -> list[int]:
    return [process.pid for process in processes.session(leader)]


def until(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_remembered_number_that_is_somebody_elses_by_now_is_not_killed(session: Start) -> None:
    other = session("another")
    gone = LocalRay(pid=other.pid, address="127.0.0.1:1", started=started_at(other.pid) - 3600, mark="ours")
    assert not is_running(gone)
    write_record(Record(ray=gone))
    assert shut_down(f"http://127.0.0.1:{free_port()}", "t", lambda message: None) is False
    stop_local_ray(gone)
    assert len(members(other.pid)) == 2


def test_a_record_from_before_starts_were_remembered_kills_nobody(home: Path, session: Start) -> None:
    other = session("")
    write_record(Record())
    (home / "cluster.json").write_text(f'{{"ray": {{"pid": {other.pid}, "address": "127.0.0.1:1"}}}}')
    found = read_record().ray
    assert found is not None and not is_running(found)


def test_what_was_started_is_stopped_with_all_that_came_of_it(session: Start) -> None:
    process = session("ours")
    ray = LocalRay(pid=process.pid, address="", started=started_at(process.pid), mark="ours")
    assert is_running(ray)
    stop_local_ray(ray)
    assert members(process.pid) == []


def test_what_outlives_its_first_process_is_still_ours_by_its_mark(session: Start) -> None:
    process = session("ours")
    ray = LocalRay(pid=process.pid, address="", started=started_at(process.pid), mark="ours")
    process.kill()
    process.wait()
    assert is_running(ray) and not is_running(LocalRay(pid=process.pid, address="", started=ray.started, mark="other"))
    stop_local_ray(ray)
    assert members(process.pid) == []


@pytest.fixture
def cluster_file(tmp_path: Path) -> Iterator[Path]:
    """Where Ray names the last cluster of this machine; somebody listens there."""
    (tmp_path / "ray").mkdir()
    file = tmp_path / "ray/ray_current_cluster"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        file.write_text(f"127.0.0.1:{listener.getsockname()[1]}")
        yield file


def test_a_ray_of_this_user_is_found(cluster_file: Path) -> None:
    assert ray_in_reach() == cluster_file.read_text()
    assert access_to(ray_in_reach()) == {}


def test_a_file_that_somebody_else_has_laid_is_not_believed(
    cluster_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private, "TRUSTED", frozenset({4711}))
    assert ray_in_reach() is None


def test_a_link_is_not_believed(cluster_file: Path) -> None:
    cluster_file.rename(cluster_file.with_name("theirs"))
    cluster_file.symlink_to("theirs")
    assert ray_in_reach() is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_somebody_else_who_listens_where_our_file_points_is_not_believed(
    cluster_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "TRUSTED", frozenset({4711}))
    assert ray_in_reach() is None


def test_what_is_no_address_is_nobody(cluster_file: Path) -> None:
    cluster_file.write_bytes(b"\xff\n")
    assert ray_in_reach() is None


def test_the_ray_that_was_started_here_comes_before_any_other(cluster_file: Path, session: Start) -> None:
    process = session("ours")
    ours = LocalRay(pid=process.pid, address="127.0.0.1:1", started=started_at(process.pid), mark="ours")
    write_record(Record(ray=ours))
    assert ray_in_reach() == "127.0.0.1:1"
    assert access_to("127.0.0.1:1") == access_to(None) == access()


def test_a_ray_of_ours_asks_for_a_token_that_only_its_user_can_read(home: Path) -> None:
    said = access()
    file = Path(said["RAY_AUTH_TOKEN_PATH"])
    assert (said["RAY_AUTH_MODE"], file.parent) == ("token", home)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_text()) == 64
    assert access() == said


SHELL = {
    "PATH": "/bin", "HOME": "/h", "LC_ALL": "C", "PYTHONPATH": "/p", "CUDA_VISIBLE_DEVICES": "0", "RAY_TMPDIR": "/t",
    "HTTPS_PROXY": "http://p", "DATABASE_URL": "postgres://u:p@h", "AWS_SECRET_ACCESS_KEY": "k", "GH_TOKEN": "g",
    "SERVECONF_TOKEN": "s", "SERVECONF_HOME": "/x", "SERVECONF_LOG_FORMAT": "json", "RAY_AUTH_TOKEN": "r", "RAY_ADDRESS": "elsewhere:1",
}  # fmt: skip
NEEDED = {
    "PATH",
    "HOME",
    "LC_ALL",
    "PYTHONPATH",
    "CUDA_VISIBLE_DEVICES",
    "RAY_TMPDIR",
    "HTTPS_PROXY",
    "SERVECONF_LOG_FORMAT",
}


@pytest.mark.parametrize(
    ("wanted", "more"),
    [
        ("", set()),
        ("DATABASE_URL, AWS_*", {"DATABASE_URL", "AWS_SECRET_ACCESS_KEY"}),
        ("*", {"DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "GH_TOKEN"}),
        ("SERVECONF_TOKEN,RAY_AUTH_TOKEN,SERVECONF_HOME", {"SERVECONF_HOME"}),
    ],
)
def test_apps_get_of_the_shell_what_a_process_needs_and_what_is_named(wanted: str, more: set[str]) -> None:
    found = clean_environment({**SHELL, "SERVECONF_PASS_ENV": wanted}, "m")
    assert set(found) == NEEDED | more | set(access()) | {MARK, "RAY_worker_niceness"}
    assert {name: found[name] for name in NEEDED | more} == {name: SHELL[name] for name in NEEDED | more}


@pytest.mark.parametrize(("said", "kept"), [({}, "0"), ({"RAY_worker_niceness": "5"}, "5")])
def test_what_serves_is_no_less_than_what_starts_unless_the_user_says_otherwise(
    said: dict[str, str], kept: str
) -> None:
    assert clean_environment(said, "m")["RAY_worker_niceness"] == kept


def test_the_folder_of_rays_files_is_made_and_told_where_it_can_not_be(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "not" / "there"))
    assert local_ray._folder().parent.is_dir()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "file" / "below"))
    with pytest.raises(OperatorError, match="can't lie in"):
        local_ray._folder()


@pytest.fixture
def ports_dealt_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def says(line: str) -> None:
        (tmp_path / "range").write_text(line)
        monkeypatch.setattr(local_ray, "DEALT_OUT", tmp_path / "range")
        monkeypatch.setattr(local_ray, "_ports", [])

    return says


def test_a_free_port_is_none_that_the_kernel_gives_to_others_and_none_twice(
    ports_dealt_out: Callable[[str], None],
) -> None:
    ports_dealt_out("20300\t60999\n")
    told = [free_port() for _ in range(100)]
    assert len(set(told)) == 100
    assert max(told) < 20_300  # neither an outgoing connection nor who binds port 0 takes one meanwhile
    assert min(told) > 19_999  # nor one of Ray's workers


@pytest.mark.parametrize("line", ["1024\t65535\n", "", "none"])
def test_a_free_port_wherever_the_kernel_deals_them_out(ports_dealt_out: Callable[[str], None], line: str) -> None:
    ports_dealt_out(line)
    with socket.create_server(("127.0.0.1", free_port())):
        pass


def test_a_free_port_is_never_one_that_somebody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    own = free_port()
    with socket.create_server(("127.0.0.1", own)):
        monkeypatch.setattr(local_ray, "_ports", [own, own])
        assert free_port() != own
