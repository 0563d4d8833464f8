"""The docs: the site builds, pages that commands write are current, and what the pages show works."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from serveconf.cli.explain import commands_page
from serveconf.cli.main import COMMANDS
from serveconf.spec.load import load_file
from serveconf.spec_client import serve_spec

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *PAGES]


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.skipif(
    importlib.util.find_spec("material") is None, reason="mkdocs-material is not installed: pip install -e '.[docs]'"
)
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "First hour" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")


def test_every_page_is_in_the_site() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    assert sorted(re.findall(r"([\w-]+\.md)", nav)) == [page.name for page in PAGES]


def test_the_page_of_commands_is_what_the_command_writes() -> None:
    written = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert written == commands_page(), "run: serveconf explain commands -o markdown > docs/commands.md"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_names_every_command(command: str) -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Commands")[2].partition("\n## ")[0]
    assert re.search(rf"`(serveconf )?{command}\b", table)


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("name", ["first-hour.md", "production.md", "index.md"])
def test_every_spec_of_the_guides_is_valid(name: str, tmp_path: Path) -> None:
    for text in blocks(ROOT / "docs" / name, "yaml"):
        (tmp_path / "serve.yaml").write_text(text)
        load_file(tmp_path / "serve.yaml", env={})


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_every_python_of_the_docs_compiles(page: Path) -> None:
    for text in blocks(page, "python"):
        compile(text, str(page), "exec")


def test_the_app_of_the_first_hour_keeps_what_it_is_told(tmp_path: Path) -> None:
    page = ROOT / "docs" / "first-hour.md"
    (tmp_path / "main.py").write_text(blocks(page, "python")[0])
    (tmp_path / "serve.yaml").write_text(blocks(page, "yaml")[0])
    for kept in (["milk"], ["milk", "milk"]):  # it is in the file, whatever process asks
        with serve_spec(tmp_path / "serve.yaml") as client:
            assert client.post("/milk").json() == {"kept": "milk"}
            assert client.get("/").json() == kept


def test_the_site_fetches_nothing_from_elsewhere() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert config["theme"]["font"] is False


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = sorted(p.name for p in (ROOT / "serveconf").iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file())


@pytest.mark.parametrize("room", [room for room in ROOMS if not room.startswith("_")])
def test_every_room_is_in_the_architecture(room: str) -> None:
    table = ARCHITECTURE.partition("## Rooms")[2].partition("\n## ")[0]
    assert f"`{room}`" in table or f"`{room}/`" in table


def test_every_module_and_class_that_the_architecture_names_is_there() -> None:
    named = set(re.findall(r"`([a-z_]+/[a-z_]+)(?:\.py)?(?:\.([A-Z]\w+))?`", ARCHITECTURE))
    missing = [path for path, _ in named if not any((ROOT / top / f"{path}.py").is_file() for top in ("serveconf", ""))]
    assert [path for path in missing if not (ROOT / path).is_dir()] == []
    for path, name in named:
        if name:
            assert f"class {name}" in (ROOT / "serveconf" / f"{path}.py").read_text(encoding="utf-8"), f"{path}.{name}"
