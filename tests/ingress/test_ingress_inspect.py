from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest


@pytest.fixture
def inspect(code_dir, tmp_path_factory):
    """``inspect("shop:app", …)``: what the throw-away process says of each."""

    def ask(*targets: str | dict[str, Any], middlewares: Any = (), **request: Any) -> dict[str, Any]:
        asked = [{"import_path": t} if isinstance(t, str) else t for t in targets]
        body = {"code_dir": str(code_dir), "cwd": None, "targets": asked, "middlewares": list(middlewares), **request}
        done = subprocess.run(
            [sys.executable, "-m", "serveconf.ingress.inspect"],
            input=json.dumps(body),
            capture_output=True,
            text=True,
            cwd=tmp_path_factory.mktemp("elsewhere"),
            check=True,
            timeout=60,
        )
        return {**json.loads(done.stdout), "stderr": done.stderr}

    return ask


SHOP = """
    import os, sys
    from fastapi import APIRouter, FastAPI
    from serveconf.ingress.class_routes import ingress
    from serveconf.ingress.deployment import deployment
    from . import db
    print("said while importing")
    os.write(1, b"written to the descriptor")
    app, router, sub = FastAPI(), APIRouter(prefix="/r"), FastAPI()
    @app.get("/items/{id}")
    def item(id: int): ...
    @router.post("/k")
    def k(): ...
    @sub.get("/deep/{x}")
    def deep(x): ...
    @app.websocket("/ws")
    async def ws(websocket): ...
    app.include_router(router, prefix="/v1")
    app.mount("/sub", sub)
    @deployment(num_replicas=2, init_args=["weights"], route_prefix=None)
    @ingress(app)
    class Model:
        def __init__(self, weights):
            raise RuntimeError("constructed")
        @app.get("/predict")
        def predict(self): ...
    def make(kind):
        return {"app": app, "function": lambda request: None}[kind]
    cwd = os.getcwd()
    argv = sys.argv
    class Middleware:
        def __init__(self, app, level): self.app = app
        async def __call__(self, scope, receive, send): ...
"""

APP_OPERATIONS = ["GET /items/{id}", "GET /sub/deep/{x}", "POST /v1/r/k", "WS /ws"]


@pytest.fixture
def shop(write):
    write("shop/__init__.py", "")
    write("shop/db.py", "")
    write("shop/unused.py", "raise RuntimeError")
    write("shop/api.py", SHOP)


@pytest.mark.usefixtures("shop")
def test_each_target_is_told_with_its_kind_modules_operations_and_options(inspect, code_dir):
    report = inspect(
        "shop.api:app",
        "shop.api:Model",
        {"import_path": "shop.api:make", "factory": True, "init_args": ["app"]},
        {"import_path": "shop.api:make", "factory": True, "init_kwargs": {"kind": "function"}},
    )
    assert [t["ok"] for t in report["targets"]] == [True] * 4
    assert [t["kind"] for t in report["targets"]] == ["asgi", "deployment", "asgi", "function"]
    assert {tuple(t["modules"]) for t in report["targets"]} == {("shop/__init__.py", "shop/api.py", "shop/db.py")}
    assert [t["operations"] for t in report["targets"]] == [
        APP_OPERATIONS,
        sorted([*APP_OPERATIONS, "GET /predict"]),
        APP_OPERATIONS,
        [],
    ]
    assert report["targets"][1]["options"] == {"num_replicas": 2, "init_args": ["weights"], "route_prefix": None}
    assert "said while importing" in report["stderr"]
    assert "written to the descriptor" in report["stderr"]
    assert not list(code_dir.rglob("*.pyc"))


@pytest.mark.usefixtures("shop")
def test_arguments_that_a_class_cannot_take_are_told_without_constructing_it(inspect):
    report = inspect(
        {"import_path": "shop.api:Model", "init_args": ["a", "b"]}, {"import_path": "shop.api:app", "init_args": [1]}
    )
    assert "too many positional arguments" in report["targets"][0]["error"]
    assert "is not constructed" in report["targets"][1]["error"]
    assert "factory: true" in report["targets"][1]["hint"]


def test_a_target_that_fails_harms_no_other(inspect, write):
    write("good.py", "def app(request): ...")
    write("raises.py", "raise ValueError('broken')")
    write("exits.py", "import sys; sys.exit(1)")
    write("vanishes.py", "import os; os._exit(7)")
    write("crashes.py", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    write("forks.py", "import os, time\nif os.fork() == 0:\n    time.sleep(600)\nos._exit(3)")
    write("wsgi.py", "def app(environ, start_response): ...")
    names = ["raises", "exits", "vanishes", "crashes", "forks", "wsgi", "missing", "good"]
    report = inspect(*(f"{name}:app" for name in names))
    assert [t["ok"] for t in report["targets"]] == [False] * 7 + [True]
    assert [t["error"] for t in report["targets"]][:5] == [
        "importing raises: ValueError: broken",
        "importing exits: the code called sys.exit(1)",
        "importing vanishes:app ended the process with exit code 7",
        "importing crashes:app ended the process by signal 11 (SIGSEGV)",
        "importing forks:app ended the process with exit code 3",
    ]
    assert "raises.py" in report["targets"][0]["traceback"]
    assert "a2wsgi" in report["targets"][5]["hint"]


def test_an_import_that_hangs_is_cut_at_its_limit(inspect, write):
    write("hangs.py", "import threading; threading.Event().wait()")
    write("good.py", "def app(request): ...")
    report = inspect("hangs:app", "good:app", timeout_s=0.5)
    assert report["targets"][0]["error"] == "importing hangs:app did not end within 0.5 s"
    assert report["targets"][1]["ok"]


@pytest.mark.usefixtures("shop")
def test_middlewares_are_built_once(inspect):
    report = inspect(
        middlewares=[
            {"import_path": "shop.api:Middleware", "args": [], "kwargs": {"level": 1}},
            {"import_path": "shop.api:Middleware", "args": [], "kwargs": {"levl": 1}},
            {"import_path": "starlette.middleware.gzip:GZipMiddleware", "args": [], "kwargs": {"minimum_size": 1}},
            {"import_path": "shop.api:cwd", "args": [], "kwargs": {}},
        ]
    )
    assert [m["ok"] for m in report["middlewares"]] == [True, False, True, False]
    assert report["middlewares"][0]["modules"] == ["shop/__init__.py", "shop/api.py", "shop/db.py"]
    assert "unexpected keyword argument 'levl'" in report["middlewares"][1]["error"]


def test_a_scaling_policy_is_imported_with_its_variables_and_not_called(inspect, write):
    write("rules.py", "import os\nlimit = os.environ['LIMIT']\ndef by(context): raise RuntimeError\n")
    asked = {"role": "policy", "env_vars": {"LIMIT": "3"}}
    paths = ["rules:by", "rules:missing", "rules:limit", "missing:by"]
    report = inspect(middlewares=[{"import_path": path, **asked} for path in paths])
    assert [one["ok"] for one in report["middlewares"]] == [True, False, False, False]
    assert report["middlewares"][0]["modules"] == ["rules.py"]
    assert report["middlewares"][2]["error"] == "rules:limit is not callable"


def test_the_working_directory_is_the_given_one_or_the_code_folder(inspect, write, code_dir, tmp_path_factory):
    write("where.py", "import os, sys\nraise RuntimeError(os.getcwd() + ' ' + ' '.join(sys.argv))")
    other = tmp_path_factory.mktemp("cwd")
    assert (
        inspect("where:app", cwd=str(other))["targets"][0]["error"]
        == f"importing where: RuntimeError: {other} serveconf"
    )
    assert inspect("where:app", cwd="/does/not/exist")["targets"][0]["error"].endswith(f"{code_dir} serveconf")


def test_options_that_are_no_plain_data_are_told(inspect, write):
    write(
        "odd.py", "from serveconf.ingress.deployment import deployment\napp = deployment(init_args=[object()])(print)\n"
    )
    assert "cannot be written as JSON" in inspect("odd:app")["targets"][0]["error"]


def test_many_targets_cost_little_more_than_their_own_imports(inspect, write):
    for number in range(40):
        write(f"app{number}.py", "def app(request): ...")
    report = inspect(*(f"app{number}:app" for number in range(40)))
    assert [t["modules"] for t in report["targets"]] == [[f"app{number}.py"] for number in range(40)]
