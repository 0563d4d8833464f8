"""Apps that know nothing of us answer under a prefix as they do under ``uvicorn --root-path``, answer by answer."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import Stack
from place import ASK_S, Place, ask, until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from serveconf.local_ray import free_port

PREFIX = "/rich"
OWN = {"date", "server", "x-request-id"}  # each server's own
EXPIRES = re.compile("expires=[^;]*GMT")
BIG = bytes(range(256)) * 40_960  # 10 MB


@dataclass(frozen=True)
class Ask:
    """One request, sent byte for byte."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | list[bytes] = b""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def multipart(*files: tuple[str, str, bytes]) -> tuple[dict[str, str], bytes]:
    """Headers and body of an upload."""
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\nContent-Type: {kind}\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for name, kind, data in files
    ]
    return {"content-type": "multipart/form-data; boundary=edge"}, b"".join(parts) + b"--edge--\r\n"


FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/json"}
GETS = [
    "/", "", "/scope", "/scope?a=1&a=2&b=%20+%26", "/scope?", "/any/one%2Ftwo/three", "/any/a%20b%C3%BC", "/any//two",
    "/slashed", "/slashed?q=1", "/slashed/", "/scope/", "/named/7", "/named/seven", "/redirect", "/docs", "/redoc",
    "/openapi.json", "/docs/oauth2-redirect", "/cookies", "/background", "/tea", "/forbidden", "/broken", "/items",
    "/badmodel", "/badmodel?ok=0", "/pages", "/pages?page=3&size=x", "/html", "/file", "/repeated", "/bytes/0",
    "/bytes/65536", "/stream", "/sse", "/router/deep", "/router/deep/", "/sub/inner", "/sub/openapi.json", "/sub/docs",
    "/sub", "/sub/", "/sub/none", "/static/a.css", "/static/", "/static", "/static/none", "/static/../rich_app.py",
    "/nothing", "/nothing/", "//", "/%2F",
]  # fmt: skip
OTHERS = [
    Ask("HEAD", "/"),
    Ask("HEAD", "/file"),
    Ask("HEAD", "/static/a.css"),
    Ask("OPTIONS", "/"),
    Ask("OPTIONS", "/scope"),
    Ask("DELETE", "/scope"),
    Ask("PATCH", "/scope", {}, b"some"),
    Ask("PUT", "/scope", {}, "ü".encode()),
    Ask("POST", "/"),
    Ask("POST", "/slashed", {}, b"kept"),
    Ask("GET", "/cookies", {"cookie": "taste=sour; other=1"}),
    Ask("GET", "/pages?page=2", {"x-agent": "double"}),
    Ask("GET", "/scope", {"X-Many": "1, 2", "accept": "text/plain"}),
    Ask("GET", "/file", {"range": "bytes=0-9"}),
    Ask("GET", "/static/a.css", {"if-none-match": '"nope"'}),
    Ask("POST", "/form", FORM, b"name=tea&age=4"),
    Ask("POST", "/form", FORM, b"age=four"),
    Ask("POST", "/upload", *multipart(("a.txt", "text/plain", b"small"), ("ü.bin", "image/png", BIG[:300_000]))),
    Ask("POST", "/items", JSON, b'{"name": "tea", "tags": ["hot"]}'),
    Ask("POST", "/items", JSON, b'{"price": "x"}'),
    Ask("POST", "/items", JSON, b"{broken"),
    Ask("POST", "/count", {}, BIG),
    Ask("POST", "/count", {}, [b"one", b"two" * 50_000, b"three"]),
    Ask("POST", "/echo", {"content-type": "application/x-own"}, BIG),
    Ask("GET", f"/bytes/{len(BIG)}"),
]
ASKS = [*(Ask("GET", path) for path in GETS), *OTHERS]


@dataclass(frozen=True)
class Servers:
    """The same app twice: the ports, and what stands before the path."""

    plain: int
    served: int


@pytest.fixture(scope="module")
def servers(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """uvicorn with a root path, and a stack."""
    stack = Stack(place, "rich", tmp_path_factory.mktemp("apps"))
    shutil.copytree(Path(__file__).parent / "rich", stack.folder, dirs_exist_ok=True)
    for path in stack.folder.rglob("*.*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))  # snapshots know times to two seconds
    stack.code("other", OTHER)
    stack.spec(
        f"name: rich, import_path: 'rich_app:app', route_prefix: {PREFIX}",
        "name: starlette, import_path: 'other:star', route_prefix: /star",
        "name: raw, import_path: 'other:raw', route_prefix: /raw",
    )
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "rich_app:app", "--port", str(port), "--root-path", PREFIX]
    plain = subprocess.Popen([*command, "--log-level", "critical"], cwd=stack.folder, env=place.env)
    try:
        stack.apply()
        until(lambda: ask(f"http://127.0.0.1:{port}/")[0] == 200, "uvicorn answers")
        yield Servers(port, place.http_port)
        place.ok("delete", "--stack", stack.name)
    finally:
        os.kill(plain.pid, signal.SIGTERM)
        plain.wait()


def answer(port: int, prefix: str, asked: Ask) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ASK_S)
    connection.putrequest(asked.method, prefix + asked.path or "/", skip_host=True, skip_accept_encoding=True)
    headers = {"host": "example.test", **asked.headers}
    chunked = isinstance(asked.body, list)
    if chunked:
        headers["transfer-encoding"] = "chunked"
    elif asked.body:
        headers["content-length"] = str(len(asked.body))
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(iter(asked.body) if isinstance(asked.body, list) else asked.body, encode_chunked=chunked)
    got = connection.getresponse()
    body = got.read()
    connection.close()
    kept = [(n.lower(), EXPIRES.sub("", v)) for n, v in got.getheaders() if n.lower() not in OWN]
    return got.status, sorted(kept, key=lambda header: header[0]), body  # those of one name stay in their order


@pytest.mark.parametrize("asked", ASKS, ids=str)
def test_answer_is_that_of_uvicorn_with_a_root_path(servers: Servers, asked: Ask) -> None:
    assert answer(servers.served, PREFIX, asked) == answer(servers.plain, "", asked)


def transcript(url: str, say: list[str | bytes], **options: Any) -> list[Any]:
    """Everything that a WebSocket says, to its end."""
    seen: list[Any] = []
    try:
        with connect(url, proxy=None, open_timeout=ASK_S, **options) as socket:
            assert socket.response is not None
            seen += [socket.subprotocol, socket.response.headers.get("x-room"), socket.recv(timeout=ASK_S)]
            for message in say:
                socket.send(message)
                seen.append(socket.recv(timeout=ASK_S))
    except InvalidStatus as refused:
        return ["refused", refused.response.status_code, refused.response.body]
    except ConnectionClosed as closed:
        return [*seen, closed.rcvd and (closed.rcvd.code, closed.rcvd.reason)]
    return seen


SUBPROTOCOLS = [Subprotocol("first"), Subprotocol("second")]


@pytest.mark.parametrize(
    ("path", "say", "options"),
    [
        ("/ws/blue", ["hello", b"\x00\x01\xff", "ü" * 5000, "bye"], {}),
        ("/ws/red%2Fgreen", ["bye"], {"subprotocols": SUBPROTOCOLS}),
        ("/ws/big", [BIG[:900_000]], {"compression": None}),
        ("/refused", [], {}),
        ("/nothing", [], {}),
    ],
)
def test_websocket_is_that_of_uvicorn_with_a_root_path(
    servers: Servers, path: str, say: list[str | bytes], options: dict[str, Any]
) -> None:
    plain = transcript(f"ws://127.0.0.1:{servers.plain}{path}", say, **options)
    assert transcript(f"ws://127.0.0.1:{servers.served}{PREFIX}{path}", say, **options) == plain


OTHER = """
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route


    def home(request):
        return PlainTextResponse(str(request.url_for("deep", name="x").path))


    def deep(request):
        return PlainTextResponse(request.path_params["name"])


    star = Starlette(routes=[Route("/", home), Mount("/m", routes=[Route("/{name}", deep, name="deep")])])


    async def raw(scope, receive, send):
        assert scope["type"] == "http"
        body = f"{scope['root_path']} {scope['path']}".encode()
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x-raw", b"1")]})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"!"})
    """


def test_apps_of_other_kinds_are_served_as_they_are(servers: Servers) -> None:
    url = f"http://127.0.0.1:{servers.served}"
    assert ask(f"{url}/star") == (200, "/star/m/x")
    assert ask(f"{url}/star/m/y") == (200, "y")
    assert ask(f"{url}/raw/deep") == (201, "/raw /raw/deep!")
