"""``serve_spec``: a spec in the test process answers as it does when it is served."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from serveconf.errors import AuthorError, CodeFailed
from serveconf.spec.problems import SpecInvalid
from serveconf.spec_client import serve_spec as serve

SHOP = """
    import contextlib
    import os
    from fastapi import FastAPI, Request, WebSocket

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield {"pool": "open"}

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    def root(request: Request):
        return {"root_path": request.scope["root_path"], "pool": request.state.pool, "cwd": os.getcwd()}

    @app.get("/fails")
    def fails():
        raise LookupError("nothing there")

    @app.websocket("/echo")
    async def echo(websocket: WebSocket):
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()
    """
THINGS = """
    import os

    class Model:
        async def __init__(self, size=1):
            self.size, self.threshold = size, None

        def reconfigure(self, config):
            self.threshold = config["threshold"]

        async def __call__(self, request):
            return {"size": self.size, "threshold": self.threshold, "path": request.url.path}

    def hello(request):
        return "hello " + os.environ["WHO"]

    def make(word):
        return lambda: word
    """
SPEC = """
    name: shop
    deployments:
      - {name: shop, import_path: "shop:app"}
      - {name: model, import_path: "things:Model", init_kwargs: {size: 3}, user_config: {threshold: 0.5}}
      - {name: hello, import_path: "things:hello", ray_actor_options: {runtime_env: {env_vars: {WHO: "${WHO:-you}"}}}}
      - {name: made, import_path: "things:make", factory: true, init_args: [word], route_prefix: /}
    """


def test_every_kind_of_deployment_answers_below_its_prefix(project, serve_spec) -> None:
    file = project(SPEC, shop=SHOP, things=THINGS)
    client = serve_spec(file)
    assert client.get("/shop").json() == {"root_path": "/shop", "pool": "open", "cwd": str(file.parent)}
    assert client.get("/shop/openapi.json").json()["servers"] == [{"url": "/shop"}]
    assert client.get("/model/x").json() == {"size": 3, "threshold": 0.5, "path": "/model/x"}
    assert client.get("/hello").text == "hello you"
    assert client.get("/anything").text == "word"
    assert client.get("/-/healthz").text == "success"
    assert client.get("/-/routes").json() == {"/": "made", "/hello": "hello", "/model": "model", "/shop": "shop"}
    with client.websocket_connect("/shop/echo") as websocket:
        websocket.send_text("x")
        assert websocket.receive_text() == "x"


def test_a_user_config_is_handed_over_and_instances_can_be_looked_at(project, serve_spec) -> None:
    client = serve_spec(project(SPEC, shop=SHOP, things=THINGS))
    client.reconfigure("model", {"threshold": 0.9})
    assert client.get("/model").json()["threshold"] == 0.9
    assert client.served["model"].size == 3


@pytest.mark.parametrize("env", [{"WHO": "Ada"}, {"WHO": "Bob", "OTHER": "x"}, {}])
def test_variables_hold_for_the_spec_and_the_code_and_are_gone_afterwards(project, env: dict[str, str]) -> None:
    file = project(SPEC, shop=SHOP, things=THINGS)
    before = (dict(os.environ), list(sys.path), os.getcwd())
    with serve(file, env=env) as client:
        assert client.get("/hello").text == f"hello {env.get('WHO', 'you')}"
    assert (dict(os.environ), list(sys.path), os.getcwd()) == before
    assert not {"shop", "things"} & set(sys.modules)


def test_each_time_the_code_begins_anew(project) -> None:
    counting = "seen = []\ndef app():\n    seen.append(1)\n    return str(len(seen))\n"
    file = project("deployments: [{name: a, import_path: 'counting:app'}]", counting=counting)
    for _ in range(3):
        with serve(file) as client:
            assert [client.get("/a").text for _ in range(2)] == ["1", "2"]


MIDDLEWARES = """
    class Stamp:
        def __init__(self, app, name):
            self.app, self.name = app, name

        async def __call__(self, scope, receive, send):
            async def stamped(message):
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], (b"x-stamp", self.name.encode())]
                await send(message)
            await self.app(scope, receive, stamped)

    def app():
        return "ok"
    """


@pytest.mark.parametrize(
    ("path", "stamps"), [("/a", ["inner", "outer"]), ("/b", ["outer"]), ("/nowhere", ["outer"])], ids=str
)
def test_middlewares_of_the_front_and_of_a_route_stand_around(
    project, serve_spec, path: str, stamps: list[str]
) -> None:
    spec = """
        http_options: {middlewares: [{import_path: "mid:Stamp", kwargs: {name: outer}}]}
        deployments:
          - {name: a, import_path: "mid:app", middlewares: [{import_path: "mid:Stamp", args: [inner]}]}
          - {name: b, import_path: "mid:app"}
        """
    assert serve_spec(project(spec, mid=MIDDLEWARES)).get(path).headers.get_list("x-stamp") == stamps


def test_match_and_root_path_are_the_proxys(project, serve_spec) -> None:
    spec = """
        http_options: {root_path: /api}
        deployments:
          - {name: beta, import_path: "m:beta", route_prefix: /x, match: {headers: {x-beta: "1"}}}
          - {name: plain, import_path: "m:plain", route_prefix: /x}
          - {name: only, import_path: "m:plain", match: {methods: [POST]}}
        """
    code = """
        def beta():
            return "beta"
        def plain(request):
            return request.scope["root_path"]
        """
    client = serve_spec(project(spec, m=code))
    assert client.get("/x").text == "/api/x"
    assert client.get("/x", headers={"x-beta": "1"}).text == "beta"
    assert client.get("/only").status_code == 405
    assert client.get("/y").status_code == 404


BOUND = """
    from serveconf import serve

    @serve.deployment
    class Prices:
        def __init__(self, factor):
            self.factor = factor

        def of(self, number):
            return number * self.factor

    @serve.deployment(route_prefix="/prices")
    class Shop:
        def __init__(self, prices):
            self.prices = prices

        async def __call__(self, request):
            return await self.prices.of.remote(int(request.query_params["n"]))

    app = Shop.bind(Prices.bind(3))

    def make(args):
        return Shop.bind(Prices.bind(args["factor"]))
    """


@pytest.mark.parametrize(
    ("entry", "price"),
    [
        ("{name: shop, import_path: 'bound:app'}", 21),
        ("{name: shop, import_path: 'bound:make', factory: true, init_args: [{factor: 5}]}", 35),
        ("{name: shop, import_path: 'bound:app', route_prefix: /prices}", 21),
    ],
)
def test_bound_applications_call_each_other_by_handle(project, serve_spec, entry: str, price: int) -> None:
    client = serve_spec(project(f"deployments: [{entry}]", bound=BOUND))
    prefix = next(iter(client.get("/-/routes").json()))
    assert client.get(f"{prefix}?n=7").text == str(price)
    assert set(client.served) == {"shop", "shop.Prices"}


@pytest.mark.parametrize(
    ("entry", "error", "message"),
    [
        ("import_path: 'things:Nothing'", CodeFailed, "has no attribute 'Nothing'"),
        ("import_path: 'things:Model', init_kwargs: {sise: 1}", CodeFailed, "sise"),
        ("import_path: 'things:hello', user_config: {a: 1}", AuthorError, "has no reconfigure"),
        ("import_path: 'shop:app', health_check_path: /missing", CodeFailed, "GET /missing answered 404"),
        ("import_path: 'shop'", SpecInvalid, "import_path"),
    ],
)
def test_what_would_fail_an_apply_fails_here(project, entry: str, error: type[Exception], message: str) -> None:
    file = project(f"deployments: [{{name: a, {entry}}}]", shop=SHOP, things=THINGS)
    with pytest.raises(error, match=message), serve(file):
        pass
    assert "things" not in sys.modules


@pytest.mark.parametrize("raises", [True, False])
def test_what_an_app_raises_comes_to_the_test_or_is_500(project, raises: bool) -> None:
    with serve(project(SPEC, shop=SHOP, things=THINGS), raise_server_exceptions=raises) as client:
        if raises:
            with pytest.raises(LookupError, match="nothing there"):
                client.get("/shop/fails")
        else:
            assert client.get("/shop/fails").status_code == 500


def test_a_spec_as_data_is_served_from_the_working_directory(project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project("", things=THINGS).parent)
    with serve(
        {"deployments": [{"name": "made", "import_path": "things:make", "factory": True, "init_args": ["w"]}]}
    ) as client:
        assert client.get("/made").text == "w"


def test_no_ray_is_imported(project) -> None:
    import subprocess

    file = project(SPEC, shop=SHOP, things=THINGS)
    code = (
        "import sys\nfrom serveconf.spec_client import serve_spec\n"
        f"with serve_spec({str(file)!r}) as client:\n    assert client.get('/shop').status_code == 200\n"
        "print('ray' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "configs").glob("**/*.yaml"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_example_starts_here_too(file: Path, serve_spec) -> None:
    client = serve_spec(file)
    assert client.get("/-/healthz").text == "success"


def test_a_request_s_model_is_there_as_in_a_replica(serve_spec) -> None:
    client = serve_spec(next(file for file in EXAMPLES if file.parent.name == "multiplexed"))
    answers = [client.get("/greet", headers={"serve_multiplexed_model_id": one}).json() for one in ("german", "french")]
    assert [answer["text"] for answer in answers] == ["Hallo, world!", "Bonjour, world!"]
    assert client.get("/greet").json()["text"] == "Hello, world!"


def test_code_may_ask_who_it_is(project, serve_spec) -> None:
    spec = """
        name: town
        deployments:
          - {name: shop, import_path: "shop:app", route_prefix: /}
    """
    shop = """
        from serveconf import serve

        def who():
            context = serve.get_replica_context()
            return [context.app_name, context.deployment]

        @serve.deployment
        class Prices:
            def __init__(self):
                self.at_start = who()

            async def price(self):
                return self.at_start, who(), serve.get_replica_context().servable_object is self

        @serve.deployment
        class Shop:
            def __init__(self, prices):
                self.prices = prices
                self.at_start = who()

            async def __call__(self):
                theirs = await self.prices.price.remote()
                return {"theirs": theirs, "ours": [self.at_start, who()]}

        app = Shop.bind(Prices.bind())
    """
    answer = serve_spec(project(spec, shop=shop)).get("/").json()
    assert answer["theirs"] == [["shop", "Prices"], ["shop", "Prices"], True]
    assert answer["ours"] == [["shop", "Shop"], ["shop", "Shop"]]
