"""Which files each deployment of an application needs: what another one alone needs is no reason to roll it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

OUTER = """from serveconf import serve
{more}
@serve.deployment
class Outer:
    def __init__(self, inner): ...
    async def __call__(self, request): ...
"""
INNER = """from serveconf import serve
{more}
SIZE = 3

@serve.deployment
class Inner:
    async def __call__(self): ...

ready = Inner.bind()
"""
PLAIN = {
    "app.py": "from outer import Outer\nfrom inner import Inner\napp = Outer.bind(Inner.bind())\n",
    "outer.py": OUTER.format(more="import shared"),
    "inner.py": INNER.format(more="import shared, weights"),
    "shared.py": "",
    "weights.py": "",
}
BOTH = {"outer": ["app.py", "outer.py", "shared.py"], "inner": ["app.py", "inner.py", "shared.py", "weights.py"]}


def needed(folder: Path, files: dict[str, str], import_path: str = "app:app") -> dict[str, list[str]]:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    asked = {"code_dir": str(folder), "targets": [{"import_path": import_path}]}
    done = subprocess.run(
        [sys.executable, "-m", "serveconf.ingress.inspect"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    (report,) = json.loads(done.stdout)["targets"]
    assert report["ok"], report
    assert "homes" not in report
    return {"outer": report["modules"], **{node["name"].lower(): node["modules"] for node in report["graph"]}}


@pytest.mark.parametrize(
    "app",
    [
        PLAIN["app.py"],
        "import inner, outer\napp = outer.Outer.bind(inner.Inner.bind())\n",
        "import inner as model\nfrom outer import Outer as Front\napp = Front.bind(model.ready)\n",
        "from inner import ready\nfrom outer import Outer\napp = Outer.options(num_replicas=2).bind(ready)\n",
    ],
)
def test_who_calls_a_deployment_needs_nothing_of_its_code(tmp_path: Path, app: str) -> None:
    assert needed(tmp_path, {**PLAIN, "app.py": app}) == BOTH


@pytest.mark.parametrize(
    "app",
    [
        "from outer import Outer\nfrom inner import SIZE, Inner\napp = Outer.bind(Inner.bind())\n",
        "import inner, outer\napp = outer.Outer.bind(inner.Inner.bind() if inner.SIZE else None)\n",
        "from outer import Outer\nfrom inner import *\napp = Outer.bind(Inner.bind())\n",
        "import inner\nfrom outer import Outer\nmodel = inner\napp = Outer.bind(model.Inner.bind())\n",
        "from outer import Outer\nfrom inner import Inner\nInner.func_or_class()\napp = Outer.bind(Inner.bind())\n",
        "import inner\nfrom outer import Outer\ninner.Inner.func_or_class()\napp = Outer.bind(inner.Inner.bind())\n",
    ],
)
def test_whoever_uses_more_of_the_module_needs_it(tmp_path: Path, app: str) -> None:
    assert needed(tmp_path, {**PLAIN, "app.py": app})["outer"] == sorted(PLAIN)


@pytest.mark.parametrize(
    ("more", "outer"),
    [
        ("import shared\nfrom inner import SIZE", sorted(PLAIN)),
        ("import shared\nfrom inner import Inner", BOTH["outer"]),
        ("import shared\nif False:\n    import weights", [*BOTH["outer"], "weights.py"]),
    ],
)
def test_the_class_needs_what_its_module_imports(tmp_path: Path, more: str, outer: list[str]) -> None:
    assert needed(tmp_path, {**PLAIN, "outer.py": OUTER.format(more=more)})["outer"] == outer


def test_what_is_imported_by_name_counts_for_all(tmp_path: Path) -> None:
    by_name = "import shared, importlib\nimportlib.import_module('weights')"
    files = {**PLAIN, "inner.py": INNER.format(more=by_name)}
    assert needed(tmp_path, files) == {"outer": [*BOTH["outer"], "weights.py"], "inner": sorted(PLAIN)}


def test_who_imports_by_name_needs_also_what_another_one_names(tmp_path: Path) -> None:
    by_name = "import shared, importlib\nimportlib.import_module('weights')"
    files = {**PLAIN, "outer.py": OUTER.format(more=by_name)}
    assert needed(tmp_path, files) == {"outer": sorted(PLAIN), "inner": BOTH["inner"]}


def test_packages_and_relative_imports(tmp_path: Path) -> None:
    files = {
        "shop/__init__.py": "from .front import app\n",
        "shop/front.py": "from .models import prices\n" + OUTER.format(more="from . import shared")
        + "app = Outer.bind(prices.Inner.bind())\n",
        "shop/shared.py": "",
        "shop/models/__init__.py": "from ..shared import *\n",
        "shop/models/prices.py": INNER.format(more="from . import table"),
        "shop/models/table.py": "",
    }  # fmt: skip
    assert needed(tmp_path, files, "shop:app") == {
        "outer": ["shop/__init__.py", "shop/front.py", "shop/models/__init__.py", "shop/shared.py"],
        "inner": sorted(files),
    }


@pytest.mark.parametrize(
    "outer",
    [
        "from inner import Inner\nready = Inner.bind(1)",
        "from inner import Inner\nInner = Inner.options(num_replicas=2)",
    ],
)
def test_where_it_is_bound_is_needed_too(tmp_path: Path, outer: str) -> None:
    files = {
        "app.py": "from outer import front as app\n",
        "outer.py": OUTER.format(more=outer) + "front = Outer.bind(Inner.bind())\n",
        "inner.py": INNER.format(more=""),
    }
    assert needed(tmp_path, files) == {"outer": ["app.py", "outer.py"], "inner": sorted(files)}


def test_one_module_is_needed_by_all_that_are_in_it(tmp_path: Path) -> None:
    text = INNER.format(more="") + OUTER.format(more="") + "app = Outer.bind(Inner.bind())\n"
    assert needed(tmp_path, {"app.py": text}) == {"outer": ["app.py"], "inner": ["app.py"]}
