"""A controller that is to be started: what becomes of the child that starts it, and of the Ray that was started for it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from serveconf import launch
from serveconf.errors import OperatorError, PortInUse, Unauthorized, Unreachable
from serveconf.home import LocalRay, Record, read_record, write_record
from serveconf.local_ray import free_port

Child = Callable[[str], None]
READY = {"address": "http://127.0.0.1:1", "token": "t0", "started": True, "open": False}
OURS = LocalRay(pid=1, address="10.0.0.1:6379", started=0.0, mark="ours")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_ADDRESS", "SERVECONF_ADDRESS", "SERVECONF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    """What the child that would import Ray does instead."""

    def does(what: str) -> None:
        script = tmp_path / "python"
        script.write_text(f"#!{real}\nimport json, os, sys, time\nasked = json.loads(sys.stdin.readline())\n{what}\n")
        script.chmod(0o755)
        monkeypatch.setattr(launch.sys, "executable", str(script))

    real = sys.executable
    return does


@pytest.fixture
def rays(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The Rays that were started and stopped."""
    done: list[str] = []

    def start(tell: Any) -> LocalRay:
        done.append("started")
        return OURS

    monkeypatch.setattr(launch, "start_local_ray", start)
    monkeypatch.setattr(launch, "stop_local_ray", lambda ray: done.append("stopped"))
    return done


def started(ray: str | None = "10.0.0.9:6379", said: list[str] | None = None) -> launch.Found:
    place = f"http://127.0.0.1:{free_port()}"
    return launch.start(place, ray, http=None, tell=(said if said is not None else []).append)


def test_the_child_is_told_the_ray_and_says_where_the_controller_is(child: Child, rays: list[str]) -> None:
    child(f"print('noise'); print(json.dumps(['noise'])); print(json.dumps({{**{READY}, 'token': asked['ray']}}))")
    found = started()
    assert found.started and found.client.address == "http://127.0.0.1:1"
    assert (read_record().address, read_record().token, read_record().ray) == (
        "http://127.0.0.1:1",
        "10.0.0.9:6379",
        None,
    )
    assert rays == []


def test_where_there_is_no_ray_one_is_started_and_remembered(child: Child, rays: list[str]) -> None:
    child(f"print(json.dumps({READY}))")
    assert started(None).started
    assert (rays, read_record().ray) == (["started"], OURS)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("print(json.dumps({'error': 'Ray is full', 'hint': 'wait', 'code': 'no_room'}))", "Ray is full"),
        ("print('no json')", "the controller could not be started:\n  "),
        ("sys.exit('ImportError: no module named ray')", "could not be started:\n  ImportError: no module named ray"),
    ],
)
def test_a_start_that_fails_says_why_and_leaves_no_ray(child: Child, rays: list[str], what: str, message: str) -> None:
    child(what)
    with pytest.raises(OperatorError) as failed:
        started(None)
    assert message in failed.value.message
    assert rays == ["started", "stopped"]
    assert read_record() == Record()


def test_an_error_of_the_child_keeps_its_code_and_its_hint(child: Child, rays: list[str]) -> None:
    child("print(json.dumps({'error': 'Ray is full', 'hint': 'wait', 'code': 'no_room'}))")
    with pytest.raises(OperatorError) as failed:
        started()
    assert (failed.value.code, failed.value.hint) == ("no_room", "wait")
    assert rays == []  # it is not ours: it stays


def test_one_that_takes_too_long_is_given_up(child: Child, rays: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "BOOTSTRAP_S", 0.1)
    child("time.sleep(600)")
    with pytest.raises(OperatorError, match=r"did not start within 0\.1 s"):
        started(None)
    assert rays == ["started", "stopped"]


def test_an_open_ray_is_warned_of_where_the_controller_was_started(child: Child, rays: list[str]) -> None:
    child(f"print(json.dumps({{**{READY}, 'open': True}}))")
    said: list[str] = []
    started(said=said)
    assert any("asks for no token" in line and "10.0.0.9:6379" in line for line in said)


@pytest.mark.parametrize("taken", ["control", "http"])
def test_nothing_is_started_where_a_port_that_it_needs_is_taken(rays: list[str], taken: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        control = port if taken == "control" else free_port()
        with pytest.raises(PortInUse) as refused:
            launch.start(f"http://127.0.0.1:{control}", None, http=("127.0.0.1", port), tell=lambda message: None)
    assert str(port) in refused.value.message
    assert rays == []


def test_a_ray_that_still_runs_is_remembered_when_only_its_controller_is_started(
    child: Child, rays: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(Record(address="http://127.0.0.1:2", token="old", ray=OURS))
    monkeypatch.setattr(launch, "is_running", lambda ray: ray == OURS)
    child(f"print(json.dumps({READY}))")
    started(OURS.address)
    assert (read_record().token, read_record().ray) == ("t0", OURS)


def test_what_answers_at_a_known_address_and_knows_no_token_is_not_told_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else has the port by now."""
    write_record(Record(address="http://127.0.0.1:2", token="secret"))

    def healthy(client: Any, patience_s: float) -> bool:
        return True

    monkeypatch.setattr(launch.Client, "healthy", healthy)
    with pytest.raises(Unauthorized, match="does not know the token that is known here"):
        launch.find(None, None)
    with pytest.raises(Unauthorized, match=r"the token of http://127\.0\.0\.1:3 is not known here"):
        launch.find("http://127.0.0.1:3", None)


def test_a_cluster_elsewhere_is_never_started_from_here(rays: list[str]) -> None:
    away = "http://[2001:db8::1]:8265"
    assert not launch.may_start(away)
    with pytest.raises(Unreachable, match="no serveconf answers at"):
        launch.find_or_start("http://localhost.invalid:8265", "t", http=None, tell=lambda message: None)
    assert rays == []


def test_a_child_that_ends_before_it_is_asked_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\nraise SystemExit('ImportError: no module named ray')\n")
    script.chmod(0o755)
    monkeypatch.setattr(launch.sys, "executable", str(script))
    bootstrap = launch.Bootstrap(("127.0.0.1", free_port()), {})
    bootstrap._child.wait()
    with pytest.raises(OperatorError, match="could not be started:\n  ImportError: no module named ray"):
        bootstrap.run("10.0.0.9:6379", None, lambda message: None)
    bootstrap.stop()
    bootstrap.stop()


def test_a_child_that_could_not_start_it_is_left_to_end_by_itself(
    child: Child, rays: list[str], tmp_path: Path
) -> None:
    taken_back = tmp_path / "taken back"
    child(
        "print(json.dumps({'error': 'Ray is full', 'hint': 'wait', 'code': 'no_room'}), flush=True)\n"
        f"time.sleep(0.2); open({str(taken_back)!r}, 'w').close()"
    )
    with pytest.raises(OperatorError, match="Ray is full"):
        started()
    assert taken_back.exists()


def test_a_child_that_has_answered_is_not_waited_for(child: Child, rays: list[str], tmp_path: Path) -> None:
    child(
        f"until = time.monotonic() + 60; print(json.dumps({{**{READY}, 'token': str(os.getpid())}}), flush=True)\n"
        f"while not os.path.exists({str(tmp_path / 'end')!r}) and time.monotonic() < until: time.sleep(0.01)"
    )
    assert started().started
    letting_go = psutil.Process(int(read_record().token))
    assert letting_go.is_running()
    (tmp_path / "end").touch()
    letting_go.wait(30)
