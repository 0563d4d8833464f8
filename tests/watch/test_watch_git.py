"""A checkout follows its branch."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from serveconf.errors import OperatorError
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


def test_without_a_branch_it_is_the_repositorys_own(repository: Path) -> None:
    assert Checkout(str(repository), None).pull() == git(repository, "rev-parse", "HEAD")


def test_a_branch_that_is_not_there_is_said_in_gits_words(repository: Path) -> None:
    with pytest.raises(OperatorError, match="none"):
        Checkout(str(repository), "none").pull()


def test_an_address_is_never_an_option(repository: Path) -> None:
    with pytest.raises(OperatorError):
        Checkout("--upload-pack=touch /tmp/never", "main").pull()
