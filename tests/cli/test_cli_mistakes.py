"""What is said to who asks for what is not there, or says what can't be meant: one line, what to do, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stage import Stage
from typer.testing import CliRunner, Result

from serveconf.cli.parser import app

Run = Callable[..., Result]
SPEC = "name: shop\ndeployments:\n  - {name: web, import_path: 'web:app', route_prefix: /}\n"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A controller that has never been given anything."""
    stage = Stage(tmp_path_factory.mktemp("packages"))
    yield stage
    stage.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One stack that serves."""
    stage = Stage(tmp_path_factory.mktemp("packages"))
    stage.apply({"name": "web", "import_path": "web:app", "route_prefix": "/"})
    yield stage
    stage.close()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "120")
    Path("web.py").write_text("app = 1\n")
    Path("serve.yaml").write_text(SPEC)
    Path("there").write_bytes(b"something else")


def run(stage: Stage, *words: str) -> Result:
    done = CliRunner().invoke(app, ["--address", stage.url, "--token", "secret", *words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("status web", "there is no stack 'default'\n  hint: nothing has been applied yet"),
        ("status web --stack shop", "there is no stack 'shop'\n  hint: nothing has been applied yet"),
        ("status --stack shop", "there is no stack 'shop'\n  hint: nothing has been applied yet"),
        ("history", "there is no stack 'default'"),
        ("resume", "there is no stack 'default'"),
        ("rollback", "there is no stack 'default'"),
        ("promote", "there is no stack 'default'"),
        ("delete web", "there is no stack 'default'"),
        ("scale web 2", "there is no deployment 'web' in stack 'default'"),
        ("logs web", "stack 'default' has no deployment 'web'"),
        ("plan serve.yaml --drift", "there is no stack 'shop'"),
        ("dump --stack shop", "there is no stack 'shop'"),
    ],
)
def test_where_nothing_was_ever_applied_each_command_says_so(empty: Stage, words: str, said: str) -> None:
    done = run(empty, *words.split())
    assert done.exit_code == 1
    assert said in done.stderr and done.stdout == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("status --stack other --exit-code", 1, "there is no stack 'other'\n  hint: its stacks: shop"),
        ("status web --stack other", 1, "there is no stack 'other'"),
        ("status nobody", 1, "stack 'shop' has no deployment 'nobody'\n  hint: its deployments: web"),
        ("history 7", 1, "stack 'shop' has no revision 7"),
        ("rollback", 1, "stack 'shop' has no earlier revision to go back to"),
        ("promote", 6, "stack 'shop' has no canary that runs"),
        ("abort web", 6, "deployment 'web' of stack 'shop' has no canary that runs"),
        ("delete", 1, "say which deployments to delete, or --stack NAME for a whole stack"),
        ("logs", 2, "name a deployment, or say --proxy or --controller"),
        ("logs web --previous", 1, "no replica of deployment 'web' has died that anybody knows of"),
        ("logs web --since soon", 1, "'soon' is no time\n  hint: write how long ago, as 10m or 1h30m"),
        ("events --since soon", 1, "'soon' is no time"),
        ("routes --test http://", 1, "'http://' is no URL and no path"),
        ("routes --header a:b", 2, "a header belongs to --test"),
        ("routes --test /x --header nonsense", 2, "'nonsense' is no header: write 'NAME: VALUE'"),
        ("token --webhook a/b", 2, "a webhook's name is up to 100 letters, digits, '.', '_' and '-'"),
        ("sync repository --webhook a/b", 2, "a webhook's name is up to 100 letters, digits, '.', '_' and '-'"),
        ("backup there", 1, "there is there already\n  hint: give --force to write over it"),
        ("backup no/such/file", 1, "the backup can't be written to no/such/file: No such file or directory"),
        ("restore nothing", 1, "nothing can't be read: No such file or directory"),
        ("restore there", 1, "this is no backup of serveconf"),
        ("plan serve.yaml --out no/such/plan", 1, "the plan can't be saved to no/such/plan: No such file or directory"),
        ("apply nowhere.yaml", 1, "nowhere.yaml: error: cannot be read: No such file or directory [file]"),
        ("convert serve.yaml", 1, "serve.yaml:1:1: error: this is a serveconf spec already [type]"),
        ("init web:app", 1, "serve.yaml is there already\n  hint: give --force to write over it"),
        ("explain deployments.num_replica", 1, "did you mean 'deployments[].num_replicas'?"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(shop: Stage, words: str, code: int, said: str) -> None:
    done = run(shop, *words.split())
    assert (done.exit_code, done.stdout) == (code, ""), done.output
    assert said in done.stderr


@pytest.mark.parametrize("words", ["status web --stack other", "history 7", "promote", "logs web --previous"])
def test_as_json_a_mistake_is_an_object_with_its_code(shop: Stage, words: str) -> None:
    done = run(shop, *words.split(), "-o", "json")
    error = json.loads(done.stdout)["error"]
    assert done.exit_code in (1, 6)
    assert error["code"] in {"not_found", "no_canary"} and error["message"] and error["hint"]


def test_a_backup_is_restored_where_the_stack_lives_only_if_that_is_said(shop: Stage) -> None:
    assert run(shop, "backup", "b").exit_code == 0
    assert run(shop, "backup", "b", "--force").exit_code == 0
    other = run(shop, "restore", "b", "--stack", "other")
    assert (other.exit_code, other.stderr) == (
        1,
        "error: the backup has no stack 'other'\n  hint: its stacks: shop\n",
    )
    lives = run(shop, "restore", "b")
    assert lives.exit_code == 6 and "these stacks live: shop" in lives.stderr


def test_a_plan_that_was_cut_short_is_no_plan(shop: Stage) -> None:
    assert run(shop, "plan", "serve.yaml", "--out", "p").exit_code == 0
    Path("p").write_bytes(Path("p").read_bytes()[:300])
    cut = run(shop, "apply", "p")
    assert cut.exit_code == 1
    assert "error: not a saved plan" in cut.stderr and "plan FILE --out PLAN" in cut.stderr


def test_of_a_revision_only_what_is_known_is_shown(shop: Stage) -> None:
    shown = run(shop, "history", "1")
    assert shown.exit_code == 0
    assert "revision: 1\nstack: shop\n" in shown.stdout and "None" not in shown.stdout
    assert "import_path: web:app" in shown.stdout


LONG = "x" * 300


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("validate loop.yaml", "cannot be read: Too many levels of symbolic links"),
        ("plan loop.yaml", "cannot be read: Too many levels of symbolic links"),
        (f"validate {LONG}", "cannot be read: File name too long"),
        (f"watch {LONG}", f"error: {LONG}: File name too long"),
        (f"run {LONG}", f"error: {LONG}: File name too long"),
        (f"sync {LONG} --once", f"error: {LONG}: File name too long"),
        (f"backup {LONG}", f"error: {LONG}: File name too long"),
        ("run web:app --save serve.yaml/below.yaml", "serve.yaml: File exists"),
        ("dump --out serve.yaml", "error: serve.yaml can't be written: File exists"),
    ],
)
def test_what_the_system_says_of_a_file_is_one_line_and_no_fault_of_ours(shop: Stage, words: str, said: str) -> None:
    Path("loop.yaml").symlink_to("loop.yaml")
    done = run(shop, *words.split())
    assert done.exit_code == 1
    assert said in done.output and "Traceback" not in done.output


@pytest.mark.parametrize("address", ["http://[::1", "http://127.0.0.1:99999", "http://127.0.0.1:x"])
@pytest.mark.parametrize("words", ["status", "apply serve.yaml", "plan serve.yaml", "shutdown", "events"])
def test_an_address_that_is_none_is_said_before_anything_is_asked_or_started(address: str, words: str) -> None:
    done = CliRunner().invoke(app, ["--address", address, "--token", "secret", *words.split()])
    assert isinstance(done.exception, SystemExit) and done.exit_code == 1
    assert f"error: {address} is no address of a control API" in done.stderr


@pytest.mark.parametrize(
    ("url", "header", "said"),
    [
        ("GET http://[x/", "a: b", "'http://[x/' is no URL and no path"),
        ("nowhere", "a: b", "'nowhere' is no URL and no path"),
        ("/", "a: ключ", "'ключ' can be in no header"),
    ],
)
def test_a_request_that_can_be_none_is_taken_by_nobody(shop: Stage, url: str, header: str, said: str) -> None:
    done = run(shop, "routes", "--test", url, "-H", header)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {said}")
