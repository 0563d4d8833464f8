"""A checkout follows its branch."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from serveconf.errors import AuthorError, OperatorError
from serveconf.watch import git as watch_git
from serveconf.watch.git import Checkout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    for key, value in {"AUTHOR": "a", "COMMITTER": "c"}.items():
        monkeypatch.setenv(f"GIT_{key}_NAME", value)
        monkeypatch.setenv(f"GIT_{key}_EMAIL", f"{value}@localhost")
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, "serve.yaml", "one")
    return folder


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    git(folder, "add", name)
    git(folder, "commit", "--quiet", "-m", text)
    return git(folder, "rev-parse", "HEAD")


def test_a_pull_brings_what_the_branch_says_and_its_commit(repository: Path) -> None:
    checkout = Checkout(str(repository), "main")
    checkout.pull()
    (checkout.folder / "serve.yaml").write_text("edited by hand")
    second = commit(repository, "serve.yaml", "two")
    assert checkout.pull() == second
    assert (checkout.folder / "serve.yaml").read_text() == "two"


def test_of_former_commits_a_checkout_keeps_no_more_than_its_budget(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_git, "GARBAGE_BYTES", 400_000)
    checkout = Checkout(str(repository), "main")
    for number in range(12):
        text = f"{number} {random.Random(number).randbytes(60_000).hex()}"
        last = commit(repository, "data.csv", text)
        assert checkout.pull() == last
        assert (checkout.folder / "data.csv").read_text() == text
        objects = [file for file in (checkout.folder / ".git" / "objects").rglob("*") if file.is_file()]
        assert sum(file.stat().st_size for file in objects) < 600_000  # the budget, and what a commit has of its own


def test_without_a_branch_it_is_the_repositorys_own(repository: Path) -> None:
    assert Checkout(str(repository), None).pull() == git(repository, "rev-parse", "HEAD")


def test_a_branch_that_is_not_there_is_said_in_gits_words(repository: Path) -> None:
    with pytest.raises(OperatorError, match="none"):
        Checkout(str(repository), "none").pull()


def test_a_branch_that_is_a_refspec_or_an_option_is_refused(repository: Path) -> None:
    for name in ("main:refs/heads/other", "+main", "--upload-pack=touch never"):
        with pytest.raises(AuthorError):
            Checkout(str(repository), name)


def test_a_tag_is_followed_and_a_branch_of_the_same_name_goes_first(repository: Path) -> None:
    first = git(repository, "rev-parse", "HEAD")
    git(repository, "tag", "v1", first)
    git(repository, "-c", "tag.gpgSign=false", "tag", "-a", "v2", "-m", "two", first)
    assert Checkout(str(repository), "v1").pull() == first
    assert Checkout(str(repository), "v2").pull() == first
    second = commit(repository, "serve.yaml", "two")
    git(repository, "branch", "v1")
    assert Checkout(str(repository), "v1").pull() == second


def test_a_branch_that_was_rewritten_is_followed(repository: Path) -> None:
    checkout = Checkout(str(repository), "main")
    commit(repository, "serve.yaml", "two")
    checkout.pull()
    git(repository, "reset", "--quiet", "--hard", "HEAD~1")
    other = commit(repository, "serve.yaml", "other")
    assert checkout.pull() == other
    assert (checkout.folder / "serve.yaml").read_text() == "other"


def test_a_branch_may_be_deleted_and_come_back(repository: Path) -> None:
    git(repository, "branch", "live")
    checkout = Checkout(str(repository), "live")
    checkout.pull()
    git(repository, "branch", "-D", "live")
    with pytest.raises(OperatorError) as gone:
        checkout.pull()
    assert gone.value.code == "git_branch_missing"
    assert (checkout.folder / "serve.yaml").read_text() == "one"
    second = commit(repository, "serve.yaml", "two")
    git(repository, "branch", "live")
    assert checkout.pull() == second


def test_a_branch_that_goes_between_two_questions_is_no_fault_of_git(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = Checkout(str(repository), "live")
    monkeypatch.setattr(checkout, "_ref", lambda: "refs/heads/live")  # as it was a moment ago
    with pytest.raises(OperatorError) as raised:
        checkout.pull()
    assert raised.value.code == "git_branch_missing"


def test_shallow_and_partial_clones_are_sources_too(repository: Path, tmp_path: Path) -> None:
    commit(repository, "serve.yaml", "two")
    for name, option in (("shallow", "--depth=1"), ("partial", "--filter=blob:none")):
        git(tmp_path, "clone", "--quiet", option, f"file://{repository}", name)
        checkout = Checkout(str(tmp_path / name), "main")
        checkout.pull()
        assert (checkout.folder / "serve.yaml").read_text() == "two"


def test_nothing_of_the_source_is_run(repository: Path, tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    for hook in ("post-checkout", "pre-receive", "post-update", "reference-transaction", "post-upload-pack"):
        (repository / ".git" / "hooks").mkdir(exist_ok=True)
        file = repository / ".git" / "hooks" / hook
        file.write_text(f"#!/bin/sh\ntouch {trap}\n")
        file.chmod(0o755)
    git(repository, "config", "uploadpack.packObjectsHook", f"touch {trap}; exec")
    git(repository, "config", "core.fsmonitor", f"touch {trap}")
    git(repository, "config", "filter.trap.smudge", f"touch {trap}; cat")
    (repository / ".gitattributes").write_text("* filter=trap\n")
    commit(repository, ".gitattributes", "* filter=trap\n")
    trap.unlink(missing_ok=True)  # what git did for the commit itself
    checkout = Checkout(str(repository), "main")
    checkout.pull()
    commit(repository, "serve.yaml", "two")
    trap.unlink(missing_ok=True)
    checkout.pull()
    assert (checkout.folder / "serve.yaml").read_text() == "two"
    assert not trap.exists()


def test_a_checkout_that_was_killed_half_way_is_taken_up_again(repository: Path) -> None:
    checkout = Checkout(str(repository), "main")
    checkout.pull()
    (checkout.folder / ".git" / "index.lock").write_text("")
    (checkout.folder / ".git" / "index").write_bytes(b"DIRC half")
    second = commit(repository, "serve.yaml", "two")
    assert checkout.pull() == second
    assert (checkout.folder / "serve.yaml").read_text() == "two"


def test_what_the_app_has_written_into_the_checkout_stays(repository: Path) -> None:
    checkout = Checkout(str(repository), "main")
    checkout.pull()
    (checkout.folder / "results.csv").write_text("the app's")
    commit(repository, "serve.yaml", "two")
    checkout.pull()
    assert (checkout.folder / "results.csv").read_text() == "the app's"


def test_what_is_fetched_can_be_stopped(repository: Path) -> None:
    checkout = Checkout(str(repository), "main")
    checkout.stop()
    with pytest.raises(OperatorError) as stopped:
        checkout.pull()
    assert stopped.value.code == "cancelled"
