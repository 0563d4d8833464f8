"""A day of commands against a whole control API: real sockets, the real client, a cluster in memory and no Ray."""

from __future__ import annotations

import json
import socket
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from stage import Stage
from typer.testing import CliRunner, Result

from serveconf import launch
from serveconf.backup_file import decode_backup, encode_backup
from serveconf.cli.parser import app
from serveconf.local_ray import free_port

Run = Callable[..., Result]
ONE = """
    name: shop
    deployments:
      - name: web
        import_path: web:app
        route_prefix: /
        num_replicas: 2
"""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path / "packages")
    yield stage
    stage.close()


@pytest.fixture
def run(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command in a folder that has ``web.py``."""
    folder = tmp_path / "app"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    Path("web.py").write_text("app = 1\n")
    return lambda *args: command(stage, *args)


def command(stage: Stage, *args: str, token: str = "secret") -> Result:
    return CliRunner().invoke(app, ["--address", stage.url, "--token", token, *args])


def spec(text: str = ONE, **changes: str) -> None:
    """Write the file, with words of it replaced."""
    text = textwrap.dedent(text)
    for old, new in changes.items():
        text = text.replace(old, new)
    Path("serve.yaml").write_text(text)


def told(result: Result, code: int = 0) -> Any:
    """The JSON that a command has printed, with this exit code."""
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def ready(stack: Any) -> dict[str, int]:
    """How many replicas of each deployment the status shows as ready."""
    return {d["name"]: sum(r["state"] == "Ready" for r in d["replicas"]) for d in stack["deployments"]}


def test_apply_plan_status_and_apply_again(run: Run) -> None:
    spec()
    assert run("plan", "serve.yaml", "--exit-code").exit_code == 2
    applied = told(run("apply", "serve.yaml", "-o", "json"))
    assert (applied["outcome"], applied["changed"], applied["stack"]) == ("applied", True, "shop")
    assert run("plan", "serve.yaml", "--exit-code").exit_code == 0
    assert told(run("apply", "serve.yaml", "-o", "json"))["outcome"] == "unchanged"

    (stack,) = told(run("status", "-o", "json"))["stacks"]
    assert ready(stack) == {"web": 2}
    shown = run("status")
    assert shown.exit_code == 0 and "shop" in shown.stdout and "Healthy" in shown.stdout
    one = run("status", "web")
    assert one.exit_code == 0 and "web" in one.stdout


def test_what_was_rolled_back_is_pinned_until_it_is_resumed(run: Run) -> None:
    spec()
    run("apply", "serve.yaml")
    Path("web.py").write_text("app = 2\n")
    assert told(run("apply", "serve.yaml", "-o", "json"))["revision"] == 2
    assert told(run("rollback", "-o", "json"))["outcome"] == "applied"
    assert [one["revision"] for one in told(run("history", "-o", "json"))] == [3, 2, 1]
    assert "back to 1: 1 rolled" in run("history").stdout
    again = run("rollback", "7")
    assert again.exit_code == 1 and "7" in again.stderr
    assert told(run("resume", "-o", "json")) is not None
    assert run("resume").exit_code == 0


def test_a_bad_file_touches_nothing_and_says_where(run: Run) -> None:
    spec()
    run("apply", "serve.yaml")
    spec(**{"num_replicas: 2": "num_replicas: many"})
    refused = run("apply", "serve.yaml")
    assert refused.exit_code == 1
    assert "serve.yaml:7:19" in refused.stderr
    assert told(run("status", "-o", "json"))["stacks"][0]["revision"] == 1


def test_a_number_by_hand_and_one_out_of_bounds(run: Run) -> None:
    spec()
    run("apply", "serve.yaml")
    assert run("scale", "web", "4").exit_code == 0
    assert ready(told(run("status", "-o", "json"))["stacks"][0]) == {"web": 4}
    for wrong in (("scale", "nobody", "2"), ("scale", "web", "--", "-1"), ("scale", "web", "9" * 20)):
        refused = run(*wrong)
        assert refused.exit_code not in (0, 3), refused.output
        assert refused.stderr


def test_events_say_what_was_done_and_by_whom(run: Run) -> None:
    spec()
    run("apply", "serve.yaml")
    events = told(run("events", "-o", "json"))
    (begun, *_) = [event for event in events if event["kind"] == "apply"]
    assert begun["stack"] == "shop" and begun["data"]["author"] in begun["message"]
    assert told(run("events", "--stack", "other", "-o", "json")) == []
    assert "revision 1 is applied" in run("events", "--since", "1h").stdout


def test_logs_of_a_deployment_and_of_nobody(run: Run) -> None:
    spec()
    run("apply", "serve.yaml")
    assert "hello from" in run("logs", "web").stdout
    nobody = run("logs", "nobody")
    assert nobody.exit_code != 0 and "nobody" in nobody.stderr


def test_what_is_deleted_is_gone_and_deleted_once(run: Run) -> None:
    spec()
    run("apply", "serve.yaml")
    assert run("delete", "nobody").exit_code == 1
    assert run("delete", "web").exit_code == 0
    assert ready(told(run("status", "-o", "json"))["stacks"][0]) == {}
    assert run("delete", "--stack", "shop").exit_code == 0
    assert told(run("status", "-o", "json"))["stacks"] == []
    again = run("delete", "--stack", "shop")
    assert again.exit_code == 1 and "shop" in again.stderr


def test_a_backup_goes_to_another_cluster(run: Run, tmp_path: Path) -> None:
    spec()
    run("apply", "serve.yaml")
    assert run("backup", "all.backup").exit_code == 0
    other = Stage(tmp_path / "others")
    try:
        assert command(other, "restore", "all.backup").exit_code == 0
        (stack,) = told(command(other, "status", "-o", "json"))["stacks"]
        assert (stack["name"], ready(stack)) == ("shop", {"web": 2})
        twice = command(other, "restore", "all.backup")
        assert twice.exit_code != 0 and "shop" in twice.stderr
    finally:
        other.close()


def test_a_stack_that_can_not_be_restored_keeps_no_other_from_it(run: Run, tmp_path: Path) -> None:
    for name, code in (("blog", "1"), ("shop", "2")):
        spec(**{"name: shop": f"name: {name}", "route_prefix: /": f"route_prefix: /{name}"})
        Path("web.py").write_text(f"app = {code}\n")
        run("apply", "serve.yaml")
    run("backup", "all.backup")
    saved = decode_backup(Path("all.backup").read_bytes())
    stacks = [replace(one, revisions={1: b"{}"}) if one.name == "blog" else one for one in saved.stacks]
    torn = replace(saved, stacks=tuple(stacks))
    Path("torn.backup").write_bytes(encode_backup(torn))
    other = Stage(tmp_path / "others")
    try:
        done = command(other, "restore", "torn.backup", "-o", "json")
        said = json.loads(done.stdout)
        assert done.exit_code == 1
        assert [result["stack"] for result in said["stacks"]] == ["shop"]
        assert [one["stack"] for one in said["errors"]] == ["blog"]
        (stack,) = told(command(other, "status", "-o", "json"))["stacks"]
        assert (stack["name"], ready(stack)) == ("shop", {"web": 2})
    finally:
        other.close()


def test_dumped_files_are_all_written_or_none_and_say_what_serves(run: Run, stage: Stage, tmp_path: Path) -> None:
    spec()
    run("apply", "serve.yaml")
    spec(**{"route_prefix: /": "route_prefix: /blog"})
    text = Path("serve.yaml").read_text().replace("name: shop", "name: blog")
    Path("serve.yaml").write_text(text)
    assert run("apply", "serve.yaml").exit_code == 0
    Path("live").mkdir()
    Path("live/shop.yaml").write_text("mine")
    refused = run("dump", "--out", "live")
    assert refused.exit_code == 1 and "live/shop.yaml is there already" in refused.stderr
    assert sorted(path.name for path in Path("live").iterdir()) == ["shop.yaml"]  # blog.yaml was written before it
    forced = told(run("dump", "--out", "live", "--force", "-o", "json"))
    assert sorted(one["name"] for one in forced) == ["blog", "shop"]  # one document, and the files all the same
    for name in ("blog", "shop"):
        assert run("plan", f"live/{name}.yaml", "--exit-code").exit_code == 0


def test_a_folder_that_can_be_none_is_one_line(run: Run) -> None:
    spec()
    run("apply", "serve.yaml")
    refused = run("dump", "--out", "serve.yaml")
    assert isinstance(refused.exception, SystemExit) and refused.exit_code == 1
    assert refused.stderr.startswith("error: serve.yaml can't be written: ")
    refused = run("dump", "--out", "serve.yaml/below", "-o", "json")
    assert refused.exit_code == 1 and "can't be written" in told(refused, 1)["error"]["message"]


def test_a_wrong_token_and_nobody_there(run: Run, stage: Stage) -> None:
    spec()
    assert command(stage, "status", token="guessed").exit_code != 0
    nobody = f"http://127.0.0.1:{free_port()}"
    gone = CliRunner().invoke(app, ["--address", nobody, "--token", "secret", "status"])
    assert gone.exit_code != 0 and nobody in gone.stderr


@pytest.mark.parametrize("words", [("plan", "serve.yaml"), ("status",), ("scale", "web", "2")])
def test_a_controller_that_is_too_busy_to_answer_is_not_taken_for_none(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Else ``plan`` would show what a first apply does, beside everything that runs."""
    spec()
    monkeypatch.setattr(launch, "ANSWER_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"http://127.0.0.1:{busy.getsockname()[1]}"
        told = CliRunner().invoke(app, ["--address", address, "--token", "secret", *words])
    assert told.exit_code == 1
    assert f"what listens at {address} has not answered within 0.1 s" in told.stderr
    assert "first apply" not in told.stderr and told.stdout == ""
