"""Calling deployments via HTTP, statement by statement, on a real Ray: the scripts are run as ``python main.py``.

Scripts differ from those of Ray Serve in their line ``from serveconf import serve`` alone. The tests stand in the order of
the page and build on each other: what a detached script deployed lives on.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx
import pytest

from serveconf import serve
from serveconf.errors import AuthorError, CodeFailed, Conflict, NotFound

pytestmark = pytest.mark.ray

HEAD = """
    import ray

    from fastapi import FastAPI
    from serveconf import serve

    app = FastAPI()
    ray.init(address="auto", namespace="summarizer")
    serve.start(detached=True)
"""


def test_start_without_a_ray_connection_serves_at_once_and_warns_of_a_ray_that_is_open(cluster, capsys):
    serve.start(detached=True, http_options={"port": cluster.port})
    assert "asks for no token" in capsys.readouterr().err
    assert cluster.get("/-/routes") == {}
    assert cluster.http.get("/-/healthz").text == "success"


def test_a_callable_is_given_the_request_and_answers_at_its_name_by_default(cluster):
    cluster.run(
        """
        import asyncio
        import helper
        import numpy
        import ray
        from starlette.responses import JSONResponse
        from pydantic import BaseModel
        from serveconf import serve

        class Item(BaseModel):
            name: str

        @serve.deployment(route_prefix="/counter")
        class Counter:
            def __init__(self, step):
                self.count, self.step = 0, step

            def __call__(self, request):
                self.count += self.step()
                match request.query_params.get("kind"):
                    case "response":
                        return JSONResponse({"made": "by hand"}, status_code=418)
                    case "numpy":
                        return {"array": numpy.arange(3), "item": Item(name="x")}
                    case "none":
                        return None
                    case "stream":
                        return (f"{i};" for i in range(3))
                    case "fail":
                        raise ValueError("a secret")
                return {"count": self.count, "path": request.url.path, "helped": helper.twice(4)}

        @serve.deployment
        async def word():
            await asyncio.sleep(0)
            return "plain"

        @serve.deployment(route_prefix=None)
        def hidden(request):
            return 1

        ray.init(address="auto", namespace="summarizer")
        serve.start(detached=True)
        Counter.deploy(lambda: 2)
        word.deploy()
        hidden.deploy()
        """,
        helper="def twice(x):\n    return 2 * x\n",
    )
    assert cluster.get("/counter") == {"count": 2, "path": "/counter", "helped": 8}
    assert cluster.get("/counter/a") == {"count": 4, "path": "/counter/a", "helped": 8}
    assert cluster.get("/counter?kind=numpy") == {"array": [0, 1, 2], "item": {"name": "x"}}
    made = cluster.http.get("/counter?kind=response")
    assert (made.status_code, made.json()) == (418, {"made": "by hand"})
    assert cluster.http.get("/counter?kind=none").content == b""
    assert cluster.http.get("/counter?kind=stream").text == "0;1;2;"
    failed = cluster.http.get("/counter?kind=fail")
    assert (failed.status_code, failed.text) == (500, "Internal Server Error")
    answer = cluster.http.get("/word")
    assert (answer.text, answer.headers["content-type"]) == ("plain", "text/plain; charset=utf-8")
    assert cluster.http.get("/hidden").status_code == 404
    assert cluster.http.get("/counters").status_code == 404
    assert cluster.get("/-/routes") == {"/counter": "Counter", "/word": "word"}


def test_deployments_can_be_listed_changed_and_deleted_from_another_process(cluster):
    assert set(serve.list_deployments()) == {"Counter", "hidden", "word"}
    serve.get_deployment("word").options(route_prefix="/words", num_replicas=2).deploy()
    assert cluster.http.get("/words").text == "plain"
    assert cluster.http.get("/word").status_code == 404
    serve.get_deployment("hidden").delete()
    serve.delete("word")
    assert set(serve.list_deployments()) == {"Counter"}
    with pytest.raises(NotFound, match="no deployment 'word'"):
        serve.get_deployment("word")


def test_two_deployments_with_one_prefix_are_refused(cluster):
    with pytest.raises(Conflict, match="route_prefix /counter"):
        serve.deployment(name="other", route_prefix="/counter")(lambda: 1).deploy()
    assert set(serve.list_deployments()) == {"Counter"}


def test_a_class_wraps_an_app_and_its_methods_are_routes(cluster):
    cluster.run(
        HEAD
        + """
    @serve.deployment(route_prefix="/hello")
    @serve.ingress(app)
    class MyFastAPIDeployment:
        @app.get("/")
        def root(self):
            return "Hello, world!"

    MyFastAPIDeployment.deploy()
    """
    )
    assert cluster.get("/hello") == "Hello, world!"
    assert cluster.get("/counter")["count"] > 2  # the other one was left alone


def test_one_method_name_may_be_two_routes(cluster):
    cluster.run(
        HEAD
        + """
    @serve.deployment(route_prefix="/hello")
    @serve.ingress(app)
    class MyFastAPIDeployment:
        @app.get("/")
        def root(self):
            return "Hello, world!"

        @app.post("/{subpath}")
        def root(self, subpath: str):
            return f"Hello from {subpath}!"

    MyFastAPIDeployment.deploy()
    """
    )
    assert cluster.get("/hello") == "Hello, world!"
    assert cluster.http.post("/hello/Serve").json() == "Hello from Serve!"
    paths = cluster.get("/hello/openapi.json")["paths"]
    assert {path: set(methods) for path, methods in paths.items()} == {"/": {"get"}, "/{subpath}": {"post"}}


def test_an_existing_app_is_served_as_it_is(cluster):
    cluster.run(
        HEAD
        + """
    @app.get("/")
    def f():
        return "Hello from the root!"

    # ... add more routes, routers, etc. to `app` ...

    @serve.deployment(route_prefix="/")
    @serve.ingress(app)
    class FastAPIWrapper:
        pass

    FastAPIWrapper.deploy()
    """
    )
    assert cluster.get("/") == "Hello from the root!"
    assert "swagger-ui" in cluster.http.get("/docs").text
    assert cluster.get("/hello") == "Hello, world!"  # the longer prefix wins


def test_two_classes_share_an_app_and_none_of_their_own_routes(cluster):
    cluster.run(
        HEAD
        + """
    @app.get("/")
    def f():
        return "Hello from the root!"

    @serve.deployment(route_prefix="/api1")
    @serve.ingress(app)
    class FastAPIWrapper1:
        @app.get("/subpath")
        def method(self):
            return "Hello 1!"

    @serve.deployment(route_prefix="/api2")
    @serve.ingress(app)
    class FastAPIWrapper2:
        @app.get("/subpath")
        def method(self):
            return "Hello 2!"

    FastAPIWrapper1.deploy()
    FastAPIWrapper2.deploy()
    """
    )
    assert cluster.get("/api1") == cluster.get("/api2") == "Hello from the root!"
    assert cluster.get("/api1/subpath") == "Hello 1!"
    assert cluster.get("/api2/subpath") == "Hello 2!"


def test_middlewares_are_put_on_live_and_go_with_a_script_that_is_not_detached(cluster):
    printed = cluster.run(
        f"""
        import urllib.request
        import ray
        from serveconf import serve
        from starlette.middleware import Middleware
        from starlette.middleware.cors import CORSMiddleware

        class Stamp:
            def __init__(self, app, word):
                self.app, self.word = app, word

            async def __call__(self, scope, receive, send):
                async def stamped(message):
                    if message["type"] == "http.response.start":
                        message["headers"] = [*message["headers"], (b"x-stamp", self.word())]
                    await send(message)
                await self.app(scope, receive, stamped)

        ray.init(address="auto", namespace="summarizer")
        client = serve.start(
            http_options={{"middlewares": [
                Middleware(
                    CORSMiddleware, allow_origins=["*"], allow_methods=["*"]),
                Middleware(Stamp, word=lambda: b"mine"),
            ]}})

        @serve.deployment
        def passing():
            return "still here"

        passing.deploy()
        request = urllib.request.Request("http://127.0.0.1:{cluster.port}/passing", headers={{"Origin": "http://a"}})
        with urllib.request.urlopen(request) as answer:
            print(answer.read().decode(), answer.headers["access-control-allow-origin"], answer.headers["x-stamp"])
        """
    )
    assert printed.strip() == "still here * mine"
    assert cluster.http.get("/passing").text != "still here"
    missing = cluster.http.options("/api1", headers={"Origin": "http://a", "Access-Control-Request-Method": "PUT"})
    assert (missing.status_code, missing.headers["access-control-allow-methods"].split(", ")[0]) == (200, "DELETE")
    serve.start(detached=True, http_options={"middlewares": []})
    assert "x-stamp" not in cluster.http.get("/api1").headers


def test_a_middleware_that_cannot_be_built_changes_nothing(cluster):
    before = serve.status()["generation"]
    with pytest.raises(CodeFailed, match="no attribute 'Nope'"):
        serve.start(detached=True, http_options={"middlewares": [{"import_path": "starlette.middleware.gzip:Nope"}]})
    with pytest.raises(AuthorError, match="write middlewares instead"):
        serve.start(detached=True, http_options={"middleware": []})
    assert serve.status()["generation"] == before


def test_the_servers_location_can_be_none_and_come_back(cluster):
    serve.start(detached=True, http_options={"location": None})
    _wait_until_nobody_listens(cluster)
    assert serve.status()["proxies"] == []
    serve.start(detached=True, http_options={"location": "EveryNode"})
    assert cluster.get("/api1/subpath") == "Hello 1!"
    serve.start(detached=True, http_options={"location": "HeadOnly"})
    assert cluster.get("/api1/subpath") == "Hello 1!"


MODULE = """
    import os
    from serveconf import serve

    @serve.deployment(num_replicas=2, user_config={"threshold": 1})
    class Model:
        def reconfigure(self, config):
            if config["threshold"] < 0:
                raise ValueError("below zero")
            self.threshold = config["threshold"]

        def __call__(self):
            return {"threshold": self.threshold, "module": __name__}
"""


def test_a_module_is_imported_and_reconfigured_with_no_restart(cluster, monkeypatch):
    (cluster.folder / "lib").mkdir()
    (cluster.folder / "lib" / "seed_page_model.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.syspath_prepend(str(cluster.folder / "lib"))
    from seed_page_model import Model

    Model.deploy()
    assert cluster.get("/Model") == {"threshold": 1, "module": "seed_page_model"}
    before = _pids("Model")
    Model.options(user_config={"threshold": 2}).deploy()
    assert {cluster.get("/Model")["threshold"] for _ in range(6)} == {2}
    with pytest.raises(CodeFailed, match="below zero") as caught:
        Model.options(user_config={"threshold": -1}).deploy()
    assert "seed_page_model.py" in caught.value.traceback
    assert {cluster.get("/Model")["threshold"] for _ in range(6)} == {2}
    assert _pids("Model") == before


def _pids(deployment: str) -> set[int]:
    (stack,) = serve.status()["stacks"]
    (found,) = [d for d in stack["deployments"] if d["name"] == deployment]
    return {replica["pid"] for replica in found["replicas"] if replica["state"] == "Ready"}


def test_a_session_deploys_what_is_typed_into_it(cluster):
    typed = "from serveconf import serve\n@serve.deployment\ndef typed(request): return request.url.path\n\ntyped.deploy()\n"
    done = subprocess.run(
        [sys.executable, "-i", "-q"], input=typed, cwd=cluster.folder, capture_output=True, text=True, timeout=300
    )
    assert "typed is live at /typed" in done.stderr
    assert cluster.http.get("/typed/x").text == "/typed/x"


def test_the_same_as_yaml_answers_the_same(cluster):
    place = Path(cluster.folder, "yaml")
    place.mkdir()
    (place / "shared.py").write_text(textwrap.dedent(SHARED))
    (place / "serve.yaml").write_text(textwrap.dedent(YAML))
    result = serve.apply(place / "serve.yaml")
    assert result["outcome"] == "applied"
    assert cluster.get("/-/routes") == {"/": "whole", "/api1": "one", "/api2": "two", "/counter": "counter"}
    assert cluster.get("/") == cluster.get("/api1") == cluster.get("/api2") == "Hello from the root!"
    assert (cluster.get("/api1/subpath"), cluster.get("/api2/subpath")) == ("Hello 1!", "Hello 2!")
    assert cluster.get("/counter") == {"count": 1}
    headers = cluster.http.get("/api1", headers={"Origin": "http://a"}).headers
    assert headers["access-control-allow-origin"] == "*"


SHARED = """
    from fastapi import FastAPI
    from serveconf import serve

    app = FastAPI()

    @app.get("/")
    def f():
        return "Hello from the root!"

    @serve.ingress(app)
    class One:
        @app.get("/subpath")
        def method(self):
            return "Hello 1!"

    @serve.deployment(route_prefix="/somewhere/else")
    @serve.ingress(app)
    class Two:
        @app.get("/subpath")
        def method(self):
            return "Hello 2!"

    class Counter:
        count = 0

        def __call__(self, request):
            self.count += 1
            return {"count": self.count}
"""

YAML = """
    http_options:
      port: ${SEED_PAGE_PORT}
      middlewares:
        - import_path: starlette.middleware.cors:CORSMiddleware
          kwargs: {allow_origins: ["*"], allow_methods: ["*"]}
    deployments:
      - {name: whole, import_path: "shared:app", route_prefix: /}
      - {name: one, import_path: "shared:One", route_prefix: /api1}
      - {name: two, import_path: "shared:Two", route_prefix: /api2}
      - {name: counter, import_path: "shared:Counter"}
"""


def test_shutdown_leaves_ray_and_nothing_else(cluster):
    serve.shutdown()
    _wait_until_nobody_listens(cluster)


def _wait_until_nobody_listens(cluster):
    """Who drains answers what is under way, and ends."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            httpx.get(f"http://127.0.0.1:{cluster.port}/-/healthz", trust_env=False, timeout=20)
        except httpx.ConnectError:
            return
        except httpx.HTTPError:
            pass  # it was just ending
        time.sleep(0.1)
    raise AssertionError("somebody listens")
