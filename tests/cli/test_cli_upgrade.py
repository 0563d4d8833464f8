"""``upgrade``: what it finds to replace, in which order it does so, and what it says of what could not be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from odd import Odd, lines
from stage import Stage
from typer.testing import CliRunner, Result

from serveconf import __version__
from serveconf.cli import upgrade
from serveconf.cli.parser import app
from serveconf.client import Client
from serveconf.credentials import read_only

WEB = {"name": "web", "import_path": "web:app", "route_prefix": "/", "num_replicas": 2}
RECEIPT = {"requests": 3, "failed": 1, "retried": 0, "max_gap_ms": 1.5, "duration_s": 2.0}
NOTHING = {"event": "result", "stack": "", "revision": 0, "changed": False, "outcome": "unchanged"} | {
    "actions": [],
    "problems": [],
    "receipt": RECEIPT,
}


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A controller of this version, with a proxy and two replicas of an older one."""
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    stage = Stage(tmp_path / "packages")
    stage.cluster.serveconf = "0.0.1"
    stage.apply(WEB)
    stage.cluster.serveconf = __version__
    yield stage
    stage.close()


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Odd]:
    """A controller of an older version, which ends when it is told to make way."""
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    odd = Odd()
    odd.version = "0.0.1"

    def makes_way(handler: Any) -> None:
        odd.version = __version__
        odd.answer(handler, 204, b"")

    status = {"controller": {"serveconf": "0.0.1"}, "proxies": [], "stacks": []}
    odd.said["GET /status"] = [(200, json.dumps(status).encode())]
    odd.said["POST /upgrade/controller"] = [makes_way]
    odd.said["POST /upgrade"] = [(202, b'{"operation": "7"}')]
    odd.said["GET /operations/7/events"] = [lines(NOTHING)]
    yield odd
    odd.close()


def run(there: Stage | Odd, *words: str, token: str = "secret") -> Result:
    done = CliRunner().invoke(app, ["--address", there.url, "--token", token, "upgrade", *words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def versions(stage: Stage) -> set[str]:
    """Of all proxies and replicas that serve."""
    status = Client(stage.url, "secret").status()
    replicas = [one for stack in status["stacks"] for d in stack["deployments"] for one in d["replicas"]]
    return {one["serveconf"] for one in (*status["proxies"], *replicas) if one["state"] == "Ready"}


def test_a_dry_run_says_what_is_old_and_changes_nothing(old: Stage) -> None:
    told = run(old, "--dry-run")
    assert (told.exit_code, told.stdout) == (0, "Nothing was changed.\n")
    assert told.stderr.splitlines() == [
        f"  ~ proxy: 1 process, serveconf 0.0.1 -> {__version__}",
        f"  ~ roll shop/web: 2 processes, serveconf 0.0.1 -> {__version__}",
    ]
    found = json.loads(run(old, "--dry-run", "-o", "json").stdout)
    assert found["changed"] and [one["cost"] for one in found["actions"]] == ["proxy", "roll"]
    assert versions(old) == {"0.0.1"}


def test_it_replaces_what_is_old_and_once_more_changes_nothing(old: Stage) -> None:
    first = run(old, "-o", "json")
    assert first.exit_code == 0, first.output
    result = json.loads(first.stdout)
    assert (result["outcome"], result["changed"]) == ("applied", True)
    assert [one["action"] for one in result["actions"]] == ["proxy", "roll"]
    assert versions(old) == {__version__}
    again = run(old)
    assert (again.exit_code, again.stdout) == (0, f"Unchanged: everything runs serveconf {__version__}.\n")
    assert json.loads(run(old, "--dry-run", "-o", "json").stdout) == {"changed": False, "actions": []}
    assert run(old, "--dry-run").stdout == f"Everything runs serveconf {__version__}.\n"


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_does_not_start_as_the_new_version_goes_on_as_the_old_one(old: Stage, form: str) -> None:
    old.cluster.broken_proxies = True
    done = run(old, "-o", form)
    assert done.exit_code == 3
    assert versions(old) == {"0.0.1"}
    if form == "json":
        result = json.loads(done.stdout)
        assert result["outcome"] == "rolled_back" and "ImportError" in result["problems"][0]["message"]
    else:
        assert "ImportError" in done.stdout and "'serveconf upgrade' goes on from there" in done.stdout


def test_whoever_may_only_look_upgrades_nothing(old: Stage) -> None:
    done = run(old, token=read_only("secret"))
    assert done.exit_code == 1 and done.stdout == ""
    assert "error: " in done.stderr and versions(old) == {"0.0.1"}


def test_an_older_controller_makes_way_first_and_is_waited_for(odd: Odd) -> None:
    done = run(odd, "-o", "json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["outcome"], result["changed"]) == ("applied", True)
    (action,) = result["actions"]
    assert (action["action"], action["before"]["serveconf"]) == ("controller", "0.0.1")
    assert odd.asked == [
        *("GET /status", "POST /upgrade/controller"),
        *("POST /upgrade", "GET /operations/7/events"),
    ]


def test_a_controller_that_comes_back_as_the_old_one_is_given_up(odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "BACK_S", 0.0)
    odd.said["POST /upgrade/controller"] = [(204, b"")]
    done = run(odd, "-o", "json")
    assert done.exit_code == 1
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "upgrade_failed" and "has not come back as serveconf" in error["message"]
    assert "POST /upgrade" not in odd.asked


def test_a_controller_that_would_not_come_up_again_says_why_and_stays(odd: Odd) -> None:
    why = {"error": {"code": "upgrade_failed", "message": "ImportError: no module named new", "hint": None}}
    odd.said["POST /upgrade/controller"] = [(409, json.dumps(why).encode())]
    done = run(odd)
    assert (done.exit_code, done.stdout) == (6, "")
    assert done.stderr.endswith("replacing the controller\nerror: ImportError: no module named new\n")
    assert odd.asked[-1] == "POST /upgrade/controller"


def test_a_controller_too_old_to_understand_anything_else_can_still_be_upgraded(odd: Odd) -> None:
    odd.version = ""
    status = {"controller": {}, "proxies": [{"state": "Ready"}], "stacks": []}
    odd.said["GET /status"] = [(200, json.dumps(status).encode())]
    done = run(odd)
    assert done.exit_code == 0, done.output
    assert f"  ~ controller: 1 process, serveconf another version -> {__version__}" in done.stderr
    assert (
        f"Upgraded to serveconf {__version__} in 2.0 s; 3 requests meanwhile, 1 failed, longest gap 1.5 ms."
        in done.stdout
    )
