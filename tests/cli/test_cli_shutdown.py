"""``shutdown``: what it stops, what it leaves alone, and what is remembered afterwards, whatever answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from odd import Odd
from typer.testing import CliRunner, Result

from serveconf import launch
from serveconf.cli.parser import app
from serveconf.home import LocalRay, Record, read_record, write_record
from serveconf.local_ray import free_port

OURS = LocalRay(pid=1, address="10.0.0.1:6379", started=0.0, mark="ours")
FAILED = {"error": {"code": "internal", "message": "the store is silent", "hint": None}}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "SERVECONF_ADDRESS", "SERVECONF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> list[LocalRay]:
    """The Rays that were stopped; one that was is not running any more."""
    done: list[LocalRay] = []
    monkeypatch.setattr(launch, "is_running", lambda ray: ray not in done)
    monkeypatch.setattr(launch, "stop_local_ray", done.append)
    return done


@pytest.fixture
def odd() -> Iterator[Odd]:
    """A controller that does not answer any more when it has shut down."""
    odd = Odd()
    odd.said["POST /shutdown"] = [(200, b"{}")]
    yield odd
    odd.close()


@pytest.fixture(autouse=True)
def gone_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serveconf.client.GONE_S", 0.0)


def shutdown(*words: str) -> Result:
    done = CliRunner().invoke(app, [*words, "shutdown", "-o", "json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def test_what_was_started_here_is_stopped_and_forgotten_and_once_more_there_is_nothing(
    odd: Odd, stopped: list[LocalRay]
) -> None:
    write_record(Record(address=odd.url, token="secret", ray=OURS))
    done = shutdown()
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"stopped": True})
    assert (stopped, read_record()) == ([OURS], Record())
    assert odd.asked == ["POST /shutdown"]
    write_record(Record(address=f"http://127.0.0.1:{free_port()}", token="secret"))
    again = shutdown()
    assert (again.exit_code, json.loads(again.stdout)) == (0, {"stopped": False})


def test_a_ray_of_somebody_else_goes_on(odd: Odd, stopped: list[LocalRay]) -> None:
    write_record(Record(address=odd.url, token="secret"))
    assert json.loads(shutdown().stdout) == {"stopped": True}
    assert stopped == []


def test_a_controller_that_can_not_stop_by_itself_goes_with_our_ray(odd: Odd, stopped: list[LocalRay]) -> None:
    odd.said["POST /shutdown"] = [(500, json.dumps(FAILED).encode())]
    write_record(Record(address=odd.url, token="secret", ray=OURS))
    done = shutdown()
    assert done.exit_code == 0 and "the controller did not stop by itself: the store is silent" in done.stderr
    assert (stopped, read_record()) == ([OURS], Record())


def test_on_a_ray_of_somebody_else_that_is_an_error_and_nothing_is_forgotten(odd: Odd, stopped: list[LocalRay]) -> None:
    odd.said["POST /shutdown"] = [(500, json.dumps(FAILED).encode())]
    write_record(Record(address=odd.url, token="secret"))
    done = shutdown()
    assert done.exit_code == 1 and json.loads(done.stdout)["error"]["message"] == "the store is silent"
    assert (stopped, read_record().token) == ([], "secret")


def test_what_has_our_port_by_now_is_left_alone_and_our_ray_is_stopped(odd: Odd, stopped: list[LocalRay]) -> None:
    write_record(Record(address=odd.url, token="another", ray=OURS))
    assert shutdown().exit_code == 0
    assert (stopped, odd.asked) == ([OURS], [])


def test_a_wrong_token_that_was_given_stops_nothing(odd: Odd, stopped: list[LocalRay]) -> None:
    write_record(Record(address=odd.url, token="secret", ray=OURS))
    done = shutdown("--token", "guessed")
    assert done.exit_code == 1 and "does not know the token" in json.loads(done.stdout)["error"]["message"]
    assert (stopped, odd.asked, read_record().token) == ([], [], "secret")


def test_a_ray_of_ours_whose_controller_has_gone_is_stopped_too(stopped: list[LocalRay]) -> None:
    write_record(Record(address=f"http://127.0.0.1:{free_port()}", token="secret", ray=OURS))
    assert json.loads(shutdown().stdout) == {"stopped": True}
    assert (stopped, read_record()) == ([OURS], Record())


@pytest.mark.parametrize("version", ["0.0.1", "9.0.0"])
def test_a_controller_of_any_version_is_stopped(odd: Odd, stopped: list[LocalRay], version: str) -> None:
    odd.version = version
    write_record(Record(address=odd.url, token="secret"))
    assert json.loads(shutdown().stdout) == {"stopped": True}
