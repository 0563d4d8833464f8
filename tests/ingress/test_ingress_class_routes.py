import contextlib
import functools
import io
from collections import ChainMap
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from serveconf.errors import AuthorError
from serveconf.ingress.app import build
from serveconf.ingress.by_value import REDUCERS
from serveconf.ingress.class_routes import ingress
from serveconf.ingress.deployment import deployment


class Item(BaseModel):
    name: str
    price: float = 1.0


def show_name(name: str):
    return name


def paths(client: Any) -> list[str]:
    return sorted(client.get("/openapi.json").json()["paths"])


def operations(client: Any) -> list[tuple[str, str]]:
    return sorted((p, m) for p, ms in client.get("/openapi.json").json()["paths"].items() for m in ms)


def test_methods_answer_with_the_replicas_own_instance(client):
    app = FastAPI()

    @ingress(app)
    class Counter:
        def __init__(self, start: int):
            self.count = start

        @app.get("/next")
        def next(self):
            self.count += 1
            return self.count

    one, two = client(build(Counter, init_args=[0]).app), client(build(Counter, init_args=[100]).app)
    assert [one.get("/next").json(), one.get("/next").json(), two.get("/next").json()] == [1, 2, 101]


def test_path_query_body_dependencies_and_response_models_work_in_methods(client):
    app = FastAPI()

    def limit(limit: int = 10) -> int:
        return limit

    @ingress(app)
    class Shop:
        prefix = "shop"

        @app.post("/items/{id}", response_model=Item, status_code=201, tags=["items"], dependencies=[Depends(limit)])
        async def put(
            self, id: int, item: Item, request: Request, q: str | None = None, limit: Annotated[int, Depends(limit)] = 0
        ):
            """Puts one."""
            assert request.url.path == f"/items/{id}"
            return {"name": f"{self.prefix}/{id}/{item.name}/{q}/{limit}", "price": 2, "secret": 1}

    c = client(build(Shop).app)
    answer = c.post("/items/3?q=x&limit=5", json={"name": "tea"})
    assert (answer.status_code, answer.json()) == (201, {"name": "shop/3/tea/x/5", "price": 2.0})
    assert c.post("/items/x", json={}).status_code == 422
    operation = c.get("/openapi.json").json()["paths"]["/items/{id}"]["post"]
    assert [p["name"] for p in operation["parameters"]] == ["id", "q", "limit"]
    assert (operation["tags"], operation["description"]) == (["items"], "Puts one.")


def test_two_methods_of_one_name_are_two_routes(client):
    app = FastAPI()

    @ingress(app)
    class MyFastAPIDeployment:
        @app.get("/")
        def root(self):
            return "Hello, world!"

        @app.post("/{subpath}")
        def root(self, subpath: str):  # noqa: F811
            return f"Hello from {subpath}!"

    c = client(build(MyFastAPIDeployment).app, "/hello")
    assert [c.get("/hello").json(), c.get("/hello/").json()] == ["Hello, world!"] * 2
    assert c.post("/hello/Serve").json() == "Hello from Serve!"


def test_an_empty_class_serves_the_app_whole(client):
    app = FastAPI(title="whole")

    @app.get("/")
    def root():
        return "root"

    @ingress(app)
    class Wrapper:
        pass

    c = client(build(Wrapper).app)
    assert (c.get("/").json(), c.get("/docs").status_code, c.get("/openapi.json").json()["info"]["title"]) == (
        "root",
        200,
        "whole",
    )


def test_classes_that_share_an_app_share_its_own_routes_and_nothing_else(client):
    app = FastAPI()

    @app.get("/")
    def root():
        return "Hello from the root!"

    before = list(app.routes)

    @ingress(app)
    class One:
        @app.get("/subpath")
        def method(self):
            return "Hello 1!"

        @app.get("/only1")
        def only(self): ...

    @ingress(app)
    class Two:
        @app.get("/subpath")
        def method(self):
            return "Hello 2!"

    one, two, original = client(build(One).app), client(build(Two).app), client(app)
    assert [c.get("/").json() for c in (one, two, original)] == ["Hello from the root!"] * 3
    assert [one.get("/subpath").json(), two.get("/subpath").json()] == ["Hello 1!", "Hello 2!"]
    assert two.get("/only1").status_code == 404
    assert (paths(one), paths(two), paths(original)) == (["/", "/only1", "/subpath"], ["/", "/subpath"], ["/"])
    assert list(app.routes) == before
    assert original.get("/subpath").status_code == 404


def test_methods_on_included_routers_work_however_late_they_are_included(client):
    app = FastAPI()
    inner, outer, late = APIRouter(prefix="/inner"), APIRouter(prefix="/outer", tags=["t"]), APIRouter()

    @inner.get("/plain")
    def plain():
        return "plain"

    class View:
        name = "view"

        @inner.get("/x")
        def x(self, q: int = 0):
            return [self.name, q]

        @outer.get("/y")
        def y(self):
            return self.name

        @late.get("/z/{k}")
        def z(self, k: str):
            return [self.name, k]

        @late.websocket("/ws")
        async def ws(self, websocket: WebSocket):
            await websocket.accept()
            await websocket.send_text(self.name)
            await websocket.close()

    outer.include_router(inner)
    app.include_router(outer, prefix="/v1")
    view = ingress(app)(View)

    @ingress(app)
    class Other:
        pass

    app.include_router(late, prefix="/late")

    @app.get("/afterwards")
    def afterwards(): ...

    c, other = client(build(view).app), client(build(Other).app)
    assert c.get("/v1/outer/inner/x?q=2").json() == ["view", 2]
    assert c.get("/v1/outer/inner/plain").json() == "plain"
    assert c.get("/v1/outer/y").json() == "view"
    assert c.get("/late/z/1").json() == ["view", "1"]
    with c.websocket_connect("/late/ws") as socket:
        assert socket.receive_text() == "view"
    assert paths(c) == ["/afterwards", "/late/z/{k}", "/v1/outer/inner/plain", "/v1/outer/inner/x", "/v1/outer/y"]
    assert paths(other) == ["/afterwards", "/v1/outer/inner/plain"]


def test_websocket_routes_get_the_instance_and_their_parameters(client):
    app = FastAPI()

    @ingress(app)
    class Chat:
        greeting = "hi"

        @app.websocket("/chat/{room}")
        async def chat(self, websocket: WebSocket, room: str, user: str = "nobody"):
            await websocket.accept(subprotocol="v1")
            await websocket.send_json([self.greeting, room, user, await websocket.receive_text()])
            await websocket.close(code=4001)

    with client(build(Chat).app, "/p").websocket_connect("/p/chat/7?user=me", subprotocols=["v1"]) as socket:
        socket.send_text("text")
        assert socket.receive_json() == ["hi", "7", "me", "text"]
        assert socket.receive()["code"] == 4001


def test_routes_of_base_classes_are_inherited_and_overridden_methods_answer(client):
    app = FastAPI()

    class Base:
        @app.get("/name")
        def name(self):
            return "base"

        @app.get("/kept")
        def kept(self):
            return self.name()

        @app.get("/again")
        def again_in_base(self): ...

    @ingress(app)
    class First(Base):
        def name(self):
            return "first"

    @ingress(app)
    class Second(Base):
        @app.get("/again")
        def again(self):
            return "second"

    class Third(First):
        @app.get("/third")
        def third(self):
            return "third"

    first, second, third = (client(build(c).app) for c in (First, Second, Third))
    assert [first.get("/name").json(), first.get("/kept").json()] == ["first", "first"]
    assert [second.get("/name").json(), second.get("/again").json()] == ["base", "second"]
    assert operations(second) == [("/again", "get"), ("/kept", "get"), ("/name", "get")]
    assert [third.get("/third").json(), third.get("/name").json()] == ["third", "first"]
    assert first.get("/third").status_code == 404


def test_static_and_class_methods_and_wrapped_methods_are_bound_as_python_does(client):
    app = FastAPI()

    def loud(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs).upper()

        return wrapper

    @ingress(app)
    class Mixed:
        @staticmethod
        @app.get("/static")
        def static(q: str = "s"):
            return q

        @classmethod
        @app.get("/class")
        def klass(cls):
            return cls.__name__

        @app.get("/inside")
        @loud
        def inside(self, q: str):
            return q

        @loud
        @app.get("/outside")
        def outside(self):
            return "outside"

    c = client(build(Mixed).app)
    assert [c.get(p).json() for p in ("/static", "/class", "/inside?q=a", "/outside")] == ["s", "Mixed", "A", "outside"]


def test_a_function_that_a_class_only_refers_to_stays_a_function(client):
    app = FastAPI()
    app.get("/show")(show_name)

    @ingress(app)
    class View:
        show = show_name

    assert client(build(View).app).get("/show?name=x").json() == "x"


def test_a_route_added_for_a_method_after_decoration_is_bound(client):
    app = FastAPI()

    @ingress(app)
    class View:
        def late(self, q: int):
            return [type(self).__name__, q]

    app.add_api_route("/late", View.late, methods=["PUT"])
    assert client(build(View).app).put("/late?q=1").json() == ["View", 1]


def test_a_method_stands_where_it_was_declared_among_the_apps_routes(client):
    app = FastAPI()

    @ingress(app)
    class Early:
        @app.get("/x")
        def x(self):
            return "method"

    @app.get("/{anything}")
    def anything(anything: str):
        return "app"

    @ingress(app)
    class Late:
        @app.get("/x")
        def x(self): ...

    assert client(build(Early).app).get("/x").json() == "method"
    assert client(build(Late).app).get("/x").json() == "app"


def test_middlewares_handlers_mounts_lifespan_and_overrides_of_the_app_stay(client):
    log: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        log.append("up")
        app.state.shared = "shared"
        yield {"key": "state"}

    app = FastAPI(lifespan=lifespan)
    app.mount("/sub", Starlette(routes=[Route("/", lambda request: PlainTextResponse("mounted"))]))

    class Header(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            response = await call_next(request)
            response.headers["x-mark"] = "1"
            return response

    app.add_middleware(Header)

    @app.exception_handler(KeyError)
    def on_key_error(request, exc):
        return PlainTextResponse("handled", status_code=409)

    def user():
        return "real"

    app.dependency_overrides[user] = lambda: "overridden"

    @ingress(app)
    class View:
        def __init__(self):
            log.append("init")

        @app.get("/x")
        def x(self, request: Request, user: Annotated[str, Depends(user)]):
            return [user, request.state.key, request.app.state.shared, app.state.shared, str(request.url_for("x"))]

        @app.get("/fails")
        def fails(self):
            raise KeyError

    with client(build(View).app) as c:
        answer = c.get("/x")
        assert answer.json() == ["overridden", "state", "shared", "shared", "http://testserver/x"]
        assert answer.headers["x-mark"] == "1"
        assert (c.get("/fails").status_code, c.get("/fails").text) == (409, "handled")
        assert c.get("/sub/").text == "mounted"
    assert log == ["init", "up"]


def test_an_openapi_of_the_authors_own_shows_each_class_its_routes(client):
    app = FastAPI()

    def custom():
        if not app.openapi_schema:
            app.openapi_schema = get_openapi(title="custom", version="9", routes=app.routes)
        return app.openapi_schema

    app.openapi = custom

    @ingress(app)
    class One:
        @app.get("/one")
        def one(self): ...

    @ingress(app)
    class Two:
        @app.get("/two")
        def two(self): ...

    assert [paths(client(a)) for a in (build(One).app, app, build(Two).app)] == [["/one"], [], ["/two"]]


def test_streaming_methods_and_custom_route_classes_survive(client):
    seen = []

    class Logged(APIRoute):
        def get_route_handler(self):
            original = super().get_route_handler()

            async def handler(request):
                seen.append(request.url.path)
                return await original(request)

            return handler

    app = FastAPI()
    app.router.route_class = Logged

    @ingress(app)
    class View:
        @app.get("/items")
        def items(self) -> list[Item]:
            return [Item(name=type(self).__name__)]

    assert client(build(View).app).get("/items").json() == [{"name": "View", "price": 1.0}]
    assert seen == ["/items"]


def test_docs_that_the_author_turned_off_stay_off(client):
    app = FastAPI(docs_url=None, openapi_url="/schema.json")

    @ingress(app)
    class View:
        @app.get("/x")
        def x(self): ...

    c = client(build(View).app)
    assert (c.get("/docs").status_code, list(c.get("/schema.json").json()["paths"])) == (404, ["/x"])


def test_a_router_or_any_asgi_app_can_be_the_ingress(client):
    router = APIRouter()

    @ingress(router)
    class OnRouter:
        @router.get("/x")
        def x(self):
            return type(self).__name__

    async def raw(scope, receive, send):
        await PlainTextResponse("raw")(scope, receive, send)

    @ingress(raw)
    class OnRaw: ...

    assert client(build(OnRouter).app).get("/x").json() == "OnRouter"
    assert client(build(OnRaw).app).get("/x").text == "raw"


def test_a_class_with_call_as_well_is_refused_where_it_is_decorated():
    with pytest.raises(AuthorError, match=r"both @serve\.ingress and __call__"):

        @ingress(FastAPI())
        class Both:
            def __call__(self, request): ...


@pytest.mark.parametrize("wrong", [FastAPI, 7, lambda: None])
def test_what_is_no_app_is_refused_as_ingress(wrong):
    with pytest.raises((TypeError, AuthorError)):
        ingress(wrong)


def test_a_decorator_in_the_wrong_order_is_explained():
    with pytest.raises(TypeError, match=r"write @serve\.deployment above it"):

        @ingress(FastAPI())
        @deployment
        class Swapped: ...


def test_an_app_and_its_class_travel_by_value(client):
    from ray import cloudpickle

    table = ChainMap(dict(REDUCERS), cloudpickle.CloudPickler.dispatch_table)
    pickler = type("Pickler", (cloudpickle.CloudPickler,), {"dispatch_table": table})

    app, router = FastAPI(), APIRouter()

    @deployment
    @ingress(app)
    class View:
        @app.get("/x")
        def x(self):
            return type(self).__name__

        @router.get("/y")
        def y(self):
            return type(self).__name__

    app.include_router(router, prefix="/r")
    file = io.BytesIO()
    pickler(file).dump(View)
    arrived = cloudpickle.loads(file.getvalue())
    c = client(build(arrived).app)
    assert (arrived.name, c.get("/x").json(), c.get("/r/y").json(), paths(c)) == (
        "View",
        "View",
        "View",
        ["/r/y", "/x"],
    )
