"""Commands that are interrupted, given by two people at once, by someone who may only look, or into a pipe that nobody reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lasting import Meanwhile, lasting
from stage import Stage
from typer.testing import CliRunner, Result

from serveconf.cli.parser import app
from serveconf.client import Client
from serveconf.credentials import read_only

COMMAND = Path(sys.executable).parent / "serveconf"
SPEC = "name: shop\ndeployments:\n  - {name: web, import_path: 'web:app', route_prefix: %s, num_replicas: %d}\n"


@pytest.fixture
def stage(shared_stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A control API where ``web`` serves with one replica, as ``serve.yaml`` says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    Path("web.py").write_text("app = 1\n")
    spec()
    assert run(shared_stage, "apply", "serve.yaml", "-o", "json").exit_code == 0
    yield shared_stage
    shared_stage.empty()


def spec(prefix: str = "/", n: int = 1) -> str:
    Path("serve.yaml").write_text(SPEC % (prefix, n))
    return "serve.yaml"


def run(stage: Stage, *words: str, token: str = "secret") -> Result:
    done = CliRunner().invoke(app, ["--address", stage.url, "--token", token, *words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def shop(stage: Stage) -> dict[str, Any]:
    (found,) = Client(stage.url, "secret").status()["stacks"]
    return found  # type: ignore[no-any-return]


def replicas(stage: Stage) -> list[tuple[str, str]]:
    return [(one["id"], one["state"]) for d in shop(stage)["deployments"] for one in d["replicas"]]


def starting(stage: Stage) -> bool:
    return any(state == "Starting" for _, state in replicas(stage))


@pytest.mark.parametrize("words", [("apply", "serve.yaml"), ("apply", "serve.yaml", "-o", "json")])
def test_an_apply_that_is_interrupted_before_its_switch_is_taken_back(stage: Stage, words: tuple[str, ...]) -> None:
    before, revision = replicas(stage), shop(stage)["revision"]
    Path("web.py").write_text("app = 2\n")
    stage.hold()
    done = lasting(
        stage, *words, during=lambda there: there.until(lambda: starting(stage), "a start"), ends=signal.SIGINT
    )
    assert "interrupted: nothing was switched; what had been started is removed" in done.stderr
    assert done.exit_code == 3
    if "json" in words:
        assert json.loads(done.stdout)["outcome"] == "rolled_back"
    stage.let_go()
    Meanwhile().until(lambda: replicas(stage) == before, "what was started is removed")
    assert shop(stage)["revision"] == revision


def test_a_deadline_takes_back_what_was_started_and_the_next_apply_is_as_if_it_had_not_been(stage: Stage) -> None:
    before = replicas(stage)
    Path("web.py").write_text("app = 2\n")
    stage.hold()
    late = run(stage, "apply", "serve.yaml", "--timeout", "1", "-o", "json")
    assert (late.exit_code, json.loads(late.stdout)["outcome"]) == (5, "timeout")
    stage.let_go()
    Meanwhile().until(lambda: replicas(stage) == before, "what was started is removed")
    assert run(stage, "apply", "serve.yaml").exit_code == 0
    assert run(stage, "plan", "serve.yaml", "--exit-code").exit_code == 0


def test_of_two_people_who_apply_at_once_the_second_waits_and_both_are_served(stage: Stage) -> None:
    revision = shop(stage)["revision"]
    Path("web.py").write_text("app = 2\n")
    stage.hold()
    begun = json.loads(run(stage, "apply", "serve.yaml", "--no-wait", "-o", "json").stdout)
    spec("/moved")

    def during(there: Meanwhile) -> None:
        there.until(lambda: starting(stage), "the first one's start")
        stage.let_go()
        there.ended.wait(120)

    second = lasting(stage, "apply", "serve.yaml", "-o", "json", during=during)
    assert json.loads(second.stdout)["revision"] == revision + 2
    first = list(Client(stage.url, "secret").events(begun["operation"]))[-1]
    assert (first["outcome"], first["revision"]) == ("applied", revision + 1)
    assert [d["route_prefix"] for d in shop(stage)["deployments"]] == ["/moved"]


def test_a_plan_that_somebody_elses_apply_has_overtaken_is_refused_and_changes_nothing(stage: Stage) -> None:
    spec("/mine")
    assert run(stage, "plan", "serve.yaml", "--out", "mine.plan").exit_code == 0
    spec("/theirs")
    assert run(stage, "apply", "serve.yaml").exit_code == 0
    spec("/mine")
    stale = run(stage, "apply", "mine.plan", "-o", "json")
    assert stale.exit_code == 6
    assert "error" in json.loads(stale.stdout)
    assert [d["route_prefix"] for d in shop(stage)["deployments"]] == ["/theirs"]
    assert run(stage, "plan", "serve.yaml", "--out", "mine.plan").exit_code == 0
    assert run(stage, "apply", "mine.plan").exit_code == 0
    assert run(stage, "apply", "mine.plan").exit_code == 6  # once


@pytest.mark.parametrize(
    "words",
    [
        ("apply", "serve.yaml"),
        ("rollback",),
        ("resume",),
        ("scale", "web", "3"),
        ("promote",),
        ("abort",),
        ("delete", "web"),
        ("delete", "--stack", "shop"),
        ("backup", "all.backup"),
        ("token", "--rotate"),
        ("token", "--webhook", "shop"),
        ("shutdown",),
    ],
)
def test_who_may_only_look_changes_nothing_and_is_told_so(stage: Stage, words: tuple[str, ...]) -> None:
    spec("/other")
    before = shop(stage)
    refused = run(stage, *words, token=read_only("secret"))
    assert (refused.exit_code, refused.stdout) == (1, ""), refused.output
    assert "error: " in refused.stderr
    assert shop(stage) == before and not Path("all.backup").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("routes",),
        ("history",),
        ("history", "1"),
        ("events",),
        ("logs", "web"),
        ("dump",),
        ("plan", "serve.yaml"),
        ("token", "--read-only"),
    ],
)
def test_who_may_only_look_sees_everything(stage: Stage, words: tuple[str, ...]) -> None:
    revision = str(shop(stage)["revision"])
    words = tuple(revision if word == "1" else word for word in words)
    done = run(stage, *words, token=read_only("secret"))
    assert done.exit_code == 0, done.output
    assert done.stdout and "secret" not in done.stdout


@pytest.mark.parametrize("words", [("promote",), ("abort",), ("promote", "web"), ("promote", "nobody")])
def test_where_there_is_no_canary_there_is_none_to_end(stage: Stage, words: tuple[str, ...]) -> None:
    before = shop(stage)
    refused = run(stage, *words, "-o", "json")
    assert refused.exit_code in (1, 6)
    assert json.loads(refused.stdout)["error"]["message"]
    assert shop(stage) == before


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("status", "-o", "json"),
        ("events",),
        ("history", "--stack", "shop"),
        ("routes",),
        ("dump",),
        ("logs", "web", "-f"),
        ("plan", "serve.yaml"),
    ],
)
def test_a_reader_that_has_gone_ends_a_command_without_a_word(stage: Stage, words: tuple[str, ...]) -> None:
    env = {**os.environ, "SERVECONF_ADDRESS": stage.url, "SERVECONF_TOKEN": "secret"}
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([COMMAND, *words], stdout=write, stderr=subprocess.PIPE, text=True, env=env, timeout=60)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, "")
