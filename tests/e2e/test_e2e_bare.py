"""Where nothing runs yet: taken ports, nobody to talk to, wrong files. Nothing is started and nothing is left."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from place import Place, ask, until

from serveconf.local_ray import free_port

SPEC = """
name: bare
http_options: {port: %d}
deployments:
  - {name: web, import_path: "web:app", route_prefix: /}
"""


@pytest.fixture
def bare() -> Iterator[Place]:
    """A place where nothing was started."""
    place = Place()
    yield place
    assert place.processes() == []
    place.close()


@pytest.fixture
def spec(bare: Place, tmp_path: Path) -> Path:
    """A spec for it."""
    (tmp_path / "web.py").write_text("from fastapi import FastAPI\napp = FastAPI()\n")
    file = tmp_path / "serve.yaml"
    file.write_text(SPEC % bare.http_port)
    return file


@pytest.mark.parametrize("command", ["apply", "run"])
def test_taken_http_port_is_named_with_its_key_before_anything_is_started(
    bare: Place, spec: Path, command: str
) -> None:
    with socket.create_server(("127.0.0.1", bare.http_port)):
        done = bare.run(command, spec)
    assert done.code == 1
    assert f"port {bare.http_port}" in done.err and "http_options.port" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", ["apply", "run"])
def test_taken_control_port_is_named_with_its_option(bare: Place, spec: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", bare.control_port)):
        done = bare.run(command, spec)
    assert done.code == 1
    assert f"port {bare.control_port}" in done.err and "SERVECONF_ADDRESS" in done.err
    assert "Traceback" not in done.err


COMMANDS = [
    ("status",), ("routes",), ("history",), ("rollback",), ("resume",), ("delete", "web"), ("delete", "--stack", "a"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_a_control_api_every_command_says_so(bare: Place, command: tuple[str, ...]) -> None:
    done = bare.run(*command, "-o", "json")
    assert done.code == 1
    assert done.json["error"]["code"] == "unreachable"
    assert str(bare.control_port) in done.json["error"]["message"]
    assert done.json["error"]["hint"]


def test_plan_without_a_control_api_is_that_of_a_first_apply(bare: Place, spec: Path) -> None:
    done = bare.ok("plan", spec, "-o", "json")
    assert done.json["changed"] is True
    assert "web" in {action["deployment"] for action in done.json["actions"]}
    assert "no serveconf is running" in done.err


def test_shutdown_of_nothing_is_no_error(bare: Place) -> None:
    for _ in range(2):
        assert bare.ok("shutdown", "-o", "json").json == {"stopped": False}


@pytest.mark.parametrize("command", ["apply", "run", "plan", "validate", "watch"])
def test_file_that_is_not_there_is_named(bare: Place, tmp_path: Path, command: str) -> None:
    done = bare.run(command, tmp_path / "nope.yaml")
    assert done.code == 1
    assert "nope.yaml" in done.err + done.out and "No such file" in done.err + done.out


def test_taken_port_of_an_edit_exits_3_and_the_old_listener_goes_on(place: Place, keeper: Path) -> None:
    before = place.status()["proxies"]
    good = keeper.read_text()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        keeper.write_text(good.replace(str(place.http_port), str(taken)))
        done = place.run("apply", keeper)
    keeper.write_text(good)
    assert done.code == 3, done.err
    assert f"port {taken}" in done.err and "http_options.port" in done.err
    assert ask(f"{place.url}/-/healthz") == (200, "success")
    until(lambda: place.status()["proxies"] == before, "the old listener alone is there")


def test_port_changes_live(place: Place, keeper: Path) -> None:
    good = keeper.read_text()
    port = free_port()
    keeper.write_text(good.replace(str(place.http_port), str(port)))
    place.ok("apply", keeper)
    assert ask(f"http://127.0.0.1:{port}/-/healthz") == (200, "success")
    keeper.write_text(good)
    place.ok("apply", keeper)
    assert ask(f"{place.url}/-/healthz") == (200, "success")


def test_wrong_arguments_exit_2(bare: Place) -> None:
    assert bare.run("apply").code == 2
    assert bare.run("frobnicate").code == 2
    assert bare.run("rollback", "one").code == 2
