"""What someone gives as a repository or a branch is data: no option, no program, no secret that is shown."""

from __future__ import annotations

import base64
import http.server
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serveconf.errors import AuthorError, OperatorError
from serveconf.watch.address import check_branch, parse_address
from serveconf.watch.git import Checkout


@pytest.mark.parametrize(
    "text",
    [
        "ext::sh -c 'touch /tmp/never'",
        "fd::3",
        "foo+ext::x",
        "--upload-pack=touch /tmp/never",
        "-u",
        "ssh://-oProxyCommand=touch/x",
        "-oProxyCommand=touch:x",
        "git@-oProxyCommand=touch:x",
        "gopher://host/x",
        "transport::https://host/x",
        "https://user:pass%0aword@host/x",
        "https://host/x\nhttps://other/y",
        "no/such/folder",
        "",
    ],
)
def test_what_git_could_take_for_something_else_is_refused(text: str) -> None:
    with pytest.raises(AuthorError):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://host.example/a/b.git", "https://host.example/a/b.git"),
        ("https://me:pa%40ss@host.example:8443/a/b.git", "https://host.example:8443/a/b.git"),
        ("https://ghp_token@host.example/a/b.git?x=secret", "https://host.example/a/b.git"),
        ("ssh://git:pass@host.example/a.git", "ssh://git@host.example/a.git"),
        ("git@host.example:a/b.git", "git@host.example:a/b.git"),
        ("file:///srv/a.git", "file:///srv/a.git"),
    ],
)
def test_an_address_is_shown_without_its_secrets(text: str, shown: str) -> None:
    address = parse_address(text)
    assert address.shown == shown
    assert "pass" not in address.url and "ghp" not in address.url
    assert "pa@ss" not in repr(address)


@pytest.mark.parametrize(
    "name",
    [
        "main:other",
        "+main",
        "--upload-pack=x",
        "a b",
        "a..b",
        "x@{1}",
        "a^",
        "a~1",
        "*",
        "",
        "@",
        "a.lock",
        "/a",
        "a\n",
    ],
)
def test_only_a_name_is_a_branch(name: str) -> None:
    with pytest.raises(AuthorError):
        check_branch(name)


@pytest.mark.parametrize("name", ["main", "feature/x-1", "v1.2.3", "dependabot/npm_and_yarn/a@2"])
def test_names_of_branches_are_taken(name: str) -> None:
    assert check_branch(name) == name


class _Git(http.server.BaseHTTPRequestHandler):
    """git's own HTTP server behind a password."""

    root = Path()
    asked: tuple[str, ...] = ()

    def do_GET(self) -> None:
        wanted = "Basic " + base64.b64encode(b"me:pa@ss").decode()
        if self.headers.get("authorization") != wanted:
            self.send_response(401)
            self.send_header("www-authenticate", 'Basic realm="git"')
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        length = int(self.headers.get("content-length") or 0)
        done = subprocess.run(
            ["git", "http-backend"],
            input=self.rfile.read(length),
            capture_output=True,
            check=True,
            env={
                **os.environ,
                "GIT_PROJECT_ROOT": str(self.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("content-type") or "",
                "GIT_PROTOCOL": self.headers.get("git-protocol") or "",
                "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding") or "",
            },
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        self.send_response(200)
        for line in head.decode().splitlines():
            name, _, value = line.partition(": ")
            if name.lower() != "status":
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    """The port of a server that has ``repository`` behind the password pa@ss of me."""
    _Git.root = tmp_path
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Git) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_password_reaches_the_server_and_nobody_else(
    tmp_path: Path, server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    seen: list[list[str]] = []
    started = subprocess.Popen

    class Watched(started):  # type: ignore[type-arg,valid-type,misc]
        def __init__(self, command: list[str], **options: object) -> None:
            seen.append([str(word) for word in command])
            super().__init__(command, **options)

    folder = tmp_path / "repository"
    subprocess.run(["git", "init", "-q", "-b", "main", folder], check=True)
    (folder / "serve.yaml").write_text("one")
    who = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    subprocess.run(["git", "-C", folder, "add", "."], check=True)
    subprocess.run(["git", "-C", folder, *who, "commit", "-qm", "one"], check=True)
    monkeypatch.setattr("serveconf.watch.git.subprocess.Popen", Watched)

    checkout = Checkout(f"http://me:pa%40ss@127.0.0.1:{server}/repository/.git", "main")
    checkout.pull()
    assert (checkout.folder / "serve.yaml").read_text() == "one"
    assert seen and not [words for words in seen if "pa@ss" in " ".join(words) or "pa%40ss" in " ".join(words)]
    assert "pa@ss" not in (checkout.folder / ".git" / "config").read_text()

    wrong = Checkout(f"http://me:secret@127.0.0.1:{server}/repository/.git", "main")
    with pytest.raises(OperatorError) as refused:
        wrong.pull()
    assert "secret" not in f"{refused.value.message} {refused.value.hint}"
    assert "repository" in refused.value.message
