"""``serveconf init --from-ray-serve``: from a Ray Serve project to a spec that validates, and what of the code to change."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from serveconf.cli.parser import app
from serveconf.spec.load import load_file

CODE = """\
from ray import serve
from ray.serve.handle import DeploymentHandle

@serve.deployment
class Model:
    def __call__(self, number):
        return 2 * number

@serve.deployment(num_replicas=2)
class Front:
    def __init__(self, model: DeploymentHandle):
        self.model = model

    async def __call__(self, request):
        return await self.model.remote(21)

model = Model.bind()
app = Front.bind(model)
"""
CONFIG = """\
proxy_location: HeadOnly
http_options: {host: 127.0.0.1}
applications:
  - {name: shop, route_prefix: /shop, import_path: "shop.main:app", deployments: [{name: Front, num_replicas: 3}]}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(textwrap.dedent(text), encoding="utf-8")


def init(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["init", "--from-ray-serve", *arguments])


def spec_of(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    load_file(Path("serve.yaml"), env={}, unsupported=frozenset())
    return yaml.safe_load(Path("serve.yaml").read_text())


def test_a_bound_application_is_found_and_the_lines_to_change_are_told() -> None:
    write("src/shop/main.py", CODE)
    result = init()
    spec = spec_of(result)
    assert spec["app_dir"] == "src"
    assert [(d["name"], d["import_path"], d["route_prefix"]) for d in spec["deployments"]] == [
        ("Front", "shop.main:app", "/")
    ]
    assert spec["http_options"] == {"location": "HeadOnly", "host": "127.0.0.1", "port": 8000}
    assert result.stdout.splitlines() == [
        "wrote serve.yaml, made of shop.main:app",
        "these lines name Ray Serve:",
        "  src/shop/main.py:1: from ray import serve",
        "    write: from serveconf import serve",
        "  src/shop/main.py:2: from ray.serve.handle import DeploymentHandle",
        "    write: from serveconf.serve.handle import DeploymentHandle",
        "next: serveconf run serve.yaml",
    ]


def test_a_config_comes_before_what_the_code_has_and_the_code_is_found_from_it() -> None:
    write("src/shop/main.py", CODE)
    write("deploy/config.yaml", CONFIG)
    write("deploy/service.yaml", "kind: Service\nmetadata: {name: shop}\n")
    result = init()
    spec = spec_of(result)
    assert "made of deploy/config.yaml" in result.stdout
    assert spec["app_dir"] == "src"
    assert (spec["deployments"][0]["name"], spec["deployments"][0]["num_replicas"]) == ("shop", 3)
    assert init().exit_code == 1  # serve.yaml is there
    again = init("--force")
    assert again.exit_code == 0 and spec_of(again) == spec  # what it wrote is no config of Ray Serve


def test_several_configs_are_told_and_one_can_be_named() -> None:
    write("main.py", CODE)
    for name in ("a.yaml", "b.yaml"):
        write(name, CONFIG.replace("shop.main", "main").replace("name: shop", f"name: {name[0]}"))
    result = init()
    assert result.exit_code == 1
    assert "there is more than one: a.yaml, b.yaml" in result.stderr
    spec = spec_of(init("b.yaml"))
    assert spec["deployments"][0]["name"] == "b" and "app_dir" not in spec


def test_several_applications_of_the_code_become_one_spec() -> None:
    write("one.py", CODE)
    write("two.py", CODE.replace("class Front", "class Other").replace("Front.bind", "Other.bind"))
    write("three.py", CODE)
    spec = spec_of(init())
    assert [(d["name"], d["import_path"], d["route_prefix"]) for d in spec["deployments"]] == [
        ("Front", "one:app", "/Front"),
        ("Front2", "three:app", "/Front2"),
        ("Other", "two:app", "/Other"),
    ]


def test_a_function_that_builds_the_application_is_a_factory() -> None:
    write("main.py", CODE.replace("app = Front.bind(model)", "").replace("model = Model.bind()", BUILDER))
    entry = spec_of(init())["deployments"][0]
    assert (entry["import_path"], entry["factory"], entry["init_args"]) == ("main:build", True, [{}])


BUILDER = """
def build(args):
    return Front.bind(Model.bind())
"""


def test_an_application_can_be_named() -> None:
    write("main.py", CODE)
    assert spec_of(init("main:app"))["deployments"][0]["import_path"] == "main:app"


def test_code_that_is_elsewhere_is_noted() -> None:
    write("config.yaml", CONFIG)
    spec_of(init())
    assert "the code of shop.main is not below this folder" in Path("serve.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "neither a Ray Serve config nor a bound application was found"),
        (("nothing.yaml",), "nothing.yaml is no Ray Serve config"),
        (("main",), "'main' is no import path"),
    ],
)
def test_what_cannot_be_is_told(arguments: tuple[str, ...], said: str) -> None:
    result = init(*arguments)
    assert result.exit_code == 1 and said in result.stderr and "Traceback" not in result.stderr
    assert not Path("serve.yaml").exists()


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("import ray.serve", "has no equal here"),
        ("from ray import serve as s", "write: from serveconf import serve as s"),
        ("from ray.serve import batch", "write: from serveconf.serve import batch"),
        ("from ray.serve.config import HTTPOptions", "has no equal here"),
    ],
)
def test_every_form_of_the_import_is_seen(line: str, instead: str) -> None:
    write("main.py", CODE.replace("from ray import serve", f"from ray import serve\n{line}"))
    told = init().stdout.splitlines()
    assert instead in told[told.index(f"  main.py:2: {line}") + 1]
