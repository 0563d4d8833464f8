"""A spec whose HTTP port is the control API's: the API moves where nobody said where it is, else the line is named."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serveconf import control_port
from serveconf.cli.parser import app
from serveconf.control_port import check_apart, choose_control_place
from serveconf.local_ray import free_port
from serveconf.spec.load import load_file, load_mapping
from serveconf.spec.problems import SpecInvalid

DEPLOYMENTS = "deployments: [{name: web, import_path: web:app}]\n"


@contextmanager
def taken(port: int) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", port)):
        yield


def test_the_control_api_starts_at_its_default_where_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    port, told = free_port(), []
    monkeypatch.setattr(control_port, "DEFAULT_ADDRESS", f"http://127.0.0.1:{port}")
    assert choose_control_place(("127.0.0.1", port + 1), told.append) == ("127.0.0.1", port)
    assert choose_control_place(None, told.append) == ("127.0.0.1", port)
    assert told == []


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])
def test_the_control_api_makes_way_for_the_specs_own_port_and_says_so(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, told = free_port(), []
    monkeypatch.setattr(control_port, "DEFAULT_ADDRESS", f"http://127.0.0.1:{port}")
    chosen = choose_control_place((host, port), told.append)
    assert port < chosen[1] < port + 20
    assert told == [f"port {port} is the spec's own (http_options.port): the control API starts at port {chosen[1]}"]


def test_the_control_api_goes_past_ports_that_others_have(monkeypatch: pytest.MonkeyPatch) -> None:
    port, told = free_port(), []
    monkeypatch.setattr(control_port, "DEFAULT_ADDRESS", f"http://127.0.0.1:{port}")
    with taken(port):
        chosen = choose_control_place(("127.0.0.1", port + 1), told.append)
    assert chosen[1] >= port + 2
    assert f"port {port} is taken" in told[0]


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ({"port": 8001}, "http://127.0.0.1:8001"),
        ({"port": 9000, "host": "0.0.0.0"}, "http://localhost:9000/"),
        ({}, "http://127.0.0.1:8000"),
        ({"port": 443}, "https://127.0.0.1"),
    ],
)
def test_a_spec_that_wants_the_control_apis_port_is_refused(
    options: dict[str, object], address: str, tmp_path: Path
) -> None:
    loaded = load_mapping({"http_options": options}, base_dir=tmp_path)
    with pytest.raises(SpecInvalid, match="is the control API's"):
        check_apart(loaded, address)


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ({"port": 8000}, "http://127.0.0.1:8001"),
        ({"port": 8001, "location": "NoServer"}, "http://127.0.0.1:8001"),
        ({"port": 8001}, "http://cluster.example:8001"),
    ],
)
def test_a_spec_that_does_not_is_taken(options: dict[str, object], address: str, tmp_path: Path) -> None:
    check_apart(load_mapping({"http_options": options}, base_dir=tmp_path), address)


@pytest.mark.parametrize("command", ["apply", "run"])
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("http_options: {port: 8001}\n" + DEPLOYMENTS, "1:22"),
        (DEPLOYMENTS + "http_options:\n  host: 0.0.0.0\n  port: ${PORT:-8001}\n", "4:9"),
        ("http_options: {port: 8001, workers: 2}\nname: x\n" + DEPLOYMENTS, "1:22"),
    ],
)
def test_with_an_address_the_line_is_named_before_anything_is_started(
    command: str, text: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    Path("serve.yaml").write_text(text)
    load_file(Path("serve.yaml"), env={})
    done = CliRunner().invoke(app, ["--address", "http://127.0.0.1:8001", command, "serve.yaml"])
    assert done.exit_code == 1
    assert (
        f"serve.yaml:{place}: error: http_options.port: port 8001 is the control API's [port_conflict]" in done.stderr
    )
