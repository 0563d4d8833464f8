"""``run module:app`` without a file: the spec that is served, where it lies, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from serveconf.cli.quick import KEPT, spec_file
from serveconf.errors import AuthorError
from serveconf.spec.load import load_file

APP = "from fastapi import FastAPI\napp = FastAPI()\n"
FILES = {
    "main.py": APP,
    "orders.py": APP.replace("app =", "orders ="),
    "src/shop/web.py": "from shop.db import URL\n" + APP,
    "src/shop/db.py": "URL = 1\n",
    "made.py": "from fastapi import FastAPI\ndef create() -> FastAPI:\n    return FastAPI()\n",
    "plain.py": "x = 1\n",
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "my shop"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name, text in FILES.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("targets", "app_dir", "served"),
    [
        (["main:app"], ".", {"/": "main:app"}),
        (["main:app", "orders:orders"], ".", {"/main": "main:app", "/orders": "orders:orders"}),
        (["shop.web:app"], "src", {"/": "shop.web:app"}),
        (["main.py"], ".", {"/": "main:app"}),
        (["src/shop/web.py"], "src", {"/": "shop.web:app"}),
        (["made.py"], ".", {"/": "made:create"}),
    ],
    ids=str,
)
def test_what_is_named_is_served_as_a_spec_that_is_kept(
    targets: list[str], app_dir: str, served: dict[str, str], here: Path
) -> None:
    file, note = spec_file(targets, save=None, port=9000)
    assert file == KEPT
    assert note is not None and f"serveconf run {' '.join(targets)} --save serve.yaml" in note
    loaded = load_file(file, env={})
    assert loaded.app_dir == (here / app_dir).resolve()
    assert {one.prefix: one.import_path for one in loaded.spec.deployments} == served
    assert (loaded.spec.name, loaded.spec.http_options.port) == ("my-shop", 9000)
    assert [one.factory for one in loaded.spec.deployments] == [path == "made:create" for path in served.values()]


def test_without_an_argument_serve_yaml_is_served_else_the_apps_below(here: Path) -> None:
    (here / "src" / "shop" / "web.py").unlink()
    file, _ = spec_file([], save=None, port=None)
    assert [one.import_path for one in load_file(file, env={}).spec.deployments] == ["main:app", "orders:orders"]
    Path("serve.yaml").write_text("name: mine\n")
    assert spec_file([], save=None, port=None) == (Path("serve.yaml"), None)


@pytest.mark.parametrize("lines", [{"A": "1"}, {"A": "1", "B_2": "se$cret"}, {}], ids=str)
def test_variables_of_env_files_are_for_the_code_and_stand_in_the_spec_by_name(lines: dict[str, str]) -> None:
    Path("dev.env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    file, _ = spec_file(["main:app"], save=None, port=None, env_files=[Path("dev.env")])
    assert "se$cret" not in file.read_text()
    (deployment,) = load_file(file, env={}, env_files=[Path("dev.env")]).spec.deployments
    assert deployment.ray_actor_options.runtime_env == ({"env_vars": lines} if lines else {})


def test_a_spec_file_is_taken_as_it_is() -> None:
    assert spec_file(["other.yaml"], save=None, port=None) == (Path("other.yaml"), None)


def test_what_is_saved_is_served_from_there_and_never_written_over() -> None:
    file, note = spec_file(["main:app"], save=Path("serve.yaml"), port=None)
    assert (file, note) == (Path("serve.yaml"), "wrote serve.yaml: main:app")
    assert load_file(file, env={}).spec.deployments[0].import_path == "main:app"
    assert spec_file(["main:app"], save=Path("serve.yaml"), port=None)[0] == file  # the same once more
    file.write_text(file.read_text() + "# mine\n")
    with pytest.raises(AuthorError, match="is there already"):
        spec_file(["orders:orders"], save=Path("serve.yaml"), port=None)


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        (["main:app", "no path"], {}, "'no path' is no import path"),
        (["missing.py"], {}, "there is no such file"),
        (["plain.py"], {}, "defines no FastAPI app"),
        (["main:app", "shop.web:app"], {}, "imported from different folders: . and src"),
        (["serve.yaml"], {"save": Path("x.yaml")}, "--save is for a run without a spec file"),
        (["serve.yaml"], {"port": 9000}, "--port is for a run without a spec file"),
    ],
)
def test_what_cannot_be_meant_is_refused(targets: list[str], options: dict[str, object], message: str) -> None:
    with pytest.raises(AuthorError, match=message):
        spec_file(targets, **{"save": None, "port": None, **options})  # type: ignore[arg-type]
