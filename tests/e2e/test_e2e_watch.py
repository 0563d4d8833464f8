"""``watch``: a folder of stacks is kept as its files say, whatever is done behind its back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PLAIN
from place import COMMAND, COMMAND_S, Place, ask, until


class Folder:
    """A folder of specs, each with an app of its own."""

    def __init__(self, place: Place, path: Path) -> None:
        self.place, self.path = place, path
        path.mkdir()

    def says(self, name: str, word: str) -> None:
        (self.path / name).mkdir(exist_ok=True)
        (self.path / name / "web.py").write_text(textwrap.dedent(PLAIN % word))

    def spec(self, name: str, *, prefix: str = "", stack: str = "") -> Path:
        file = self.path / f"{name}.yaml"
        file.write_text(
            f"name: {stack or name}\napp_dir: {name}\nhttp_options: {{port: {self.place.http_port}}}\n"
            f"deployments:\n  - {{name: web, import_path: 'web:app', route_prefix: /{prefix or name}}}\n"
        )
        return file

    def answer(self, prefix: str) -> str:
        return ask(f"{self.place.url}/{prefix}")[1]


class Watching:
    """A ``watch`` that writes JSON."""

    def __init__(self, place: Place, log: Path, *args: str | Path) -> None:
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [str(COMMAND), "watch", "--log-format", "json", *map(str, args)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=place.env,
            )

    def lines(self, kind: str = "") -> list[dict[str, Any]]:
        whole, _, _ = self.log.read_text().rpartition("\n")  # the last one may be half written
        found = [json.loads(line) for line in whole.splitlines()]
        return [line for line in found if kind in ("", line["kind"])]

    def says(self, kind: str, text: str = "", times: int = 1) -> None:
        def heard() -> bool:
            return sum(text in json.dumps(line, ensure_ascii=False) for line in self.lines(kind)) >= times

        until(lambda: heard() or self.process.poll() is not None, f"it says {kind} {text!r}")
        assert heard(), self.log.read_text()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=COMMAND_S)


@pytest.fixture
def folder(place: Place, tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(place, tmp_path / "stacks")
    yield folder
    names = {stack["name"] for stack in place.status()["stacks"]} - {"keeper"}
    for name in names:
        place.run("delete", "--stack", name)


@pytest.fixture
def begin(place: Place, tmp_path: Path) -> Iterator[Callable[..., Watching]]:
    begun: list[Watching] = []

    def start(*args: str | Path) -> Watching:
        begun.append(Watching(place, tmp_path / f"said{len(begun)}", *args))
        return begun[-1]

    yield start
    for watching in begun:
        if watching.process.poll() is None:
            watching.process.kill()
            watching.process.wait()


def test_a_folder_of_stacks_is_kept_as_its_files_say(
    place: Place, folder: Folder, begin: Callable[..., Watching], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        folder.says(name, name)
        folder.spec(name)
    (folder.path / "broken.yaml").write_text("name: broken\ndeploymnts: []\n")
    ready = tmp_path / "ready"
    watch = begin(folder.path, "--ready-file", ready)
    until(lambda: '"said":"a"' in folder.answer("a") and '"said":"b"' in folder.answer("b"), "both are served")
    watch.says("invalid", "deploymnts")
    assert not ready.exists()  # one file is not as it says
    (folder.path / "broken.yaml").unlink()
    until(ready.exists, "it is ready")

    folder.says("c", "c")
    folder.spec("c")
    until(lambda: '"said":"c"' in folder.answer("c"), "a file that came is served")

    pids = place.pids("b", "web")
    folder.says("a", "a2")
    until(lambda: '"said":"a2"' in folder.answer("a"), "the edit is served")
    assert place.pids("b", "web") == pids

    folder.says("b2", "b2")
    folder.spec("b2", stack="b", prefix="b2")  # claims b's name
    watch.says("invalid", "is claimed by", times=2)
    assert '"said":"b"' in folder.answer("b")
    (folder.path / "b2.yaml").unlink()

    before = place.record()["token"]
    assert place.ok("token", "--rotate", "-o", "json").json["token"] == place.record()["token"] != before
    folder.says("a", "a3")
    until(lambda: '"said":"a3"' in folder.answer("a"), "the watcher goes on with the new token")

    (folder.path / "c.yaml").unlink()
    watch.says("gone", "goes on serving")
    assert '"said":"c"' in folder.answer("c")
    assert watch.end() == 0, watch.log.read_text()
    assert not ready.exists()
    assert '"said":"a3"' in folder.answer("a")

    watch = begin(folder.path, "--prune")
    watch.says("pruned", "'c'")
    until(lambda: ask(f"{place.url}/c")[0] == 404, "it is taken away")
    assert '"said":"a3"' in folder.answer("a") and '"said":"b"' in folder.answer("b")
    assert {"keeper"} <= {stack["name"] for stack in place.status()["stacks"]}
    assert watch.end(signal.SIGHUP) == 0


def test_what_is_done_behind_its_back_is_undone_and_a_pin_is_respected(
    place: Place, folder: Folder, begin: Callable[..., Watching]
) -> None:
    folder.says("a", "one")
    folder.spec("a")
    watch = begin(folder.path)
    until(lambda: '"said":"one"' in folder.answer("a"), "it is served")
    folder.says("a", "two")
    until(lambda: '"said":"two"' in folder.answer("a"), "the edit is served")

    place.ok("rollback", "--stack", "a")
    watch.says("pinned", "resume")
    assert '"said":"one"' in folder.answer("a")
    place.ok("resume", "--stack", "a")
    until(lambda: '"said":"two"' in folder.answer("a"), "the pin is gone: the file holds again")
    assert len(watch.lines("pinned")) == 1

    place.ok("delete", "--stack", "a")
    watch.says("drift", "no stack")
    until(lambda: '"said":"two"' in folder.answer("a"), "it is brought back")
    assert watch.end() == 0

    watch = begin(folder.path, "--no-self-heal")
    watch.says("served")
    place.ok("delete", "--stack", "a")
    watch.says("drift", "left as it is")
    assert ask(f"{place.url}/a")[0] == 404
    assert watch.end(signal.SIGINT) == 0


def test_what_failed_is_not_tried_again_until_it_changes_also_after_a_restart(
    place: Place, folder: Folder, begin: Callable[..., Watching]
) -> None:
    folder.says("a", "one")
    file = folder.spec("a")
    watch = begin(folder.path)
    until(lambda: '"said":"one"' in folder.answer("a"), "it is served")
    (folder.path / "a" / "web.py").write_text("raise LookupError('bad')\n")
    watch.says("quarantine", "not tried again")
    file.touch()
    assert watch.end() == 0
    tries = place.ok("history", "--stack", "a", "-o", "json").json

    watch = begin(folder.path)
    watch.says("quarantine", "has failed before")
    assert place.ok("history", "--stack", "a", "-o", "json").json == tries
    folder.says("a", "two")
    until(lambda: '"said":"two"' in folder.answer("a"), "the mended code is served")
    assert watch.end() == 0

    (folder.path / "a" / "web.py").write_text("raise LookupError('bad')\n")
    watch = begin(file)  # one file, and what it says is wrong: as apply
    assert watch.process.wait(timeout=COMMAND_S) == place.run("apply", file).code
    watch = begin(file, "--retry")
    watch.says("apply", "LookupError: bad")
    assert watch.process.wait(timeout=COMMAND_S) in (1, 3)


def test_a_controller_that_dies_is_waited_for(
    place: Place, folder: Folder, begin: Callable[..., Watching], tmp_path: Path
) -> None:
    folder.says("a", "one")
    folder.spec("a")
    ready = tmp_path / "ready"
    watch = begin(folder.path, "--ready-file", ready)
    until(ready.exists, "it is ready")
    os.kill(place.status()["controller"]["pid"], signal.SIGKILL)
    folder.says("a", "two")
    until(lambda: '"said":"two"' in folder.answer("a"), "the edit is served by the controller that came back")
    until(ready.exists, "it is ready again")
    assert watch.end() == 0
