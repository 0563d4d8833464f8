"""Commands as they are mostly given go past the parser of options: what they do, and how they end, is the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from stage import Stage

from serveconf.cli import change, looking
from serveconf.cli.main import straight
from serveconf.read_there import read_there
from serveconf.spec import checks

COMMAND = Path(sys.executable).parent / "serveconf"
SPEC = "name: shop\ndeployments:\n  - {name: web, import_path: 'web:app', route_prefix: %s}\n"
NEVER = ("typer", "msgspec", "pydantic", "yaml", "httpx", "pathspec", "rich")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path / "packages")
    yield stage
    stage.close()


def run(stage: Stage | None, folder: Path, *words: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """The command in a process of its own; with ``code``, which modules of those in NEVER were imported is told at the end."""
    there = {"SERVECONF_ADDRESS": stage.url if stage else "http://127.0.0.1:1", "SERVECONF_TOKEN": "secret"}
    env = {**os.environ, "SERVECONF_HOME": str(folder / "home"), **there}
    command = [sys.executable, "-c", code, *words] if code else [str(COMMAND), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, timeout=60)


TELLING = f"""
import atexit, sys
atexit.register(lambda: print("imported", [name for name in {NEVER} if name in sys.modules], file=sys.stderr))
from serveconf.cli.main import main
main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "web.py").write_text("app = 1\n")
    (folder / "serve.yaml").write_text(SPEC % "/a")
    return folder


def test_an_apply_to_a_running_controller_loads_no_models(stage: Stage, folder: Path) -> None:
    assert run(stage, folder, "apply", "serve.yaml").returncode == 0
    same = run(stage, folder, "apply", "serve.yaml", code=TELLING)
    assert "No changes." in same.stderr and "imported []" in same.stderr
    (folder / "serve.yaml").write_text(SPEC % "'${WHERE:-/b}'")
    moved = run(stage, folder, "apply", "serve.yaml", code=TELLING)
    assert "move /a → ${WHERE:-/b}" in moved.stderr and moved.returncode == 0 and "imported []" in moved.stderr
    assert "/b" in run(stage, folder, "status").stdout


def test_a_mistake_is_told_at_its_place_all_the_same(stage: Stage, folder: Path) -> None:
    (folder / "serve.yaml").write_text(SPEC % "/a" + "    num_replica: 2\n")
    wrong = run(stage, folder, "apply", "serve.yaml")
    assert wrong.returncode == 1 and "serve.yaml:4:" in wrong.stderr
    (folder / "serve.yaml").write_text(SPEC % "/a" + "  - {name: web, import_path: 'web:app'}\n")
    twice = run(stage, folder, "apply", "serve.yaml")
    assert twice.returncode == 1 and "serve.yaml:4:" in twice.stderr and "[duplicate_name]" in twice.stderr


@pytest.mark.parametrize(
    "lines", ["ssl_certfile: nope.pem", "ssl_certfile: nope.pem, ssl_keyfile: nope.key", "ssl_ca_certs: nope.pem"]
)
def test_files_that_lie_beside_the_spec_are_looked_at(stage: Stage, folder: Path, lines: str) -> None:
    (folder / "serve.yaml").write_text(SPEC % "/a" + f"http_options: {{{lines}}}\n")
    plain, spelled = (run(stage, folder, "plan", "serve.yaml", *more) for more in ((), ("-o", "text")))
    assert "serve.yaml:4:" in plain.stderr
    assert plain.stderr == spelled.stderr
    assert plain.returncode == spelled.returncode


@pytest.mark.parametrize("then", [None, "name: [\n", "name: other\n"])
def test_where_a_problem_is_nobody_knows_once_the_file_is_another(stage: Stage, folder: Path, then: str | None) -> None:
    file = folder / "serve.yaml"
    read = read_there(file, stage.url, "secret")
    assert read is not None
    if then is None:
        file.unlink()
    else:
        file.write_text(then)
    problem = read[0].problem("deployments[0].import_path", "no", "code_failed")
    assert (problem.line, problem.message, problem.code) == (0, "no", "code_failed")


def test_a_token_that_has_to_be_read_is_for_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVECONF_TOKEN", "-")
    assert not straight(["status"])


def test_what_has_a_warning_says_so_and_what_includes_is_read_whole(stage: Stage, folder: Path) -> None:
    (folder / "serve.yaml").write_text("name: shop\ninclude: [more.yaml]\n")
    (folder / "more.yaml").write_text("deployments: [{name: web, import_path: 'web:app'}]\n")
    assert run(stage, folder, "apply", "serve.yaml").returncode == 0
    assert "/web" in run(stage, folder, "status").stdout


def test_where_nobody_is_it_ends_as_with_options(folder: Path) -> None:
    (folder / "serve.yaml").write_text("name: [\n")
    plain, spelled = (run(None, folder, "apply", "serve.yaml", *more) for more in ((), ("-o", "text")))
    assert (plain.returncode, plain.stdout, plain.stderr) == (spelled.returncode, spelled.stdout, spelled.stderr)
    assert plain.returncode == 1


def test_a_number_of_replicas_is_set_without_the_parser(stage: Stage, folder: Path) -> None:
    assert run(stage, folder, "apply", "serve.yaml").returncode == 0
    scaled = run(stage, folder, "scale", "web", "2", "--stack", "shop", code=TELLING)
    assert (scaled.returncode, scaled.stdout) == (
        0,
        "web: 1 -> 2 replicas, 2 ready.\n",
    ) and "imported []" in scaled.stderr
    assert run(stage, folder, "scale", "web", "1").stdout == "web: 2 -> 1 replicas, 1 ready.\n"
    plain, spelled = (run(stage, folder, "scale", "nobody", "3", *more) for more in ((), ("-o", "text")))
    assert (plain.returncode, plain.stderr) == (spelled.returncode, spelled.stderr) and plain.returncode == 1


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["apply"],
        ["apply", "a", "b"],
        ["status", "x"],
        ["apply", "-h"],
        ["apply", ""],
        ["apply", "a", "--stack", "s"],
        ["scale", "web"],
        ["scale", "web", "two"],
        ["scale", "web", "100001"],  # more than there may be: typer says so
        ["scale", "web", "-1"],
        ["scale", "web", "2", "--stack"],
        ["scale", "--stack", "s", "web", "2"],
        ["scale", "web", "2", "--stack", ""],
    ],
)
def test_what_there_is_to_parse_is_for_the_parser(words: list[str]) -> None:
    assert not straight(words)


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (EOFError, 1), (SystemExit(3), 3)])
def test_it_ends_with_the_parsers_codes(monkeypatch: pytest.MonkeyPatch, error: Any, code: int) -> None:
    def status(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(looking, "status", status)
    with pytest.raises(SystemExit) as ended:
        straight(["status"])
    app = typer.Typer()
    app.command()(lambda: status())
    with pytest.raises(SystemExit) as parsed:
        app([])
    assert ended.value.code == parsed.value.code == code


def test_no_more_replicas_are_asked_for_than_a_spec_may_have() -> None:
    assert change.MOST_REPLICAS == checks.MOST_REPLICAS
