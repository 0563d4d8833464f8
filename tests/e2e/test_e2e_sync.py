"""``sync``: what a branch says is what runs, and status says from where."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from conftest import Stack
from place import COMMAND, COMMAND_S, Place, ask, end, until

WEB = "name: web, import_path: 'web:app', route_prefix: /$"


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    done = subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "a change")
    return git(folder, "rev-parse", "HEAD")


def test_what_the_branch_says_is_what_runs(place: Place, stack: Stack, tmp_path: Path) -> None:
    stack.says("web", "one")
    stack.spec(WEB)
    git(stack.folder, "init", "--quiet", "--initial-branch", "main")
    first = commit(stack.folder)
    log = tmp_path.with_name(f"{tmp_path.name}.log")
    with log.open("w") as output:
        sync = subprocess.Popen(
            [str(COMMAND), "sync", str(stack.folder), "--branch", "main", "--interval", "1"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=place.env,
        )
    try:
        until(lambda: '"said":"one"' in ask(stack.url)[1], "the first commit is served")
        until(lambda: place.stack(stack.name)["state"] == "Healthy", "it is healthy")
        source = {
            "kind": "git",
            "location": str(stack.folder.resolve()),
            "branch": "main",
            "path": "serve.yaml",
            "commit": first,
            "in_sync": True,
        }
        until(lambda: place.stack(stack.name)["source"] == source, "status says from where")
        assert f"branch main, commit {first[:12]}, serve.yaml: in sync" in place.ok("status").out

        stack.says("web", "two")
        assert '"said":"one"' in ask(stack.url)[1]  # what is not committed does not count
        second = commit(stack.folder)
        until(lambda: '"said":"two"' in ask(stack.url)[1], "the second commit is served")
        until(lambda: place.stack(stack.name)["source"]["commit"] == second, "status says so")

        place.ok("rollback", "--stack", stack.name)
        until(lambda: "resume" in log.read_text(), "the pin is said")
        until(lambda: place.stack(stack.name)["source"]["in_sync"] is False, "status says so")
        once = place.run("sync", stack.folder, "--branch", "main", "--once")
        assert once.code == 6, once.err
        place.ok("resume", "--stack", stack.name)
        until(lambda: '"said":"two"' in ask(stack.url)[1], "the branch holds again")

        sync.send_signal(signal.SIGTERM)
        assert sync.wait(timeout=COMMAND_S) == 0, log.read_text()
    finally:
        sync.kill()
        sync.wait()
    assert '"said":"two"' in ask(stack.url)[1]


def test_once_ends_as_apply_would(place: Place, stack: Stack) -> None:
    stack.says("web", "one")
    stack.spec(WEB)
    git(stack.folder, "init", "--quiet", "--initial-branch", "main")
    number = commit(stack.folder)
    done = place.run("sync", stack.folder, "--once", "-o", "json")
    assert done.code == 0, done.err
    assert done.json["outcome"] == "applied"
    assert place.stack(stack.name)["source"]["commit"] == number
    assert place.run("sync", stack.folder, "--once", "-o", "json").json["outcome"] == "unchanged"

    stack.code("web", "raise LookupError('half done')\n")
    commit(stack.folder)
    done = place.run("sync", stack.folder, "--once")
    assert done.code == place.run("apply", stack.file).code, done.err
    assert "LookupError: half done" in done.err
    assert '"said":"one"' in ask(stack.url)[1]

    many = place.run("sync", stack.folder, "--path", ".", "--once", "--retry", "-o", "json")
    assert many.code != 0 and isinstance(many.json, list)


def test_what_is_no_branch_path_or_address_is_refused(place: Place, stack: Stack) -> None:
    trap = stack.folder / "ran"
    stack.spec(WEB)
    git(stack.folder, "init", "--quiet", "--initial-branch", "main")
    commit(stack.folder)
    for arguments in (
        ("--branch", "main:refs/heads/other", stack.folder),
        ("--branch", f"--upload-pack=touch {trap}", stack.folder),
        (f"ext::sh -c 'touch {trap}'",),
        ("--path", "../serve.yaml", stack.folder),
        ("--path", "no/such.yaml", stack.folder),
    ):
        done = end(place.start("sync", "--once", *arguments))
        assert done.code == 1, done.err
        assert "Traceback" not in done.err
    done = end(place.start("sync", "--once", "http://me:secret@127.0.0.1:1/x.git"))
    assert done.code == 1
    assert "secret" not in done.err + done.out
    assert not trap.exists()
