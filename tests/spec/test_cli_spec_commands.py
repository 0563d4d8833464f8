"""The commands about spec files, from outside: what they print, and their exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from serveconf.cli.explain import complete, explain, schema
from serveconf.cli.init import init
from serveconf.cli.problems_view import ProblemFormat, render
from serveconf.cli.validate import validate
from serveconf.spec.load import load_file
from serveconf.spec.problems import Problem
from serveconf.spec.schema import json_schema

ROOT = Path(__file__).parents[2]
app = typer.Typer(pretty_exceptions_enable=False)
for command in (validate, schema, explain, init):
    app.command()(command)

BAD = "http_options:\n  port: 0\nnmae: a\n"


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert "Traceback" not in result.stderr
    return result


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")


def test_validate_points_at_each_problem_with_a_caret() -> None:
    write("bad.yaml", BAD)
    result = call("validate", "bad.yaml")
    assert result.exit_code == 1
    assert result.stdout == (
        "bad.yaml:2:9: error: http_options.port: must be at least 1 [range]\n"
        "    port: 0\n"
        "          ^\n"
        "bad.yaml:3:1: error: nmae: unknown key 'nmae' [unknown_key]\n"
        "  nmae: a\n"
        "  ^\n"
        "  hint: did you mean 'name'?\n"
        "1 file: 2 errors\n"
    )


def test_validate_is_silent_about_good_files_but_for_its_last_line() -> None:
    write("good.yaml", "name: a\n")
    result = call("validate", "good.yaml")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "1 file: no problems\n", "")


def test_validate_json_has_the_contracts_keys_and_nothing_else_on_stdout() -> None:
    write("bad.yaml", BAD)
    result = call("validate", "bad.yaml", "-o", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "ok": False,
        "problems": [
            {
                "file": "bad.yaml", "line": 2, "column": 9, "path": "http_options.port", "message": "must be at least 1",
                "code": "range", "severity": "error", "hint": None,
            },
            {
                "file": "bad.yaml", "line": 3, "column": 1, "path": "nmae", "message": "unknown key 'nmae'",
                "code": "unknown_key", "severity": "error", "hint": "did you mean 'name'?",
            },
        ],
    }  # fmt: skip
    write("good.yaml", "name: a\n")
    assert json.loads(call("validate", "good.yaml", "-o", "json").stdout) == {"ok": True, "problems": []}


def test_validate_takes_files_and_folders() -> None:
    write("one.yaml", "name: a\n")
    write("specs/two.yml", BAD)
    write("specs/deep/three.yaml", "name: b\n")
    write("specs/.hidden/four.yaml", BAD)
    write("specs/readme.md", "no")
    result = call("validate", "one.yaml", "specs")
    assert result.exit_code == 1
    assert result.stdout.endswith("3 files: 2 errors\n")


def test_validate_says_what_it_cannot_read() -> None:
    write("empty/readme.md", "")
    result = call("validate", "nowhere.yaml", "empty")
    assert result.exit_code == 1
    assert "nowhere.yaml: error: cannot be read: No such file or directory [file]" in result.stdout
    assert "empty: error: no .yaml or .yml file in this folder [file]" in result.stdout


def test_validate_without_a_file_is_wrong_usage() -> None:
    assert call("validate").exit_code == 2
    assert call("validate", "a.yaml", "-o", "xml").exit_code == 2


def test_a_warning_does_not_fail() -> None:
    write("warn.yaml", "deployments: [{name: a, import_path: m:app, request_timeout_s: 60}]\n")
    result = call("validate", "warn.yaml")
    assert result.exit_code == 0
    assert result.stdout.endswith("1 file: 1 warning\n")


def test_validate_reads_env_files() -> None:
    write("spec.yaml", "name: ${STACK_NAME}\n")
    write("prod.env", "STACK_NAME=prod\n")
    assert call("validate", "spec.yaml").exit_code == 1
    assert call("validate", "spec.yaml", "--env-file", "prod.env").exit_code == 0


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("proxy_location: EveryNode\napplications: [{name: a, import_path: m.app, args: {x: 017}}]\n", 2),
        ("kind: ConfigMap\ndata: {a: !!str 017}\n---\nkind: RayService\nspec: {}\n", 4),
        ("import_path: m.app\nruntime_env: {}\n", 1),
        ("http_options: {port: 8005}\nproxy_location: EveryNode\ngrpc_options: {}\n", 2),
        ("apiVersion: a/v1\nkind: LlmService\nspec:\n  ray:\n    serveConfigV2: |\n      applications: []\n", 2),
    ],
)
def test_a_file_of_ray_serve_is_named_once_with_the_command_for_it(text: str, line: int) -> None:
    write("ray.yaml", text)
    result = call("validate", "ray.yaml", "-o", "json")
    (problem,) = json.loads(result.stdout)["problems"]
    assert (result.exit_code, problem["line"], problem["code"]) == (1, line, "ray_serve")
    assert "serveconf convert ray.yaml" in problem["hint"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("apiVersion: v1\nkind: Service\nspec: {ports: [{port: 80}]}\n", "Service"),
        ("apiVersion: apps/v1\nkind: Deployment\nspec: {replicas: 2}\n", "Deployment"),
        ("kind: RayCluster\napiVersion: ray.io/v1\n", "RayCluster"),
    ],
)
def test_another_kubernetes_manifest_is_named_once(text: str, kind: str) -> None:
    write("manifest.yaml", text)
    (problem,) = json.loads(call("validate", "manifest.yaml", "-o", "json").stdout)["problems"]
    assert problem["code"] == "foreign"
    assert problem["message"] == f"this is a Kubernetes manifest of kind {kind}, not a serveconf spec"
    assert "serveconf init" in problem["hint"]


def test_github_annotations_are_escaped() -> None:
    problem = Problem(
        file="a,b:c.yaml",
        line=2,
        column=3,
        path="x",
        message="50% of\nit",
        code="type",
        severity="warning",
        hint="so\nso",
    )
    assert render([problem], ProblemFormat.GITHUB) == (
        "::warning file=a%2Cb%3Ac.yaml,line=2,col=3,title=type::x: 50%25 of%0Ait%0Aso%0Aso"
    )


def test_sarif_says_what_code_scanning_needs() -> None:
    write("my specs/bad.yaml", BAD)
    log = json.loads(call("validate", "my specs/bad.yaml", "-o", "sarif").stdout)
    (run,) = log["runs"]
    assert (log["version"], run["tool"]["driver"]["name"], run["columnKind"]) == (
        "2.1.0",
        "serveconf",
        "unicodeCodePoints",
    )
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["range", "unknown_key"]
    assert [run["tool"]["driver"]["rules"][found["ruleIndex"]]["id"] for found in run["results"]] == [
        "range",
        "unknown_key",
    ]
    assert run["results"][0] == {
        "ruleId": "range",
        "ruleIndex": 0,
        "level": "error",
        "message": {"text": "http_options.port: must be at least 1"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": "my%20specs/bad.yaml"},
                    "region": {"startLine": 2, "startColumn": 9},
                }
            }
        ],
    }


def test_text_keeps_carets_below_wide_and_tabbed_text_and_terminals_unharmed() -> None:
    shown = render(
        [Problem(file="f", line=1, column=4, path="", message="\x1b[31mred", code="type", source="日\té: x")],
        ProblemFormat.TEXT,
    )
    assert shown == "f:1:4: error: \\x1b[31mred [type]\n  日\té: x\n    \t ^"


def test_colours_are_used_when_asked_for() -> None:
    problem = Problem(file="f", line=1, column=1, path="", message="no", code="type", source="x")
    assert "\x1b[1;31merror\x1b[0m" in render([problem], ProblemFormat.TEXT, color=True)
    assert "\x1b" not in render([problem], ProblemFormat.TEXT)


def test_validate_imports_neither_ray_nor_fastapi_nor_the_code() -> None:
    write("touch.py", "raise SystemExit(9)\n")
    write("spec.yaml", "deployments: [{name: a, import_path: touch:app}]\n")
    script = (
        "import sys\nfrom typer import Typer\nfrom serveconf.cli.validate import validate\n"
        "app = Typer()\napp.command()(validate)\n"
        "try:\n    app(['spec.yaml'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print([name for name in ('ray', 'fastapi', 'starlette', 'uvicorn', 'httpx', 'touch') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1 file: no problems\n[]\n"


def test_validate_import_reports_what_fails_at_the_import_paths_place() -> None:
    write("good.py", "async def app(scope, receive, send): ...\n")
    write("bad.py", "print('noise')\nimport no_such_module_here\n")
    write("spec.yaml", "deployments:\n  - {name: a, import_path: good:app}\n  - {name: b, import_path: bad:app}\n")
    result = call("validate", "--import", "-o", "json", "spec.yaml")
    assert result.exit_code == 1
    (problem,) = json.loads(result.stdout)["problems"]
    assert (problem["line"], problem["column"], problem["path"]) == (3, 28, "deployments[1].import_path")
    assert problem["code"] == "import_failed"
    assert "no_such_module_here" in problem["message"] + problem["hint"]
    assert "serveconf" not in problem["hint"]


def test_schema_prints_the_schema() -> None:
    assert json.loads(call("schema").stdout) == json_schema()


def test_explain_tells_type_default_meaning_and_cost() -> None:
    text = call("explain", "num_replicas").stdout
    for part in (
        "deployments[].num_replicas",
        "integer or auto, at least 1",
        "default   1",
        "scale: replicas are added",
        "num_replicas: 2",
    ):
        assert part in text
    assert json.loads(call("explain", "http_options.port", "-o", "json").stdout)["default"] == "8000"


def test_explain_of_an_unknown_field_says_what_may_be_meant() -> None:
    result = call("explain", "http_options.prot")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "did you mean 'http_options.port'?" in result.stderr
    assert json.loads(call("explain", "zzz", "-o", "json").stdout)["error"]["code"] == "unknown_field"


def test_the_shell_completes_field_paths() -> None:
    assert complete("deployments.rollout.max") == [
        f"deployments.rollout.{key}" for key in ("max_surge", "max_unavailable", "max_error_rate")
    ]


def test_init_finds_fastapi_apps_without_running_them() -> None:
    write(
        "shop/main.py",
        "from fastapi import FastAPI\nimport sys\nsys.exit('ran')\napp: FastAPI = FastAPI()\nsub = FastAPI()\napp.mount('/sub', sub)\n",
    )
    write(
        "shop/other.py",
        "import fastapi\nother = fastapi.FastAPI(title='x')\n\ndef make():\n    inner = fastapi.FastAPI()\n",
    )
    write("broken.py", "FastAPI(\n")
    write(".venv/lib.py", "from fastapi import FastAPI\napp = FastAPI()\n")
    result = call("init")
    assert result.exit_code == 0
    spec = load_file(Path("serve.yaml"), env={}).spec
    assert [(one.name, one.import_path, one.prefix) for one in spec.deployments] == [
        ("shop-main", "shop.main:app", "/shop-main"),
        ("other", "shop.other:other", "/other"),
    ]
    modeline = Path("serve.yaml").read_text().splitlines()[0]
    assert json.loads(Path(modeline.partition("$schema=")[2]).read_text()) == json_schema()


def test_init_looks_which_kind_each_import_path_is() -> None:
    write(
        "things.py",
        "async def app(scope, receive, send): ...\n\nclass Model:\n    def __init__(self): ...\n    def __call__(self, request): ...\n",
    )
    assert call("init", "things:app", "things:Model", "nowhere:app").exit_code == 0
    text = Path("serve.yaml").read_text()
    assert [line.split("# ")[1] for line in text.splitlines() if "import_path" in line] == [
        "an ASGI app",
        "a class",
        "could not be imported when this was written",
    ]
    assert [one.name for one in load_file(Path("serve.yaml"), env={}).spec.deployments] == [
        "things",
        "things-Model",
        "nowhere",
    ]


def test_init_overwrites_nothing_unless_forced() -> None:
    write("serve.yaml", "mine")
    write("main.py", "from fastapi import FastAPI\napp = FastAPI()\n")
    assert call("init").exit_code == 1
    assert Path("serve.yaml").read_text() == "mine"
    assert call("init", "--force").exit_code == 0
    assert load_file(Path("serve.yaml"), env={}).spec.deployments[0].prefix == "/"


def test_init_that_finds_nothing_says_how_to_go_on() -> None:
    result = call("init")
    assert result.exit_code == 1
    assert "serveconf init main:app" in result.stderr


@pytest.mark.parametrize(
    "file", sorted((ROOT / "examples" / "configs").glob("**/*.yaml")), ids=lambda file: file.parent.name
)
def test_every_example_is_valid_and_names_its_schema(file: Path) -> None:
    load_file(file, env={})
    modeline = file.read_text(encoding="utf-8").splitlines()[0]
    assert (file.parent / modeline.removeprefix("# yaml-language-server: $schema=")).resolve() == (
        ROOT / "schemas" / "serveconf.schema.json"
    )


def test_validate_reads_no_metadata_of_the_installed_packages() -> None:
    write("spec.yaml", "deployments: [{name: a, import_path: touch:app}]\n")
    script = (
        "import importlib.metadata, sys\n"
        "def read(): raise AssertionError('the metadata of every package is read')\n"
        "importlib.metadata.distributions = read\n"
        "from serveconf.cli.main import main\n"
        "sys.argv = ['serveconf', 'validate', 'spec.yaml']\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1 file: no problems\n"), done.stderr
