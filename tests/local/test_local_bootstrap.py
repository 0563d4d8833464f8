"""The child that connects to Ray and starts the controller: one JSON line out, whatever it meets, and nothing started too much."""

from __future__ import annotations

import io
import json
import socket
from typing import Any

import pytest

from serveconf.cluster import bootstrap
from serveconf.cluster.settings import ControllerAddress, ControllerSettings
from serveconf.errors import OperatorError, PortInUse

READY = ControllerAddress(url="http://127.0.0.1:8001", token="t0", pid=7)


class Ray:
    """What is asked of it; a controller is there already, or not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.there = False
        self.connected: list[str] = []
        self.connections: list[str] = []
        self.started: list[ControllerSettings] = []
        self.fails: Exception | None = None
        monkeypatch.setattr(bootstrap, "take_token", lambda: None)
        monkeypatch.setattr(bootstrap, "connect", self._connect)
        monkeypatch.setattr(bootstrap, "disconnect", self.connected.clear)
        monkeypatch.setattr(bootstrap, "find_controller", lambda: object() if self.there else None)
        monkeypatch.setattr(bootstrap, "start_controller", self._start)
        monkeypatch.setattr(bootstrap, "asks_for_no_token", lambda: True)

    def _connect(self, address: str, *, hint: str) -> None:
        self.connected.append(address)
        self.connections.append(address)
        if self.fails is not None:
            raise self.fails

    def _start(self, settings: ControllerSettings) -> ControllerAddress:
        self.started.append(settings)
        return READY


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    monkeypatch.delenv("SERVECONF_CODE_MB", raising=False)
    monkeypatch.setattr("sys.argv", ["bootstrap", "127.0.0.1", "8001"])
    return Ray(monkeypatch)


def told(monkeypatch: pytest.MonkeyPatch, **asked: Any) -> Any:
    """What it answers when it is asked."""
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"ray": "10.0.0.1:6379", "http": None, **asked}) + "\n"))
    answer = io.StringIO()
    bootstrap.main(answer)
    (line,) = answer.getvalue().splitlines()
    return json.loads(line)


@pytest.mark.parametrize("there", [True, False])
def test_it_says_where_the_controller_is_and_whether_it_was_started_just_now(
    ray: Ray, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    ray.there = there
    answer = told(monkeypatch)
    assert answer == {"address": READY.url, "token": "t0", "started": not there, "open": True}
    assert ray.connections == ["10.0.0.1:6379"] and ray.connected == []
    assert ray.started == [ControllerSettings(host="127.0.0.1", port=8001)]


def test_a_port_that_the_proxies_will_want_is_looked_at_before_there_is_a_controller(
    ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        http = ["127.0.0.1", taken.getsockname()[1]]
        refused = told(monkeypatch, http=http)
        assert refused["code"] == PortInUse.code and str(http[1]) in refused["error"]
        assert ray.started == []
        ray.there = True  # its own proxies have it
        assert told(monkeypatch, http=http)["address"] == READY.url


def test_what_the_cluster_says_is_told_with_what_to_do(ray: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    ray.fails = OperatorError("Ray at 10.0.0.1:6379 can't be reached", hint="is it running?", code="no_ray")
    assert told(monkeypatch) == {
        "error": "Ray at 10.0.0.1:6379 can't be reached",
        "hint": "is it running?",
        "code": "no_ray",
    }
    assert ray.started == []


@pytest.mark.parametrize(("said", "kept"), [("", None), ("0", None), ("250", 250_000_000)])
def test_what_the_store_may_keep_of_code_is_read_from_the_environment(
    ray: Ray, monkeypatch: pytest.MonkeyPatch, said: str, kept: int | None
) -> None:
    monkeypatch.setenv("SERVECONF_CODE_MB", said)
    told(monkeypatch)
    assert ray.started[0].code_bytes == kept


@pytest.mark.parametrize("said", ["much", "-1", "1.5", "1 GB"])
def test_what_is_no_number_of_megabytes_is_said_and_nothing_is_started(
    ray: Ray, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("SERVECONF_CODE_MB", said)
    assert f"is a number of megabytes, not '{said}'" in told(monkeypatch)["error"]
    assert ray.started == []


def test_one_whose_starter_has_given_up_does_nothing(ray: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    answer = io.StringIO()
    bootstrap.main(answer)
    assert (answer.getvalue(), ray.connections, ray.started) == ("", [], [])
