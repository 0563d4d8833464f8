"""A branch is followed, each commit as a whole; what stands in the way is told once and changes nothing."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from watching import SPEC, Beside, FakeServing, watching

from serveconf.errors import AuthorError, OperatorError, ServeconfError
from serveconf.watch.following import Following
from serveconf.watch.git import Checkout
from serveconf.watch.look import look_at
from serveconf.watch.ports import Said
from serveconf.watch.repository import Repository, hear_webhook, keep_pulling


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a stack in ``deploy/serve.yaml``."""
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    for key, value in {"AUTHOR": "a", "COMMITTER": "c"}.items():
        monkeypatch.setenv(f"GIT_{key}_NAME", value)
        monkeypatch.setenv(f"GIT_{key}_EMAIL", f"{value}@localhost")
    folder = tmp_path / "origin"
    (folder / "deploy").mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, {"deploy/serve.yaml": SPEC.format(name="shop"), "deploy/web.py": "one"})
    return folder


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path, files: dict[str, str], *options: str) -> str:
    for name, text in files.items():
        (folder / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "a change", *options)
    return git(folder, "rev-parse", "HEAD")


def pulled(repository: Repository) -> Beside:
    async def pull(following: Following, tell: Callable[[Said], None]) -> None:
        await keep_pulling(repository, following, tell, interval_s=0.1)

    return pull


def test_each_commit_is_applied_as_a_whole(origin: Path) -> None:
    repository = Repository(Checkout(str(origin), "main"), "deploy")
    with watching(repository.target, beside=pulled(repository), events=False) as watcher:
        watcher.until(lambda: watcher.serving.applied == [("shop", "one")], "the first commit")
        second = commit(origin, {"deploy/serve.yaml": SPEC.format(name="market"), "deploy/web.py": "two"})
        watcher.until(lambda: ("market", "two") in watcher.serving.applied, "the second")
        assert ("shop", "two") not in watcher.serving.applied
        assert repository.commit == second
        git(origin, "reset", "--quiet", "--hard", "HEAD~1")
        commit(origin, {"deploy/web.py": "rewritten"})
        watcher.until(lambda: ("shop", "rewritten") in watcher.serving.applied, "a branch that was rewritten")


def states(watcher: object) -> list[str]:
    return [said.error.code for said in watcher.said if said.kind == "waiting" and said.error]  # type: ignore[attr-defined]


def test_what_stands_in_the_way_is_told_once_and_passes(origin: Path) -> None:
    git(origin, "branch", "live")
    repository = Repository(Checkout(str(origin), "live"), "deploy/serve.yaml")
    with watching(repository.target, beside=pulled(repository), events=False) as watcher:
        watcher.until(lambda: watcher.serving.applied, "the first commit")

        git(origin, "branch", "-D", "live")
        watcher.until(lambda: states(watcher) == ["git_branch_missing"], "the branch is gone")
        commit(origin, {"deploy/web.py": "two"})
        git(origin, "branch", "live")
        watcher.until(lambda: ("shop", "two") in watcher.serving.applied, "it has come back")

        origin.rename(origin.with_name("away"))
        watcher.until(lambda: states(watcher)[1:2] == ["git_failed"], "the repository is away")
        watcher.rests(0.6)
        away = states(watcher)[1:]  # git has another word for what goes while it is fetched
        assert set(away) == {"git_failed"} and len(away) <= 2
        origin.with_name("away").rename(origin)

        git(origin, "mv", "deploy/serve.yaml", "deploy/other.yaml")
        commit(origin, {})
        git(origin, "branch", "--force", "live")
        watcher.until(lambda: states(watcher)[1 + len(away) :] == ["git_path_missing"], "the file is gone")
        assert not watcher.kinds("gone")
        watcher.rests(0.6)
        assert states(watcher)[1 + len(away) :] == ["git_path_missing"]
        assert watcher.kinds("commit").count(("commit", "the repository and the branch are there again")) == 2
        git(origin, "mv", "deploy/other.yaml", "deploy/serve.yaml")
        commit(origin, {"deploy/web.py": "three"})
        git(origin, "branch", "--force", "live")
        watcher.until(lambda: watcher.serving.applied[-1] == ("shop", "three"), "it has come back")
        assert len(watcher.serving.applied) == 3


def test_a_repository_that_is_away_at_first_is_waited_for(origin: Path) -> None:
    away = origin.rename(origin.with_name("away"))
    repository = Repository(Checkout(f"file://{origin}", "main"), "deploy")
    with watching(repository.target, beside=pulled(repository), events=False) as watcher:
        watcher.until(lambda: states(watcher) == ["git_failed"], "it is away")
        assert not watcher.serving.started
        away.rename(origin)
        watcher.until(lambda: watcher.serving.applied, "it is there")


@pytest.mark.parametrize("path", ["../secret.yaml", "/etc/passwd", "out/serve.yaml", ".git/config"])
def test_a_path_never_leads_out_of_the_repository(origin: Path, path: str) -> None:
    (origin / "out").symlink_to("..")
    (origin.parent / "serve.yaml").write_text("name: outside\n")
    commit(origin, {})
    repository = Repository(Checkout(str(origin), "main"), path)
    with pytest.raises(AuthorError) as refused:
        repository.check_out(repository.fetch())
    assert refused.value.code == "git_path"


def test_code_that_lies_elsewhere_is_named(origin: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    git(library, "init", "--quiet", "--initial-branch", "main")
    commit(library, {"lib.py": "x = 1"})
    git(origin, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "deploy/lib")
    commit(origin, {})
    repository = Repository(Checkout(str(origin), "main"), "deploy/serve.yaml")
    repository.check_out(repository.fetch())
    with pytest.raises(AuthorError, match=r"deploy/lib is a submodule"):
        repository.check_whole(look_at(repository.target))

    commit(origin, {"deploy/.serveconfignore": "lib/\n"})
    repository.check_out(repository.fetch())
    repository.check_whole(look_at(repository.target))

    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5000000\n"
    commit(origin, {"deploy/model.bin": pointer})
    repository.check_out(repository.fetch())
    with pytest.raises(AuthorError, match=r"model\.bin is a Git LFS pointer"):
        repository.check_whole(look_at(repository.target))


def test_an_apply_is_told_where_it_came_from_without_the_password(origin: Path) -> None:
    repository = Repository(Checkout(str(origin), "main"), "deploy")
    repository.check_out(repository.fetch())
    told = repository.source_of(look_at(repository.target / "serve.yaml"))
    assert told == {"commit": repository.commit, "source": f"git+{origin}#main:deploy/serve.yaml"}


def test_only_what_a_trusted_key_has_signed_is_taken(origin: Path, tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(key, check=True, stdin=subprocess.DEVNULL)
    public = " ".join((tmp_path / "ours.pub").read_text().split()[:2])
    (tmp_path / "allowed").write_text(f"c@localhost {public}\n")
    config = Path(os.environ["GIT_CONFIG_GLOBAL"])
    config.write_text(f'[gpg]\nformat = ssh\n[gpg "ssh"]\nallowedSignersFile = {tmp_path / "allowed"}\n')
    repository = Repository(Checkout(str(origin), "main"), "deploy", verify=True)

    with pytest.raises(OperatorError) as refused:
        repository.fetch()
    assert refused.value.code == "git_signature"
    git(origin, "config", "user.signingkey", str(tmp_path / "theirs"))
    commit(origin, {"deploy/web.py": "theirs"}, "-S")
    with pytest.raises(OperatorError):
        repository.fetch()
    git(origin, "config", "user.signingkey", str(tmp_path / "ours"))
    signed = commit(origin, {"deploy/web.py": "ours"}, "-S")
    assert repository.fetch() == signed


def test_an_app_of_a_repository_is_ours_to_prune_and_no_other(origin: Path) -> None:
    from serveconf.watch.repository import FromGit

    api = FromGit(Repository(Checkout(str(origin), "main"), "deploy/"), lambda: None, lambda said: None)
    assert api.is_own_source(f"git+{origin}#main:deploy/a.yaml")
    assert not api.is_own_source(f"git+{origin}#other:deploy/a.yaml")
    assert not api.is_own_source(f"git+{origin}#main:elsewhere/a.yaml")
    assert not api.is_own_source(str(origin / "deploy" / "a.yaml"))


def test_nothing_is_left_running_when_it_ends(origin: Path) -> None:
    repository = Repository(Checkout(str(origin), "main"), "deploy")
    serving = FakeServing()
    with watching(repository.target, serving=serving, beside=pulled(repository), events=False) as watcher:
        watcher.until(lambda: serving.applied, "the first commit")
    with pytest.raises(OperatorError):
        repository.fetch()


def test_two_that_follow_one_branch_share_its_files_and_neither_reads_half_of_a_commit(origin: Path) -> None:
    first, other = (Repository(Checkout(str(origin), "main"), "deploy") for _ in range(2))
    options = {"events": False, "lock": first.checkout.lock}
    with (
        watching(first.target, beside=pulled(first), **options) as one,
        watching(other.target, beside=pulled(other), **options) as two,
    ):
        for number in range(6):
            commit(origin, {"deploy/serve.yaml": SPEC.format(name=f"n{number}"), "deploy/web.py": f"n{number}"})
            for watcher in (one, two):
                watcher.until(
                    lambda watcher=watcher, number=number: (
                        watcher.serving.applied[-1:] == [(f"n{number}", f"n{number}")]
                    ),
                    f"commit {number}",
                )
        for watcher in (one, two):
            assert all(name == said for name, said in watcher.serving.applied if name != "shop")
            assert not states(watcher)


def test_signed_commits_alone_come_into_a_checkout_that_is_verified(origin: Path) -> None:
    plain, verified = Checkout(str(origin), "main"), Checkout(str(origin), "main", verified=True)
    assert plain.folder != verified.folder


def test_a_revision_names_the_commit_that_its_files_are_at_whoever_has_brought_them_there(origin: Path) -> None:
    mine, other = (Repository(Checkout(str(origin), "main"), "deploy/serve.yaml") for _ in range(2))
    mine.check_out(mine.fetch())
    second = commit(origin, {"deploy/web.py": "two"})
    other.check_out(other.fetch())
    assert mine.source_of(look_at(mine.target))["commit"] == second


def test_code_outside_of_the_repository_is_refused(origin: Path) -> None:
    (origin.parent / "elsewhere").mkdir()
    commit(origin, {"deploy/serve.yaml": f"app_dir: {origin.parent / 'elsewhere'}\n{SPEC.format(name='shop')}"})
    repository = Repository(Checkout(str(origin), "main"), "deploy/serve.yaml")
    repository.check_out(repository.fetch())
    with pytest.raises(AuthorError) as refused:
        repository.check_whole(look_at(repository.target))
    assert refused.value.code == "git_app_dir"


def test_a_branch_fills_in_only_the_variables_that_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEY", "allowed-value")
    monkeypatch.setenv("CLOUD_KEY", "other-value")
    file = tmp_path / "serve.yaml"
    file.write_text(
        "deployments:\n  - name: web\n    import_path: web:app\n    init_args: ['${SHOP_KEY}', '${CLOUD_KEY:-none}']\n"
    )
    look = look_at(file, variables=("SHOP_*",))
    assert look.loaded is not None
    assert look.loaded.spec.deployments[0].init_args == ["allowed-value", "none"]
    refused = look_at(file, variables=()).error
    assert refused is not None
    assert "SHOP_KEY" in refused.message and "--env NAME" in refused.message


def test_a_branch_is_looked_at_at_once_when_its_webhook_is_called(
    origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serveconf.watch.repository.WEBHOOK_S", 0.05)
    repository = Repository(Checkout(str(origin), "main"), "deploy")
    calls: list[int | ServeconfError] = [OperatorError("nobody answers yet")]

    def count() -> int:
        found = calls[-1]
        if isinstance(found, ServeconfError):
            raise found
        return found

    async def pull(following: Following, tell: Callable[[Said], None]) -> None:
        called = asyncio.Event()
        hearing = asyncio.ensure_future(hear_webhook(count, called))
        try:
            await keep_pulling(repository, following, tell, interval_s=3_600, called=called)
        finally:
            hearing.cancel()

    with watching(repository.target, beside=pull, events=False) as watcher:
        watcher.until(lambda: watcher.serving.applied == [("shop", "one")], "the first commit")
        commit(origin, {"deploy/web.py": "early"})
        calls.append(1)  # before it was asked for the first time
        watcher.until(lambda: ("shop", "early") in watcher.serving.applied, "it is looked at")
        commit(origin, {"deploy/web.py": "two"})
        calls.append(OperatorError("nobody answers"))
        assert watcher.rests() == [("shop", "one"), ("shop", "early")]
        calls.append(2)
        watcher.until(lambda: ("shop", "two") in watcher.serving.applied, "it is looked at once more")
        commit(origin, {"deploy/web.py": "three"})
        calls.append(0)  # another controller, which counts anew
        watcher.until(lambda: ("shop", "three") in watcher.serving.applied, "it is looked at again")
