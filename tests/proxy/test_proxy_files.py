"""A ``FileResponse`` whose file the proxy sends: whole to every client that there may be, cut where it cannot be."""

from __future__ import annotations

import contextlib
import os
import time

import pytest
from edge_server import RawClient, RunningServer, get
from starlette.applications import Starlette
from starlette.middleware import Middleware as StarletteMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse
from starlette.routing import Mount, Router
from starlette.routing import Route as AppRoute
from starlette.staticfiles import StaticFiles
from test_proxy_server import make_certificate, trusting

from serveconf.ingress.callables import as_app
from serveconf.ingress.files import passes_files
from serveconf.proxy.app import ProxyApp
from serveconf.proxy.dispatch import Backend
from serveconf.proxy.edge import Edge
from serveconf.proxy.middleware import MiddlewareImporter
from serveconf.proxy.pool import ReplicaPool
from serveconf.proxy.tls import TlsFiles
from serveconf.routing import Front, Generation, Middleware, ReplicaAddress, Route
from serveconf.wire import LentFile, WireServer
from serveconf.wire import lent as wire_lent

SECRET = b"s" * 32
CONTENT = os.urandom(3_000_001)


class Way:
    """A proxy and a replica that answers with ``path``, in whatever way it is told to."""

    def __init__(self, folder, *, middlewares=(), tls=None, answer=None, front=Front()):
        self.path = folder / "file"
        self.path.write_bytes(CONTENT)
        self.messages = []
        self.pool = ReplicaPool(node_id="n", secret=SECRET)
        edge = Edge()
        app = ProxyApp(
            pool=self.pool,
            backend_factory=lambda route: Backend(route, self.pool),
            import_middleware=MiddlewareImporter(str),
            edge=edge,
        )
        self.running = RunningServer(app, edge=edge, tls=tls)
        address = ReplicaAddress(id="r", node_id="n", uds=str(folder / "r"))
        route = Route(
            prefix="/app", stack="s", deployment="d", replicas=(address,), middlewares=middlewares, version="v"
        )

        async def start():
            self.replica = WireServer(answer or self._answer, secret=SECRET, max_ongoing=10, offers_files=True)
            await self.replica.listen_unix(str(folder / "r"))
            await app.stage(Generation(number=1, routes=(route,), front=front))
            app.commit(1)

        self.running.run(start())

    async def _answer(self, scope, receive, send):
        async def noted(message):
            self.messages.append(message["type"])
            await send(message)

        await FileResponse(self.path)(scope, receive, noted)

    def stop(self):
        async def stop():
            await self.running.server.drain(0)
            await self.replica.close()
            await self.pool.close()

        self.running.run(stop())
        self.running._end_loop()


@pytest.fixture
def way(tmp_path, request):
    made = []

    def make(**options):
        made.append(Way(tmp_path, **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def opened(monkeypatch):
    """The files that the proxy has opened, those that it closed among them."""
    files = []
    really = LentFile.__init__

    def noted(self, pid, frame):
        really(self, pid, frame)
        files.append(self.descriptor)

    monkeypatch.setattr(LentFile, "__init__", noted)
    return files


def descriptors_of(path) -> int:
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{number}") == str(path)
    return found


def until(condition):
    while not condition():
        time.sleep(0.005)


def test_the_proxy_sends_the_file_that_the_replica_opened(way, opened):
    way = way()
    with way.running.connect() as client:
        for _ in range(2):
            answer = client.ask(get("/app"))
            assert answer.status == 200
            assert answer.body == CONTENT
        assert client.ask(get("/app", "Range: bytes=10-19\r\n")).body == CONTENT[10:20]
    assert way.messages[:2] == ["http.response.start", "http.response.pathsend"]
    assert len(opened) == 2
    until(lambda: descriptors_of(way.path) == 0)


@pytest.mark.parametrize("cached", [True, False])
def test_what_is_not_in_memory_is_sent_by_a_thread(way, monkeypatch, cached):
    monkeypatch.setattr(LentFile, "is_cached", lambda self, start, size: cached)
    way = way()
    with way.running.connect() as client:
        assert client.ask(get("/app")).body == CONTENT


def test_a_client_that_reads_late_gets_it_whole(way):
    way = way()
    with way.running.connect() as client:
        client.send(get("/app"))
        time.sleep(0.2)
        assert client.answer().body == CONTENT


def test_small_files_are_read_by_the_replica(way, opened):
    way = way()
    way.path.write_bytes(b"small")
    with way.running.connect() as client:
        assert client.ask(get("/app")).body == b"small"
        way.path.write_bytes(b"")
        assert client.ask(get("/app")).body == b""
    assert way.messages[:2] == ["http.response.start", "http.response.pathsend"]
    assert not opened


def test_pipelined_requests_get_their_files_in_turn(way):
    way = way()
    with way.running.connect() as client:
        client.send(get("/app") * 3)
        assert [client.answer().body == CONTENT for _ in range(3)] == [True] * 3


def test_a_file_that_the_proxy_cannot_open_is_sent_by_the_replica(way, monkeypatch):
    def out_of_reach(self, pid, frame):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(LentFile, "__init__", out_of_reach)
    way = way()
    with way.running.connect() as client:
        assert client.ask(get("/app")).body == CONTENT
    until(lambda: descriptors_of(way.path) == 0)


def test_another_file_in_its_place_is_not_taken_for_it(way, monkeypatch):
    really = wire_lent.OwnFile.frame

    def of_another(self, stream):
        frame = really(self, stream)
        frame.inode += 1
        return frame

    monkeypatch.setattr(wire_lent.OwnFile, "frame", of_another)
    way = way()
    with way.running.connect() as client:
        assert client.ask(get("/app")).body == CONTENT  # the replica has sent it


def test_a_file_that_is_renamed_or_removed_meanwhile_is_the_one_that_was_opened(way, monkeypatch):
    really = LentFile.__init__

    def after_removal(self, pid, frame):
        way.path.unlink()
        really(self, pid, frame)

    monkeypatch.setattr(LentFile, "__init__", after_removal)
    way = way()
    with way.running.connect() as client:
        assert client.ask(get("/app")).body == CONTENT


def test_a_file_that_cannot_be_opened_is_the_applications_error(way):
    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": "/nowhere/at/all"})

    way = way(answer=answer)
    with way.running.connect() as client:
        answer = client.ask(get("/app"))
    assert answer.body == b""
    assert not answer.whole


@pytest.mark.parametrize("path", ["/dev/null", "/"])
def test_what_is_no_file_is_not_sent(way, path):
    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": path})

    way = way(answer=answer)
    with way.running.connect() as client:
        assert not client.ask(get("/app")).whole


def test_a_file_without_a_content_length_is_one_chunk(way):
    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": str(way.path)})

    way = way(answer=answer)
    with way.running.connect() as client:
        assert client.ask(get("/app")).body == CONTENT
        assert client.ask(get("/app")).body == CONTENT


def test_a_file_that_is_not_as_long_as_promised_is_cut(way):
    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5000000")]})
        await send({"type": "http.response.pathsend", "path": str(way.path)})

    way = way(answer=answer)
    with way.running.connect() as client:
        answer = client.ask(get("/app"))
    assert answer.get("content-length") == "5000000"
    assert not answer.whole


def test_a_file_that_shrinks_while_it_is_sent_is_cut(way, monkeypatch):
    def shrinking(self, start, size):
        if start:
            os.truncate(way.path, 1_000)
        return True

    monkeypatch.setattr(LentFile, "is_cached", shrinking)
    way = way()
    with way.running.connect() as client:
        assert not client.ask(get("/app")).whole
    until(lambda: descriptors_of(way.path) == 0)


def test_a_client_that_leaves_ends_it(way, opened):
    way = way()
    with way.path.open("r+b") as file:
        file.truncate(64 << 20)
    with way.running.connect() as client:
        client.send(get("/app"))
        until(lambda: opened and descriptors_of(way.path) == 1)  # the replica has closed its own
    until(lambda: descriptors_of(way.path) == 0 and not way.running.server.edge.connections)


CHUNKED = b"POST /app HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"


@pytest.mark.parametrize("request_of_it", [get("/app"), CHUNKED], ids=["GET", "chunked POST"])
def test_a_client_that_takes_nothing_of_it_is_cut(way, opened, request_of_it):
    way = way(front=Front(send_timeout_s=0.3))
    with way.path.open("r+b") as file:
        file.truncate(64 << 20)
    with way.running.connect() as client:
        client.send(request_of_it)
        until(lambda: opened and descriptors_of(way.path) == 1)  # the replica has closed its own
        until(lambda: descriptors_of(way.path) == 0)
        assert not way.running.server.edge.connections


def test_the_replica_is_free_while_the_proxy_sends(way, opened):
    way = way()
    with way.path.open("r+b") as file:
        file.truncate(64 << 20)
    with way.running.connect() as client:
        client.send(get("/app"))
        until(lambda: opened and descriptors_of(way.path) == 1)  # the replica has closed its own
        until(lambda: way.replica.ongoing == 0)
        assert descriptors_of(way.path) == 1


def test_middlewares_see_pieces(way):
    upper = Middleware(import_path="test_proxy_files:Counting")
    way = way(middlewares=(upper,))
    with way.running.connect() as client:
        answer = client.ask(get("/app"))
    assert answer.body == CONTENT
    assert Counting.seen == len(CONTENT)


class Counting:
    seen = 0

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def count(message):
            if message["type"] == "http.response.body":
                assert type(message["body"]) is bytes
                Counting.seen += len(message["body"])
            await send(message)

        await self.app(scope, receive, count)


def test_over_tls_it_comes_in_pieces(way, tmp_path):
    cert, key = make_certificate(tmp_path, "one")
    way = way(tls=TlsFiles(certfile=str(cert), keyfile=str(key)))
    with RawClient(way.running.host, way.running.port, trusting(cert)) as client:
        assert client.ask(get("/app")).body == CONTENT


# Whose files may be sent so


async def own(scope, receive, send):
    """An app of the user's own."""


def endpoint(request):
    return FileResponse("x")


class Own:
    def __init__(self, app):
        self.app = app


@pytest.mark.parametrize(
    ("app", "passes"),
    [
        (Starlette(routes=[AppRoute("/", endpoint)]), True),
        (Starlette(routes=[AppRoute("/", endpoint)], middleware=[StarletteMiddleware(CORSMiddleware)]), True),
        (Starlette(routes=[AppRoute("/", endpoint)], middleware=[StarletteMiddleware(GZipMiddleware)]), False),
        (Starlette(middleware=[StarletteMiddleware(BaseHTTPMiddleware, dispatch=own)]), False),
        (Starlette(middleware=[StarletteMiddleware(Own)]), False),
        (Starlette(routes=[Mount("/s", StaticFiles(directory="/"))]), True),
        (Starlette(routes=[Mount("/s", Own(StaticFiles(directory="/")))]), False),
        (Starlette(routes=[Mount("/s", Starlette(middleware=[StarletteMiddleware(Own)]))]), False),
        (Starlette(routes=[AppRoute("/", endpoint, middleware=[StarletteMiddleware(Own)])]), False),
        (Starlette(routes=[Mount("/s", GZipMiddleware(StaticFiles(directory="/")))]), False),
        (Starlette(routes=[AppRoute("/", endpoint, middleware=[StarletteMiddleware(BaseHTTPMiddleware)])]), False),
        (Router([AppRoute("/", endpoint)]), True),
        (Router([AppRoute("/", endpoint)], middleware=[StarletteMiddleware(Own)]), False),
        (
            Starlette(routes=[Mount("/s", Router([AppRoute("/", endpoint)], middleware=[StarletteMiddleware(Own)]))]),
            False,
        ),
        (own, False),
        (as_app(endpoint), True),
    ],
)
def test_files_are_offered_only_where_nothing_looks_at_bodies(app, passes):
    assert passes_files(app) is passes


def test_fastapi_apps_with_included_routers_pass_files():
    from fastapi import APIRouter, FastAPI

    router = APIRouter()
    router.get("/x")(endpoint)
    app = FastAPI()
    app.include_router(router, prefix="/b")
    assert passes_files(app)
    app.add_middleware(Own)
    assert not passes_files(app)


def test_an_app_that_was_instrumented_passes_none():
    app = Starlette()
    app.build_middleware_stack = lambda: own
    assert not passes_files(app)
