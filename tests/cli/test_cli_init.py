"""``init`` in projects as people lay them out: it finds where imports start, and what it writes imports as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from serveconf.cli.parser import app
from serveconf.local_ray import free_port
from serveconf.spec.load import load_file

APP = "from fastapi import FastAPI\napp = FastAPI()\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return tmp_path


def lay_out(files: dict[str, str]) -> None:
    for name, text in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert "serveconf/" not in result.stderr  # a traceback is the user's own
    return result


def ok(*arguments: str) -> Result:
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result


def written(file: str = "serve.yaml") -> tuple[str, list[str]]:
    """The app_dir, relative to here, and the import paths; they import."""
    loaded = load_file(Path(file), env={})
    checked = call("validate", "--import", file)
    assert checked.exit_code == 0, checked.stdout
    return str(loaded.app_dir.relative_to(Path.cwd())), [one.import_path for one in loaded.spec.deployments]


def test_it_says_beside_the_code_how_to_tell_data_from_code_and_leaves_what_is_there() -> None:
    lay_out({"backend/app/main.py": APP})
    assert "backend/.serveconfignore" in ok("init", "app.main:app").stdout
    said = Path("backend/.serveconfignore").read_text()
    assert all(line.startswith("#") for line in said.splitlines())  # it leaves nothing out by itself
    assert "# !seed.db" in said
    Path("backend/.serveconfignore").write_text("uploads/\n")
    assert ".serveconfignore" not in ok("init", "app.main:app", "--force").stdout
    assert Path("backend/.serveconfignore").read_text() == "uploads/\n"
    assert "!seed.db" in ok("explain", "app_dir").stdout


MONOREPO = {
    "backend/app/__init__.py": "",
    "backend/app/settings.py": "TITLE = 'bakery'\n",
    "backend/app/main.py": "from fastapi import FastAPI\nfrom app.settings import TITLE\napp = FastAPI(title=TITLE)\n",
    "frontend/build.py": "",
}
LAYOUTS = {
    "a monorepo": (MONOREPO, "backend", "app.main:app"),
    "a monorepo whose app imports by neighbours alone": (
        {
            "backend/app/main.py": "from .api import router\n" + APP + "app.include_router(router)\n",
            "backend/app/api.py": "from fastapi import APIRouter\nfrom app.core.db import URL\nrouter = APIRouter()\n",
            "backend/app/core/db.py": "URL = 'sqlite://'\n",
        },
        "backend",
        "app.main:app",
    ),
    "scripts that import those beside them": (
        {"services/users/main.py": "from db import URL\n" + APP, "services/users/db.py": "URL = 1\n"},
        "services/users",
        "main:app",
    ),
    "src without a word about it": ({"src/shop/__init__.py": "", "src/shop/web.py": APP}, "src", "shop.web:app"),
    "src that imports say": (
        {"src/shop/web.py": "from shop.db import URL\n" + APP, "src/shop/db.py": "URL = 1\n"},
        "src",
        "shop.web:app",
    ),
    "src as a package": (
        {"src/web.py": "from src.db import URL\n" + APP, "src/db.py": "URL = 1\n"},
        ".",
        "src.web:app",
    ),
    "setuptools' where": (
        {
            "pyproject.toml": "[tool.setuptools.packages.find]\nwhere = ['lib']\n",
            "lib/shop/web.py": APP,
        },
        "lib",
        "shop.web:app",
    ),
    "poetry's from, in a folder of the repository": (
        {
            "api/pyproject.toml": "[tool.poetry]\npackages = [{include = 'shop', from = 'code'}]\n",
            "api/code/shop/web.py": APP,
        },
        "api/code",
        "shop.web:app",
    ),
    "hatch's packages": (
        {
            "pyproject.toml": "[tool.hatch.build.targets.wheel]\npackages = ['python/shop']\n",
            "python/shop/web.py": APP,
        },
        "python",
        "shop.web:app",
    ),
    "a pyproject.toml that is none": ({"pyproject.toml": "no toml", "shop/web.py": APP}, ".", "shop.web:app"),
    "a folder that no import can name": ({"my-service/main.py": APP}, "my-service", "main:app"),
    "a flat package": ({"shop/__init__.py": "", "shop/web.py": APP}, ".", "shop.web:app"),
    "an app that a function makes": (
        {
            "web.py": "from fastapi import FastAPI\ndef create_app():\n    made = FastAPI()\n    return made\napp = create_app()\n"
        },
        ".",
        "web:app",
    ),
}


@pytest.mark.parametrize(("files", "app_dir", "import_path"), LAYOUTS.values(), ids=LAYOUTS)
def test_init_finds_where_imports_start_and_writes_what_imports(
    files: dict[str, str], app_dir: str, import_path: str
) -> None:
    lay_out(files)
    ok("init")
    assert written() == (app_dir, [import_path])


def test_pythonpath_names_where_imports_start(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out({"lib/python/shop/web.py": APP})
    monkeypatch.setenv("PYTHONPATH", str(here / "lib" / "python"))
    ok("init")
    assert written() == ("lib/python", ["shop.web:app"])


@pytest.mark.parametrize(
    ("files", "given", "app_dir"),
    [
        (MONOREPO, "app.main:app", "backend"),
        ({"src/shop/web.py": APP}, "shop.web:app", "src"),
        ({"shop/web.py": APP}, "shop.web:app", "."),
        ({"deep/down/here/web.py": APP}, "web:app", "deep/down/here"),
    ],
)
def test_a_given_import_path_is_found_where_it_lies(files: dict[str, str], given: str, app_dir: str) -> None:
    lay_out(files)
    ok("init", given)
    assert written() == (app_dir, [given])


def test_a_factory_is_written_as_one_where_no_app_is_there() -> None:
    lay_out({"web.py": "from fastapi import FastAPI\ndef create_app(debug=False) -> FastAPI:\n    return FastAPI()\n"})
    ok("init")
    assert load_file(Path("serve.yaml"), env={}).spec.deployments[0].factory
    assert written() == (".", ["web:create_app"])


def test_apps_that_start_in_different_folders_get_a_stack_each() -> None:
    users, orders = "from db import URL\n" + APP, "from queue_of_orders import URL\n" + APP
    lay_out({"users/main.py": users, "users/db.py": "URL = 1\n"})
    lay_out({"orders/main.py": orders, "orders/queue_of_orders.py": "URL = 1\n"})
    ok("init")
    assert written("serve.yaml") == ("orders", ["main:app"])
    assert written("serve-users.yaml") == ("users", ["main:app"])
    specs = [load_file(Path(name), env={}).spec for name in ("serve.yaml", "serve-users.yaml")]
    assert len({spec.name for spec in specs}) == len({spec.deployments[0].prefix for spec in specs}) == 2


NEEDS = "import os\n" + APP + "os.environ['DATABASE_URL'], os.environ['TOKEN']\n"


def test_variables_that_the_code_needs_are_given_and_written_by_name() -> None:
    lay_out({"web.py": NEEDS, "prod.env": "DATABASE_URL=sqlite://\nTOKEN='a $ecret'\n"})
    without = ok("init", "web:app")
    assert "KeyError" in without.stderr and "--env-file" in without.stderr
    given = ok("init", "web:app", "--force", "--env-file", "prod.env")
    assert "warning" not in given.stderr
    assert "$ecret" not in Path("serve.yaml").read_text()
    assert call("validate", "--import", "serve.yaml", "--env-file", "prod.env").exit_code == 0


def test_variables_of_the_spec_that_is_written_over_hold_and_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out({"web.py": NEEDS})
    lay_out(
        {
            "serve.yaml": "deployments:\n  - name: web\n    import_path: web:app\n    ray_actor_options:\n"
            "      runtime_env: {env_vars: {DATABASE_URL: 'a$$b', TOKEN: \"${MY_TOKEN}\"}}\n"
        }
    )
    monkeypatch.setenv("MY_TOKEN", "secret")
    assert "warning" not in ok("init", "web:app", "--force").stderr
    assert "secret" not in Path("serve.yaml").read_text()
    (deployment,) = load_file(Path("serve.yaml"), env={"MY_TOKEN": "secret"}).spec.deployments
    assert deployment.ray_actor_options.runtime_env["env_vars"] == {"DATABASE_URL": "a$b", "TOKEN": "secret"}


@pytest.mark.parametrize("command", [("validate", "--import"), ("plan",)])
@pytest.mark.parametrize(
    ("code", "variables"),
    [
        (NEEDS, "{DATABASE_URL: x, TOKEN: y}"),
        ("import os\n" + APP + "app.state.port = int(os.environ['PORT'])\n", "{PORT: '1'}"),
        ("import os\nif os.environ['MODE'] != 'prod':\n    raise SystemExit(3)\n" + APP, "{MODE: prod}"),
    ],
)
def test_variables_of_the_runtime_environment_hold_wherever_the_code_is_imported(
    command: tuple[str, ...], code: str, variables: str, monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    monkeypatch.setenv("SERVECONF_ADDRESS", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("SERVECONF_HOME", str(here / "home"))
    lay_out({"web.py": code})
    spec = "deployments:\n  - name: web\n    import_path: web:app\n"
    lay_out({"without.yaml": spec})
    lay_out({"with.yaml": f"{spec}    ray_actor_options: {{runtime_env: {{env_vars: {variables}}}}}\n"})
    assert call(*command, "without.yaml").exit_code == 1
    ok(*command, "with.yaml")
