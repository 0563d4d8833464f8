"""Commands and controllers of different versions: who understands whom, and what is said where they do not."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from serveconf import __version__
from serveconf.cli.parser import app
from serveconf.client import Client
from serveconf.credentials import prove
from serveconf.errors import Unreachable
from serveconf.versions import Speaker, compare, is_older

COMMAND = Speaker(version="0.3.0", api=3, oldest_api=2)
Begin = Callable[..., str]


@pytest.fixture
def controller() -> Iterator[Begin]:
    """A controller that says these versions of itself and refuses every other request; its address."""
    servers: list[ThreadingHTTPServer] = []

    def begin(versions: dict[str, Any]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                if url.path.endswith("/health"):
                    proofs = [prove("secret", parse_qs(url.query)["challenge"][0])]
                    return self.answer(200, {"service": "serveconf", "proofs": proofs, **versions})
                if url.path.endswith("/routes"):
                    return self.answer(200, {"/": "shop"})
                message = f"GET {url.path}: Not Found"
                return self.answer(404, {"error": {"code": "not_found", "message": message, "hint": "see /docs"}})

            def answer(self, status: int, said: dict[str, Any]) -> None:
                body = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


def run(address: str, *args: str) -> Any:
    """A command against that controller."""
    return CliRunner().invoke(app, ["--address", address, "--token", "secret", *args])


@pytest.mark.parametrize(
    ("controller", "said"),
    [
        (COMMAND, None),
        (
            Speaker(version="0.2.9", api=2, oldest_api=1),
            "the controller runs serveconf 0.2.9, this command is serveconf 0.3.0: "
            "'serveconf upgrade' brings it to this version",
        ),
        (
            Speaker(version="0.10.0", api=3, oldest_api=2),
            "the controller runs serveconf 0.10.0, this command is serveconf 0.3.0: "
            "pip install 'serveconf==0.10.0' has the command that belongs to it",
        ),
    ],
)
def test_versions_that_understand_each_other_are_told(controller: Speaker, said: str | None) -> None:
    assert compare(controller, COMMAND) == said


def test_a_version_is_older_by_its_numbers() -> None:
    assert is_older("0.9.1", "0.10.0") and is_older("", "0.0.1")
    assert not is_older("1.0.0", "1.0.0") and not is_older("1.1", "1.0.9")


def test_the_same_version_says_nothing(controller: Begin) -> None:
    done = run(controller({"version": __version__, "api": 1, "oldest_api": 0}), "routes")
    assert (done.exit_code, done.stderr) == (0, "")


def test_an_older_controller_is_used_and_told_of(controller: Begin) -> None:
    done = run(controller({"version": "0.0.1", "api": 1, "oldest_api": 0}), "routes", "-o", "json")
    assert done.exit_code == 0 and json.loads(done.stdout) == {"/": "shop"}
    assert "note: the controller runs serveconf 0.0.1" in done.stderr and "'serveconf upgrade'" in done.stderr


def test_a_controller_that_is_too_new_is_not_asked(controller: Begin) -> None:
    done = run(controller({"version": "9.0.0", "api": 9, "oldest_api": 8}), "routes")
    assert done.exit_code == 1 and done.stdout == ""
    assert "the controller runs serveconf 9.0.0, which does not understand this command" in done.stderr
    assert "pip install 'serveconf==9.0.0'" in done.stderr


def test_what_a_controller_of_another_version_does_not_know_is_put_down_to_that(controller: Begin) -> None:
    done = run(controller({"version": "0.0.2", "api": 1, "oldest_api": 0}), "history", "--stack", "shop")
    assert done.exit_code == 1
    assert "hint: the controller runs serveconf 0.0.2" in done.stderr


def test_the_last_word_of_a_controller_that_ends_may_be_lost_and_one_that_is_not_there_has_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def end() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                connection.recv(65536)
                connection.close()

        ending = threading.Thread(target=end)
        ending.start()
        client = Client(address, "secret")
        client.upgrade_controller("0.3.0")
        client.upgrade_controller("0.3.0")
        ending.join()
    with pytest.raises(Unreachable):
        client.upgrade_controller("0.3.0")


@pytest.mark.parametrize(
    "older_to_newer",
    [
        ("", "0.0.1"),
        ("not a version", "0.0.1.dev1"),
        ("0.2.0.dev1", "0.2.0a1", "0.2.0b1", "0.2.0rc1", "0.2.0", "0.2.0.post1", "0.2.1"),
        ("1.9", "1.10", "1!0.1"),
        ("1.0+local.1", "1.1"),
    ],
)
def test_versions_come_in_the_order_that_python_packages_have(older_to_newer: tuple[str, ...]) -> None:
    for older, newer in itertools.pairwise(older_to_newer):
        assert is_older(older, newer)
        assert not is_older(newer, older)


def test_the_same_version_written_in_two_ways_is_none_of_both() -> None:
    assert not is_older("1.0", "1.0.0") and not is_older("1.0.0", "1.0")
    assert not is_older("", "") and not is_older("no version", "")


def test_a_controller_before_the_release_is_brought_to_it_and_not_the_other_way_round() -> None:
    said = compare(Speaker(version="0.3.0rc1", api=3, oldest_api=2), COMMAND)
    assert said is not None and "'serveconf upgrade' brings it to this version" in said
    said = compare(Speaker(version="0.3.0.post1", api=3, oldest_api=2), COMMAND)
    assert said is not None and "pip install 'serveconf==0.3.0.post1'" in said
