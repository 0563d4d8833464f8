"""``watch`` and ``run`` against a whole control API: what they bring about, what they leave, and how they end."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lasting import Meanwhile, lasting
from stage import Stage
from typer.testing import CliRunner, Result

from serveconf import launch
from serveconf.cli import applying, watch
from serveconf.cli.parser import app
from serveconf.client import Client

SPEC = (
    "name: {name}\ndeployments:\n  - {{name: web, import_path: 'web:app', route_prefix: /{name}, num_replicas: {n}}}\n"
)


@pytest.fixture
def stage(shared_stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A control API without a stack, and a folder with an app."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    Path("web.py").write_text("app = 1\n")
    yield shared_stage
    shared_stage.empty()


class All(set[str]):
    """Every version is broken."""

    def __contains__(self, version: object) -> bool:
        return True


def spec(name: str = "shop", n: int = 1, file: str = "shop.yaml") -> str:
    Path(file).write_text(SPEC.format(name=name, n=n))
    return file


def stacks(stage: Stage) -> dict[str, Any]:
    return {one["name"]: one for one in Client(stage.url, "secret").status()["stacks"]}


def replicas(stage: Stage, name: str = "shop") -> int:
    """How many of the stack's are ready, once nothing is being applied."""
    found = stacks(stage).get(name, {"state": "Pending", "deployments": []})
    settled = found["state"] not in ("Pending", "Progressing", "Deleting")
    return settled * sum(one["state"] == "Ready" for d in found["deployments"] for one in d["replicas"])


def run(stage: Stage, *words: str) -> Result:
    return CliRunner().invoke(app, ["--address", stage.url, "--token", "secret", *words])


@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_watcher_applies_and_applies_again_and_what_it_brought_stays(stage: Stage, ends: signal.Signals) -> None:
    def during(there: Meanwhile) -> None:
        there.until(lambda: replicas(stage) == 1, "the first apply")
        spec(n=3)
        there.until(lambda: replicas(stage) == 3, "the edit")

    done = lasting(stage, "watch", spec(), during=during, ends=ends)
    assert done.exit_code == 0
    assert replicas(stage) == 3


def test_the_readiness_file_is_there_while_it_serves_and_never_after(stage: Stage) -> None:
    Path("ready").write_text("left by one that was killed")

    def during(there: Meanwhile) -> None:
        there.until(lambda: Path("ready").exists() and not Path("ready").read_text(), "a readiness file of its own")
        assert replicas(stage) == 1

    assert lasting(stage, "watch", spec(), "--ready-file", "ready", during=during).exit_code == 0
    assert not Path("ready").exists()


def test_a_readiness_file_that_can_never_be_is_said_before_anything_is_applied(stage: Stage) -> None:
    done = run(stage, "watch", spec(), "--ready-file", "nowhere/ready")
    assert done.exit_code == 1
    assert "error: --ready-file nowhere/ready: no such folder" in done.stderr
    assert stacks(stage) == {}


def test_of_a_folder_the_broken_file_holds_up_no_other_and_pruning_takes_only_its_own(stage: Stage) -> None:
    stage.apply({"name": "web", "import_path": "web:app", "route_prefix": "/kept"}, stack="kept")
    Path("specs").mkdir()
    for name in ("blog", "shop"):
        spec(name, file=f"specs/{name}.yaml")
        Path("specs/web.py").write_text("app = 1\n")
    Path("specs/broken.yaml").write_text("name: [\n")

    def during(there: Meanwhile) -> None:
        there.until(lambda: replicas(stage) == replicas(stage, "blog") == 1, "both that are whole")
        Path("specs/broken.yaml").unlink()
        Path("specs/blog.yaml").unlink()
        there.until(lambda: "blog" not in stacks(stage), "the stack whose file is gone, pruned")

    done = lasting(stage, "watch", "specs", "--prune", "--log-format", "json", during=during)
    assert done.exit_code == 0
    lines = [json.loads(line) for line in done.stderr.splitlines()]  # nothing else is on stderr
    assert done.stdout == "" and any("broken.yaml" in str(line) for line in lines)
    assert sorted(stacks(stage)) == ["kept", "shop"]


def test_a_single_file_that_is_wrong_at_first_ends_it_as_apply(stage: Stage) -> None:
    Path("shop.yaml").write_text("name: shop\ndeployment: []\n")
    done = run(stage, "watch", "shop.yaml")
    assert (done.exit_code, stacks(stage)) == (1, {})
    assert "shop.yaml:2:1: error: deployment: " in done.stderr


def test_what_does_not_start_at_first_is_waited_for_by_watch_and_ends_run(stage: Stage) -> None:
    stage.cluster.broken = All()
    ended = run(stage, "run", spec())
    assert ended.exit_code == 3
    assert stacks(stage) == {}

    def during(there: Meanwhile) -> None:
        stage.cluster.broken = set()
        Path("web.py").write_text("app = 2\n")
        there.until(lambda: replicas(stage) == 1, "the version that starts")

    assert lasting(stage, "watch", spec(), during=during).exit_code == 0


def test_a_run_takes_away_what_it_has_brought_and_nothing_else(stage: Stage) -> None:
    stage.apply({"name": "web", "import_path": "web:app", "route_prefix": "/kept"}, stack="kept")
    before = replicas(stage, "kept")

    def during(there: Meanwhile) -> None:
        there.until(lambda: replicas(stage) == replicas(stage, "kept") == 1, "both stacks")

    spec("kept", file="kept.yaml")
    done = lasting(stage, "run", "shop.yaml", "kept.yaml", during=during, ends=signal.SIGINT) if spec() else None
    assert done is not None and done.exit_code == 0
    assert "removing stack shop" in done.stderr and "removing stack kept" not in done.stderr
    Meanwhile().until(lambda: sorted(stacks(stage)) == ["kept"], "what was taken away has drained")
    assert before == 1


def test_a_run_without_watching_serves_what_it_has_applied(stage: Stage) -> None:
    done = lasting(
        stage,
        "run",
        spec(n=2),
        "--no-watch",
        "--no-logs",
        during=lambda there: there.until(lambda: replicas(stage) == 2, "it"),
    )
    assert done.exit_code == 0
    Meanwhile().until(lambda: stacks(stage) == {}, "what it has brought is taken away")


def test_what_a_run_has_started_it_stops_whatever_it_has_applied(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str | None] = []

    def start(loaded: object, say: object = None) -> launch.Found:
        return launch.Found(client=Client(stage.url, "secret"), started=True)

    monkeypatch.setattr("serveconf.cli.run.reach", start)
    monkeypatch.setattr(launch, "shut_down", lambda address, token, tell: stopped.append(address))
    done = lasting(stage, "run", spec(), during=lambda there: there.until(lambda: replicas(stage) == 1, "it"))
    assert (done.exit_code, stopped) == (0, [stage.url])


def test_an_apply_that_had_to_start_everything_and_fails_leaves_nothing_running(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[str | None] = []
    stage.cluster.broken = All()
    found = launch.Found(client=Client(stage.url, "secret"), started=True)
    monkeypatch.setattr(applying, "_loaded_and_reached", lambda file, *_, **__: (applying.load(file, None), found))
    monkeypatch.setattr(launch, "shut_down", lambda address, token, tell: stopped.append(address))
    assert run(stage, "apply", spec()).exit_code == 3
    assert len(stopped) == 1


def test_of_several_files_the_first_that_is_valid_says_what_has_to_be_free_and_all_that_are_not_are_told(
    stage: Stage,
) -> None:
    Path("a.yaml").write_text("name: [\n")
    Path("b.yaml").write_text("nmae: b\n")
    done = run(stage, "run", "a.yaml", "b.yaml")
    assert done.exit_code == 1
    assert "a.yaml:" in done.stderr and "b.yaml:1:1" in done.stderr


def test_a_pin_is_left_alone_by_a_watcher_and_ended_by_a_run(stage: Stage) -> None:
    for n in (1, 2):
        assert run(stage, "apply", spec(n=n)).exit_code == 0
    assert run(stage, "rollback", "--stack", "shop").exit_code == 0
    pinned = "is pinned to revision"
    heard: list[str] = []

    def hold(there: Meanwhile) -> None:
        there.until(lambda: heard, "the pin is told")

    shown = watch.make_view

    def view(form: Any) -> Any:
        made = shown(form)
        told = made.tell
        made.tell = lambda said: (told(said), heard.append(said.message) if pinned in said.message else None)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch, "make_view", view)
        done = lasting(stage, "watch", "shop.yaml", during=hold)
    assert done.exit_code == 0 and pinned in done.stderr
    assert replicas(stage) == 1 and stacks(stage)["shop"]["state"] == "Pinned"

    by_hand = lasting(stage, "run", "shop.yaml", during=lambda there: there.until(lambda: replicas(stage) == 2, "it"))
    assert by_hand.exit_code == 0
    assert stacks(stage)["shop"]["state"] == "Healthy"  # it was there before: it stays


@pytest.mark.parametrize("heals", [True, False])
def test_what_somebody_else_does_is_undone_unless_it_is_only_to_be_said(stage: Stage, heals: bool) -> None:
    told: list[dict[str, Any]] = []

    def drifted() -> bool:
        told[:] = Client(stage.url, "secret").recent_events(stack="shop")
        return any(one["kind"] == "drift" for one in told)

    def during(there: Meanwhile) -> None:
        there.until(lambda: replicas(stage) == 1, "the first apply")
        web = {"name": "web", "import_path": "web:app", "route_prefix": "/shop", "num_replicas": 4}
        stage.apply(web, code="2")
        there.until(drifted, "the drift")
        there.until(lambda: replicas(stage) == (1 if heals else 4), "what is left of it")

    words = [] if heals else ["--no-self-heal"]
    assert lasting(stage, "watch", spec(), *words, during=during).exit_code == 0
    assert replicas(stage) == (1 if heals else 4)
