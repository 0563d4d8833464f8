"""The token: where it may come from, whom it is told, and the one that may only look."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner, Result

from serveconf import __version__
from serveconf.cli.parser import app
from serveconf.credentials import fingerprint, prove, read_only

TOKEN = "the-token-of-this-cluster"
Serve = Callable[[str], str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    for name in ("SERVECONF_ADDRESS", "SERVECONF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def heard() -> list[str]:
    """The authorizations that the other end was sent."""
    return []


@pytest.fixture
def serve(heard: list[str]) -> Iterator[Serve]:
    """Something that says it is a control API, and knows one token; gives its address."""
    servers: list[ThreadingHTTPServer] = []

    def begin(token: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                heard.extend(filter(None, [self.headers.get("authorization")]))
                query = parse_qs(urlsplit(self.path).query)
                proofs = [prove(one, query["challenge"][0]) for one in (token, read_only(token))]
                health = {"service": "serveconf", "version": __version__, "proofs": proofs, "stacks": []}
                body = json.dumps(health).encode()
                self.send_response(200)
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


def call(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def test_the_token_may_come_from_a_file_or_from_stdin(serve: Serve, tmp_path: Path) -> None:
    address = serve(TOKEN)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    for given, stdin in (
        (["--token-file", str(tmp_path / "token")], ""),
        (["--token-file", "-"], f"{TOKEN}\n"),
        (["--token", "-"], f"{TOKEN}\n"),
        (["--token", TOKEN], ""),
    ):
        done = call("--address", address, *given, "token", stdin=stdin)
        assert (done.exit_code, done.stdout) == (0, f"{TOKEN}\n"), given


def test_a_file_without_a_token_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for path in (tmp_path / "empty", tmp_path / "none"):
        done = call("--token-file", str(path), "status")
        assert done.exit_code == 2 and "--token-file" in done.stderr


def test_the_read_only_token_follows_from_the_token_and_from_itself(serve: Serve) -> None:
    address = serve(TOKEN)
    done = call("--address", address, "--token", TOKEN, "token", "--read-only", "-o", "json")
    named = f"read:{fingerprint(read_only(TOKEN))}"
    assert json.loads(done.stdout) == {"token": read_only(TOKEN), "role": "read", "name": named}
    assert read_only(read_only(TOKEN)) == read_only(TOKEN) != TOKEN
    again = call("--address", address, "--token", read_only(TOKEN), "token", "-o", "json")
    assert json.loads(again.stdout) == json.loads(done.stdout)


def test_who_does_not_know_the_token_is_not_told_it(serve: Serve, heard: list[str]) -> None:
    address = serve("another")
    done = call("--address", address, "--token", TOKEN, "status")
    assert done.exit_code == 1 and "does not know the token" in done.stderr
    assert heard == []


def test_asking_whether_anybody_is_there_tells_no_token(serve: Serve, heard: list[str]) -> None:
    address = serve(TOKEN)
    assert call("--address", address, "--token", TOKEN, "token").exit_code == 0
    assert heard == []
