"""Bound applications by import path: looked at, built one deployment at a time, made by builders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from serveconf.errors import AuthorError
from serveconf.ingress.app import build
from serveconf.ingress.importing import import_target
from serveconf.ingress.look import look_at_target

CODE = """
from pydantic import BaseModel
from serveconf import serve


@serve.deployment(num_replicas=2)
class Model:
    def __init__(self, size: int) -> None:
        self.size = size

    def repeat(self, item: str) -> str:
        return item * self.size


@serve.deployment(max_ongoing_requests=9)
class Front:
    def __init__(self, model, name: str = "front") -> None:
        self.model, self.name = model, name

    async def __call__(self, request) -> str:
        return self.name


app = Front.bind(Model.bind(3), name="shop")
wrong = Front.bind(Model.bind())
methods = Model.bind(2)


class Args(BaseModel):
    size: int = 1


def builder(args: Args):
    return Front.bind(Model.bind(args.size))


def plain(args: dict):
    return Front.bind(Model.bind(args.get("size", 1)))
"""


@pytest.fixture
def code(tmp_path: Path) -> Any:
    path = list(sys.path)
    (tmp_path / "bound_app.py").write_text(CODE)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("bound_app", None)


def asked(name: str, **more: Any) -> dict[str, Any]:
    return {"import_path": f"bound_app:{name}", "factory": False, "init_args": [], "init_kwargs": {}, **more}


def test_what_is_told_of_an_application_is_its_ingress_and_the_others(code: Path) -> None:
    report = look_at_target(code, asked("app"))
    assert report["kind"] == "deployment"
    assert report["options"] == {"max_ongoing_requests": 9}
    assert report["graph"] == [{"name": "Model", "options": {"num_replicas": 2}, "calls": []}]


def test_a_class_of_methods_is_served_where_handles_alone_call_it(code: Path) -> None:
    with pytest.raises(AuthorError, match="has no __call__") as refused:
        look_at_target(code, asked("methods"))
    assert "route_prefix: null" in str(refused.value.hint)
    assert look_at_target(code, asked("methods", routed=False))["kind"] == "deployment"
    model: Any = build(import_target("bound_app:methods", code), routed=False).servable
    assert model.repeat("a") == "aa"


def test_arguments_that_do_not_fit_are_found_before_anything_runs(code: Path) -> None:
    with pytest.raises(AuthorError, match=r"Model.*cannot be constructed"):
        look_at_target(code, asked("wrong"))
    with pytest.raises(AuthorError, match="init_args"):
        look_at_target(code, asked("app", init_args=[1]))


def test_a_replica_builds_the_one_deployment_that_it_is(code: Path) -> None:
    app = import_target("bound_app:app", code)
    front: Any = build(app, handle=lambda name: f"<{name}>").servable
    assert (front.model, front.name) == ("<Model>", "shop")
    model: Any = build(app, bound="Model").servable
    assert model.size == 3


@pytest.mark.parametrize(
    ("name", "args", "size"), [("builder", [{"size": 5}], 5), ("builder", [], 1), ("plain", [{"size": 4}], 4)]
)
def test_a_builder_gets_its_arguments_as_it_says(code: Path, name: str, args: list[Any], size: int) -> None:
    assert look_at_target(code, asked(name, factory=True, init_args=args))["graph"][0]["name"] == "Model"
    model: Any = build(import_target(f"bound_app:{name}", code), factory=True, init_args=args, bound="Model").servable
    assert model.size == size


def test_a_builder_s_wrong_argument_says_which(code: Path) -> None:
    with pytest.raises(AuthorError, match="size: Input should be a valid integer"):
        build(import_target("bound_app:builder", code), factory=True, init_args=[{"size": "many"}])
