"""What middlewares in the proxy do around an application in a replica: sessions, state, and the usual ones of Starlette."""

from __future__ import annotations

import asyncio
import gzip
import sys
import types

import pytest
from edge_server import RunningServer, get, post
from fastapi import FastAPI, Request, WebSocket
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from websockets.sync.client import connect as connect_websocket

from serveconf.proxy.app import ProxyApp
from serveconf.proxy.dispatch import Backend
from serveconf.proxy.middleware import MiddlewareImporter
from serveconf.proxy.pool import ReplicaPool
from serveconf.routing import Front, Generation, Middleware, ReplicaAddress, Route
from serveconf.wire import WireServer

SECRET = b"s" * 32
SESSION = Middleware("starlette.middleware.sessions:SessionMiddleware", kwargs={"secret_key": "k"})


LARGE = bytes(range(256)) * 8_000  # several pieces on the wire


def make_app():
    app = FastAPI()

    @app.get("/visits")
    async def visits(request: Request):
        request.session["visits"] = request.session.get("visits", 0) + 1
        return request.session["visits"]

    @app.get("/peek")
    async def peek(request: Request):
        return dict(request.session)

    @app.get("/append")
    async def append(request: Request):
        request.session.setdefault("list", []).append(1)
        return request.session["list"]

    @app.get("/logout")
    async def logout(request: Request):
        request.session.clear()
        return "bye"

    @app.get("/object")
    async def put_object(request: Request):
        request.session["object"] = object()

    @app.get("/plain")
    async def plain():
        return PlainTextResponse("x" * 2000)

    @app.get("/large")
    async def large():
        return PlainTextResponse(LARGE)

    @app.get("/state")
    async def state(request: Request):
        return {"user": request.state.user, "has_db": hasattr(request.state, "db")}

    @app.websocket("/ws")
    async def ws(websocket: WebSocket):
        await websocket.accept()
        await websocket.send_json(dict(websocket.session))
        await websocket.close()

    return app


class Whole:
    """A proxy with middlewares, and one replica at ``/app``."""

    def __init__(self, folder, front=(), route=()):
        self.pool = ReplicaPool(node_id="n", secret=SECRET)
        self.app = ProxyApp(
            pool=self.pool,
            backend_factory=lambda route: Backend(route, self.pool),
            import_middleware=MiddlewareImporter(str),
        )
        self.running = RunningServer(self.app, edge=self.app.edge)
        address = ReplicaAddress(id="r", node_id="n", uds=str(folder / "r"))
        generation = Generation(
            number=1,
            front=Front(middlewares=tuple(front)),
            routes=(Route("/app", "s", "d", (address,), middlewares=tuple(route)),),
        )
        self.running.run(self._start(address.uds, generation))

    async def _start(self, path, generation):
        self.replica = WireServer(make_app(), secret=SECRET, max_ongoing=10)
        await self.replica.listen_unix(path)
        await self.app.stage(generation)
        self.app.commit(1)

    def ask(self, path, cookie=None, data=None, **more):
        headers = more.pop("headers", "") + (f"Cookie: {cookie}\r\n" if cookie else "")
        with self.running.connect() as client:
            return client.ask(data or get(path, headers=headers, **more), method=more.get("method", "GET"))

    async def _stop(self):
        await self.running.server.drain(0)
        await self.replica.close()
        await self.pool.close()

    def stop(self):
        self.running.run(self._stop())
        self.running._end_loop()


@pytest.fixture
def whole(tmp_path):
    started = []

    def start(**middlewares):
        started.append(Whole(tmp_path, **middlewares))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def cookie_of(answer):
    return answer.get("set-cookie").split(";")[0]


@pytest.mark.parametrize("where", ["front", "route"])
def test_session_that_the_application_changes_comes_back_as_a_cookie(whole, where):
    proxy = whole(**{where: [SESSION]})
    first = proxy.ask("/app/visits")
    assert (first.status, first.body) == (200, b"1")
    assert first.get("vary") == "Cookie"
    second = proxy.ask("/app/visits", cookie_of(first))
    assert second.body == b"2"
    assert proxy.ask("/app/peek", cookie_of(second)).body == b'{"visits":2}'


def test_session_that_was_only_read_varies_by_cookie_and_sets_none(whole):
    proxy = whole(front=[SESSION])
    answer = proxy.ask("/app/peek", cookie_of(proxy.ask("/app/visits")))
    assert answer.get("vary") == "Cookie"
    assert answer.get("set-cookie") is None
    untouched = proxy.ask("/app/plain")
    assert untouched.get("vary") is None
    assert untouched.get("set-cookie") is None


def test_cleared_session_takes_its_cookie_away(whole):
    proxy = whole(front=[SESSION])
    answer = proxy.ask("/app/logout", cookie_of(proxy.ask("/app/visits")))
    assert answer.get("set-cookie").startswith("session=null;")


def test_change_inside_a_value_is_a_change_no_more_and_no_less_than_in_starlette(whole):
    proxy = whole(front=[SESSION])
    first = proxy.ask("/app/append")
    assert proxy.ask("/app/peek", cookie_of(first)).body == b'{"list":[1]}'
    assert proxy.ask("/app/append", cookie_of(first)).get("set-cookie") is None


def test_session_with_a_value_that_json_cannot_carry_is_the_applications_error(whole, caplog):
    proxy = whole(front=[SESSION])
    assert proxy.ask("/app/object").status == 500
    assert "not JSON serializable" in caplog.text


def test_forged_session_cookie_is_an_empty_session(whole):
    proxy = whole(front=[SESSION])
    assert proxy.ask("/app/peek", "session=forged").body == b"{}"


def test_websocket_sees_the_session(whole):
    proxy = whole(front=[SESSION])
    cookie = cookie_of(proxy.ask("/app/visits"))
    url = f"ws://127.0.0.1:{proxy.running.port}/app/ws"
    with connect_websocket(url, additional_headers={"Cookie": cookie}) as websocket:
        assert websocket.recv() == '{"visits":1}'


class Stating(BaseHTTPMiddleware):
    """What users write most: something known of the request, kept in ``request.state``."""

    async def dispatch(self, request, call_next):
        request.state.user = {"id": 7}
        request.state.db = object()
        answer = await call_next(request)
        answer.headers["x-by"] = "stating"
        return answer


def use(path, **kwargs):
    return Middleware(path, kwargs=kwargs)


@pytest.fixture
def stating(monkeypatch):
    module = types.ModuleType("users_middlewares")
    module.Stating = Stating
    monkeypatch.setitem(sys.modules, "users_middlewares", module)
    return use("users_middlewares:Stating")


@pytest.mark.parametrize("where", ["front", "route"])
def test_state_of_a_users_middleware_reaches_the_application_as_far_as_json_goes(whole, stating, where):
    answer = whole(**{where: [stating]}).ask("/app/state")
    assert answer.body == b'{"user":{"id":7},"has_db":false}'
    assert answer.get("x-by") == "stating"


def test_users_middleware_lets_a_stream_and_an_upload_through(whole, stating):
    proxy = whole(front=[stating])
    assert proxy.ask("/app/plain").body == b"x" * 2000
    assert proxy.ask("", data=post("x" * 70_000, path="/app/plain")).status == 405


@pytest.mark.parametrize("where", ["front", "route"])
def test_users_middleware_gets_a_large_answer_as_bytes(whole, monkeypatch, where):
    kinds = set()

    class Noting:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            async def noting(message):
                if message["type"] == "http.response.body":
                    kinds.add(type(message["body"]))
                await send(message)

            await self.app(scope, receive, noting)

    module = types.ModuleType("noting_middleware")
    module.Noting = Noting
    monkeypatch.setitem(sys.modules, "noting_middleware", module)
    assert whole(**{where: [use("noting_middleware:Noting")]}).ask("/app/large").body == LARGE
    assert kinds == {bytes}


def test_gzip_compresses_what_the_client_takes(whole):
    proxy = whole(front=[use("starlette.middleware.gzip:GZipMiddleware", minimum_size=500)])
    answer = proxy.ask("/app/plain", headers="Accept-Encoding: gzip\r\n")
    assert answer.get("content-encoding") == "gzip"
    assert gzip.decompress(answer.body) == b"x" * 2000
    assert proxy.ask("/app/plain").body == b"x" * 2000


def test_untrusted_host_is_refused_before_any_replica(whole):
    proxy = whole(front=[use("starlette.middleware.trustedhost:TrustedHostMiddleware", allowed_hosts=["example.com"])])
    assert proxy.ask("/app/plain").status == 400
    assert proxy.ask("", data="GET /app/plain HTTP/1.1\r\nHost: example.com\r\n\r\n").status == 200


def test_http_is_sent_to_https(whole):
    answer = whole(front=[use("starlette.middleware.httpsredirect:HTTPSRedirectMiddleware")]).ask("/app/plain?a=1")
    assert (answer.status, answer.get("location")) == (307, "https://localhost/app/plain?a=1")


def test_preflight_is_answered_in_the_proxy_and_every_answer_allows_the_origin(whole):
    cors = use("starlette.middleware.cors:CORSMiddleware", allow_origins=["https://a.example"], allow_methods=["PUT"])
    proxy = whole(front=[cors])
    origin = "Origin: https://a.example\r\n"
    preflight = proxy.ask("/nowhere", headers=origin + "Access-Control-Request-Method: PUT\r\n", method="OPTIONS")
    assert preflight.status == 200
    assert preflight.get("access-control-allow-origin") == "https://a.example"
    for path, status in (("/app/plain", 200), ("/app/nothing", 404), ("/nowhere", 404)):
        answer = proxy.ask(path, headers=origin)
        assert (answer.status, answer.get("access-control-allow-origin")) == (status, "https://a.example")


def test_more_than_can_be_carried_is_an_error_and_goes_nowhere(whole, monkeypatch, caplog):
    class Large:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            scope["session"] = {"a": "x" * 70_000}
            await self.app(scope, receive, send)

    module = types.ModuleType("users_middlewares")
    module.Large = Large
    monkeypatch.setitem(sys.modules, "users_middlewares", module)
    proxy = whole(front=[use("users_middlewares:Large")])
    assert proxy.ask("/app/plain").status == 500
    assert "can be carried" in caplog.text
    assert proxy.running.run(asyncio.sleep(0, proxy.replica.ongoing)) == 0
