"""``sync`` from a real repository to a whole control API: each commit as a whole, once or for as long as it runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from lasting import Meanwhile, lasting
from stage import Stage
from typer.testing import CliRunner, Result

from serveconf.cli.parser import app
from serveconf.client import Client
from serveconf.credentials import webhook_secret

SPEC = "name: {name}\ndeployments:\n  - {{name: web, import_path: 'web:app', route_prefix: /{name}}}\n"


@pytest.fixture
def stage(shared_stage: Stage) -> Iterator[Stage]:
    """A control API without a stack."""
    yield shared_stage
    shared_stage.empty()


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two stacks in ``deploy``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    for key in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{key}_NAME", "ada")
        monkeypatch.setenv(f"GIT_{key}_EMAIL", "ada@localhost")
    folder = tmp_path / "origin"
    (folder / "deploy").mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, {"shop.yaml": SPEC.format(name="shop"), "blog.yaml": SPEC.format(name="blog"), "web.py": "1"})
    return folder


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path, files: dict[str, str | None]) -> str:
    for name, text in files.items():
        (folder / "deploy" / name).unlink() if text is None else (folder / "deploy" / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "a change")
    return git(folder, "rev-parse", "HEAD")


def once(stage: Stage, origin: Path, *words: str, path: str = "deploy/shop.yaml") -> Result:
    command = ["--address", stage.url, "--token", "secret", "sync", str(origin), "--once", "--path", path, *words]
    done = CliRunner().invoke(app, command)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def stacks(stage: Stage) -> dict[str, Any]:
    return {one["name"]: one for one in Client(stage.url, "secret").status()["stacks"]}


def served(stage: Stage, name: str = "shop") -> str:
    """The commit that serves; nothing while something is being applied."""
    found = stacks(stage).get(name, {"state": "Pending"})
    return found["source"]["commit"] if found["state"] == "Healthy" else ""


class All(set[str]):
    """Every version is broken."""

    def __contains__(self, version: object) -> bool:
        return True


def test_once_applies_the_commit_and_once_more_changes_nothing(stage: Stage, origin: Path) -> None:
    first = once(stage, origin, "-o", "json")
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout)["outcome"] == "applied"
    assert json.loads(once(stage, origin, "-o", "json").stdout)["outcome"] == "unchanged"
    source = stacks(stage)["shop"]["source"]
    assert (source["kind"], source["commit"], source["path"]) == (
        "git",
        git(origin, "rev-parse", "HEAD"),
        "deploy/shop.yaml",
    )
    assert sorted(stacks(stage)) == ["shop"]


def test_of_a_folder_each_file_has_its_result_and_the_worst_is_the_exit_code(stage: Stage, origin: Path) -> None:
    commit(origin, {"broken.yaml": "name: broken\ndeployment: []\n"})
    done = once(stage, origin, "-o", "json", path="deploy")
    assert done.exit_code == 1
    blog, broken, shop = json.loads(done.stdout)  # one document, in the order of their names
    assert (blog["stack"], shop["stack"]) == ("blog", "shop")
    assert broken["file"].endswith("broken.yaml")
    assert broken["error"]["problems"][0]["line"] == 2
    assert sorted(stacks(stage)) == ["blog", "shop"]


def test_what_does_not_start_ends_it_with_3_and_serves_on_as_before(stage: Stage, origin: Path) -> None:
    assert once(stage, origin).exit_code == 0
    before = stacks(stage)["shop"]["deployments"][0]["replicas"]
    stage.cluster.broken = All()
    tried = commit(origin, {"web.py": "2"})
    assert once(stage, origin).exit_code == 3
    shop = stacks(stage)["shop"]
    assert (shop["source"]["commit"], shop["source"]["in_sync"]) == (tried, False)
    assert [one["id"] for one in shop["deployments"][0]["replicas"]] == [one["id"] for one in before]
    stage.cluster.broken = set()
    assert once(stage, origin).exit_code == 3  # in quarantine: the same commit is not tried again
    assert once(stage, origin, "--retry").exit_code == 0


def test_a_pinned_stack_is_left_alone_and_that_is_a_6(stage: Stage, origin: Path) -> None:
    once(stage, origin)
    commit(origin, {"web.py": "2"})
    once(stage, origin)
    client = Client(stage.url, "secret")
    list(client.events(client.begin("shop", "rollback", {"author": "ada@host"})))
    third = commit(origin, {"web.py": "3"})
    held = once(stage, origin, "-o", "json")
    assert held.exit_code == 6
    assert json.loads(held.stdout)["outcome"] == "conflict"
    assert stacks(stage)["shop"]["source"]["commit"] != third
    client.resume("shop")
    assert once(stage, origin).exit_code == 0
    assert stacks(stage)["shop"]["source"]["commit"] == third


@pytest.mark.parametrize(
    ("words", "path", "code", "said"),
    [
        (["--branch", "nope"], "deploy", "git_branch_missing", "there is no branch or tag 'nope'"),
        ([], "nowhere", "git_path_missing", "there is no nowhere in commit "),
        ([], "../outside", "git_path", "--path ../outside leads out of the repository"),
        ([], "deploy/web.py", None, "web.py"),
        (["--verify-signatures"], "deploy", "git_signature", "is not signed by a key that is trusted here"),
    ],
)
def test_what_stands_in_the_way_ends_it_with_1_and_touches_nothing(
    stage: Stage, origin: Path, words: list[str], path: str, code: str | None, said: str
) -> None:
    done = once(stage, origin, *words, "-o", "json", path=path)
    assert (done.exit_code, stacks(stage)) == (1, {}), done.output
    told = json.loads(done.stdout)
    assert said in json.dumps(told)
    assert code is None or told["error"]["code"] == code


def test_a_repository_that_is_none_says_what_git_said(stage: Stage, origin: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = once(stage, tmp_path / "empty")
    assert done.exit_code == 1 and done.stdout == ""
    assert done.stderr.startswith("error: git ")


def test_a_spec_gets_the_variables_that_are_named_and_no_others(
    stage: Stage, origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SPEC.format(name="shop").replace("/shop", "/shop, num_replicas: '${SHOP_N:?say how many}'")
    commit(origin, {"shop.yaml": text})
    monkeypatch.setenv("SHOP_N", "2")
    refused = once(stage, origin)
    assert refused.exit_code == 1 and "say how many" in refused.stderr
    assert once(stage, origin, "--env", "SHOP_*").exit_code == 0
    (web,) = stacks(stage)["shop"]["deployments"]
    assert len(web["replicas"]) == 2


def test_it_follows_the_branch_prunes_what_a_commit_has_taken_away_and_leaves_the_rest(
    stage: Stage, origin: Path
) -> None:
    stage.apply({"name": "web", "import_path": "web:app", "route_prefix": "/kept"}, stack="kept")
    last = ""

    def during(there: Meanwhile) -> None:
        nonlocal last
        there.until(lambda: served(stage) and served(stage, "blog"), "the first commit")
        last = commit(origin, {"blog.yaml": None, "web.py": "2"})
        there.until(lambda: served(stage) == last, "the second commit")
        there.until(lambda: "blog" not in stacks(stage), "the stack that it has taken away, pruned")

    words = ("sync", str(origin), "--path", "deploy", "--prune", "--interval", "1", "--ready-file", "ready")
    done = lasting(stage, *words, during=during)
    assert done.exit_code == 0, done.output
    assert f"commit {last[:12]}" in done.stderr and not Path("ready").exists()
    assert sorted(stacks(stage)) == ["kept", "shop"]


def test_a_webhook_has_it_look_at_once(stage: Stage, origin: Path) -> None:
    """The interval is an hour: only the call can have brought the second commit."""

    def during(there: Meanwhile) -> None:
        there.until(lambda: served(stage), "the first commit")
        second = commit(origin, {"web.py": "2"})
        headers = {"x-gitlab-token": webhook_secret("secret", "shop")}
        assert httpx.post(f"{stage.url}/api/v1/sync/shop", headers=headers).status_code == 202
        there.until(lambda: served(stage) == second, "the second commit")

    words = ("sync", str(origin), "--path", "deploy/shop.yaml", "--interval", "3600", "--webhook", "shop")
    done = lasting(stage, *words, "--log-format", "json", during=during)
    assert done.exit_code == 0
    assert [json.loads(line) for line in done.stderr.splitlines()]  # JSON alone
