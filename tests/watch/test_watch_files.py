"""Every way in which files change ends in one apply of what they say once they have settled."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from watching import SPEC, FakeServing, lay_out, rename_over, watching

from serveconf.watch import following as following_module
from serveconf.watch import settle

PATIENCE_S = 1.5


@pytest.fixture(params=["told", "silent"])
def events(request: pytest.FixtureRequest) -> bool:
    """Whether the system tells of changes; each promise holds where it does not."""
    return bool(request.param == "told")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes saves for those of one burst, however slowly they come and are told of on a busy machine."""
    for name in ("LONE_S", "BURST_S"):
        monkeypatch.setattr(settle, name, PATIENCE_S)


@pytest.mark.usefixtures("patient")
def test_fifty_saves_in_a_second_are_one_apply(tmp_path: Path, events: bool) -> None:
    file = lay_out(tmp_path / "app")
    with watching(file, events=events) as watcher:
        watcher.until(lambda: watcher.serving.applied, "the first apply")
        for number in range(50):
            (file.parent / "web.py").write_text(f"save = {number}")
            time.sleep(0.02)
        watcher.comes_to(("shop", "one"), ("shop", "save = 49"))


def test_a_save_does_not_wait_for_what_the_save_before_it_has_replaced(tmp_path: Path) -> None:
    file = lay_out(tmp_path / "app")
    serving = FakeServing()
    serving.drains = True
    with watching(file, serving=serving) as watcher:
        for number in range(4):
            watcher.until(lambda number=number: len(serving.applied) == number + 1, "it is applied")
            assert len(watcher.kinds("served")) == number  # its end is not there yet
            (file.parent / "web.py").write_text(f"save = {number}")
        watcher.until(lambda: len(serving.applied) == 5, "the last one is")
        serving.completed.set()
        watcher.until(lambda: len(watcher.kinds("served")) == 5, "each end is told")
        assert [kind for kind, _ in watcher.kinds()] == ["served", *["changed", "served"] * 4]


def test_a_watcher_that_is_stopped_while_something_drains_ends_that_apply(tmp_path: Path) -> None:
    file = lay_out(tmp_path / "app")
    serving = FakeServing()
    serving.drains = True
    with watching(file, serving=serving) as watcher:
        watcher.until(lambda: serving.there, "it is live")
    assert serving.cancelled == ["shop"]


def test_a_save_between_the_first_look_and_the_watch_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = lay_out(tmp_path / "app")
    serving = FakeServing()
    monkeypatch.setattr(following_module, "POLL_S", 60.0)  # else it would be found by chance

    class Slow(following_module.Notice):
        def watch(self, *args: object) -> None:
            if not (file.parent / "saved").exists():
                (file.parent / "web.py").write_text("two")
                (file.parent / "saved").touch()
            super().watch(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(following_module, "Notice", Slow)
    with watching(file, serving=serving) as watcher:
        watcher.until(lambda: ("shop", "two") in serving.applied, "the save is applied")


def test_a_file_that_is_renamed_over_is_followed_on(tmp_path: Path, events: bool) -> None:
    file = lay_out(tmp_path / "app")
    with watching(file, events=events) as watcher:
        watcher.until(lambda: watcher.serving.applied, "the first apply")
        for word in ("two", "three"):
            rename_over(file.parent / "web.py", word)
            watcher.until(lambda word=word: ("shop", word) in watcher.serving.applied, word)
        rename_over(file, file.read_text().replace("name: shop", "name: market"))
        watcher.until(lambda: ("market", "three") in watcher.serving.applied, "the spec that was renamed over")
        assert len(watcher.rests()) == 4


def test_a_touch_a_comment_and_a_save_of_the_same_are_nothing(tmp_path: Path, events: bool) -> None:
    file = lay_out(tmp_path / "app")
    with watching(file, events=events) as watcher:
        watcher.until(lambda: watcher.serving.applied, "the first apply")
        (file.parent / "web.py").touch()
        rename_over(file.parent / "web.py", "one")
        file.write_text(file.read_text() + "# a comment\n")
        (file.parent / ".web.py.swp").write_text("an editor's")
        (file.parent / "web.py~").write_text("an editor's")
        (file.parent / "app.db").write_text("the app's")
        watcher.comes_to(("shop", "one"))


def test_half_a_file_is_not_applied(tmp_path: Path, events: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "BROKEN_S", 3.0)  # however long it takes until the rest of it comes
    file = lay_out(tmp_path / "app", word="x = 1")
    with watching(file, events=events) as watcher:
        watcher.until(lambda: watcher.serving.applied, "the first apply")
        whole = "def f():\n    return (1,\n            2)\n"
        (file.parent / "web.py").write_text(whole[:24])
        time.sleep(0.3)
        (file.parent / "web.py").write_text(whole)
        spec = file.read_text()
        file.write_text(spec[:30])
        time.sleep(0.3)
        file.write_text(spec + "    num_replicas: 2\n".replace("    ", "# "))
        watcher.comes_to(("shop", "x = 1"), ("shop", whole))
        assert watcher.kinds("invalid") == []


def test_a_configmap_that_swaps_its_link_is_seen(tmp_path: Path, events: bool) -> None:
    mount = tmp_path / "mount"
    for version in ("one", "two"):
        (mount / f"..{version}").mkdir(parents=True)
        (mount / f"..{version}" / "serve.yaml").write_text(SPEC.format(name="shop"))
        (mount / f"..{version}" / "web.py").write_text(version)
    (mount / "..data").symlink_to("..one")
    for name in ("serve.yaml", "web.py"):
        (mount / name).symlink_to(f"..data/{name}")
    with watching(mount / "serve.yaml", events=events) as watcher:
        watcher.until(lambda: watcher.serving.applied, "the first apply")
        (mount / "..data_tmp").symlink_to("..two")
        (mount / "..data_tmp").rename(mount / "..data")
        shutil.rmtree(mount / "..one")
        watcher.comes_to(("shop", "one"), ("shop", "two"))


def test_a_folder_behind_a_link_that_is_swapped_is_seen(tmp_path: Path, events: bool) -> None:
    for version in ("one", "two"):
        lay_out(tmp_path / "releases" / version, word=version)
    (tmp_path / "current").symlink_to("releases/one")
    with watching(tmp_path / "current" / "serve.yaml", events=events) as watcher:
        watcher.until(lambda: watcher.serving.applied, "the first apply")
        (tmp_path / "next").symlink_to("releases/two")
        (tmp_path / "next").rename(tmp_path / "current")
        watcher.comes_to(("shop", "one"), ("shop", "two"))


def test_a_folder_that_vanishes_and_comes_back_is_followed_on(tmp_path: Path, events: bool) -> None:
    file = lay_out(tmp_path / "app")
    with watching(file, events=events) as watcher:
        watcher.until(lambda: watcher.serving.applied, "the first apply")
        for word in ("two", "three"):
            shutil.rmtree(tmp_path / "app")
            watcher.until(lambda: watcher.kinds("invalid"), "it says that the file is gone")
            lay_out(tmp_path / "app", word=word)
            watcher.until(lambda word=word: ("shop", word) in watcher.serving.applied, word)
        (file.parent / "web.py").write_text("four")
        watcher.until(lambda: ("shop", "four") in watcher.serving.applied, "an edit in the folder that came back")


@pytest.mark.usefixtures("patient")
def test_a_checkout_of_500_files_is_one_apply(tmp_path: Path, events: bool) -> None:
    file = lay_out(tmp_path / "app")
    with watching(file, events=events) as watcher:
        watcher.until(lambda: watcher.serving.applied, "the first apply")
        for number in range(500):
            folder = file.parent / f"package{number % 25}"
            folder.mkdir(exist_ok=True)
            (folder / f"module{number}.py").write_text(f"n = {number}\n")
        (file.parent / "web.py").write_text("two")
        watcher.comes_to(("shop", "one"), ("shop", "two"))
        (file.parent / "package24" / "module24.py").write_text("n = -1\n")
        watcher.until(lambda: len(watcher.serving.applied) == 3, "an edit in a new folder")


def test_an_env_file_is_part_of_what_is_watched(tmp_path: Path) -> None:
    file = lay_out(tmp_path / "app")
    env_file = tmp_path / "elsewhere" / "values.env"
    env_file.parent.mkdir()
    env_file.write_text("PREFIX=/a\n")
    file.write_text(file.read_text().replace("'web:app'", "'web:app', route_prefix: '${PREFIX}'"))
    with watching(file, env_files=(env_file,)) as watcher:
        watcher.until(lambda: watcher.serving.applied, "the first apply")
        env_file.write_text("PREFIX=/b\nUNUSED=1\n")
        watcher.until(lambda: len(watcher.serving.applied) == 2, "the value is applied")
        env_file.write_text("PREFIX=/b\nUNUSED=2\n")
        assert len(watcher.rests()) == 2


def test_while_an_apply_runs_changes_wait_and_the_newest_wins(tmp_path: Path) -> None:
    file = lay_out(tmp_path / "app")
    with watching(file) as watcher:
        watcher.until(lambda: watcher.serving.applied, "the first apply")
        watcher.serving.hold.clear()
        (file.parent / "web.py").write_text("two")
        watcher.until(lambda: len(watcher.serving.started) == 2, "an apply runs")
        for word in ("three", "four", "five"):
            (file.parent / "web.py").write_text(word)
            time.sleep(0.3)
        assert len(watcher.serving.started) == 2
        watcher.serving.hold.set()
        watcher.until(lambda: watcher.serving.applied[-1] == ("shop", "five"), "the newest is applied")
        assert {word for _, word in watcher.rests()} == {"one", "five"}  # they are read as the apply goes on
        assert (
            len(watcher.serving.started) <= 4
        )  # the one that ran, and one more or two, as the last save is heard of late


def test_a_file_that_is_always_being_written_is_named_and_holds_nothing_up(tmp_path: Path) -> None:
    file = lay_out(tmp_path / "app")
    with watching(file) as watcher:
        watcher.until(lambda: watcher.serving.applied, "the first apply")
        writer = subprocess.Popen(["sh", "-c", "while :; do date +%N > feed.json; sleep 0.05; done"], cwd=file.parent)
        try:
            watcher.until(lambda: watcher.kinds("restless"), "the file is named")
            assert "feed.json" in watcher.kinds("restless")[0][1]
            (file.parent / "web.py").write_text("two")
            watcher.until(lambda: ("shop", "two") in watcher.serving.applied, "an edit is applied all the same")
        finally:
            writer.kill()
            writer.wait()
        many = len(watcher.serving.applied)
        watcher.until(lambda: len(watcher.serving.applied) > many, "what it held at last is applied once it rests")


def test_what_the_app_is_seen_to_write_is_no_change(tmp_path: Path, events: bool) -> None:
    file = lay_out(tmp_path / "app")
    with watching(file, events=events) as watcher:
        watcher.until(lambda: watcher.serving.applied, "the first apply")
        watcher.serving.written["shop"] = frozenset({"results.csv"})
        for number in range(3):
            (file.parent / "results.csv").write_text(f"{number}\n")
            time.sleep(0.7)
        watcher.comes_to(("shop", "one"))
        (file.parent / "web.py").write_text("two")
        watcher.comes_to(("shop", "one"), ("shop", "two"))


def test_data_that_was_packed_at_first_is_no_change_once_it_is_known(tmp_path: Path) -> None:
    file = lay_out(tmp_path / "app")
    (file.parent / "results.csv").write_text("0\n")
    with watching(file) as watcher:
        watcher.until(lambda: watcher.serving.applied, "the first apply")
        watcher.serving.written["shop"] = frozenset({"results.csv"})
        for number in range(3):
            (file.parent / "results.csv").write_text(f"{number}\n")
            time.sleep(0.7)
        watcher.comes_to(("shop", "one"))
        (file.parent / "web.py").write_text("two")
        watcher.comes_to(("shop", "one"), ("shop", "two"))


def test_data_that_is_named_as_code_counts_again(tmp_path: Path, events: bool) -> None:
    file = lay_out(tmp_path / "app")
    (file.parent / "results.csv").write_text("0\n")
    with watching(file, events=events) as watcher:
        watcher.until(lambda: watcher.serving.applied, "the first apply")
        watcher.serving.written["shop"] = frozenset({"results.csv", "other.csv"})
        (file.parent / "results.csv").write_text("1\n")
        (file.parent / ".serveconfignore").write_text("!results.csv\n")
        watcher.until(lambda: len(watcher.serving.applied) == 2, "it is code after all")
        (file.parent / "other.csv").write_text("2\n")
        assert len(watcher.rests()) == 2
        (file.parent / "results.csv").write_text("2\n")
        watcher.until(lambda: len(watcher.serving.applied) == 3, "what it says counts")


def test_where_the_system_tells_nothing_that_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(following_module.Notice):
        def _counts(self, *change: object) -> bool:
            return False

    monkeypatch.setattr(following_module, "Notice", Deaf)
    file = lay_out(tmp_path / "app")
    with watching(file) as watcher:
        watcher.until(lambda: watcher.serving.applied, "the first apply")
        for word in ("two", "three"):
            (file.parent / "web.py").write_text(word)
            watcher.until(lambda word=word: ("shop", word) in watcher.serving.applied, word)
        assert watcher.following is not None
        assert watcher.following.silent


def test_a_watched_tree_leaves_out_what_is_never_code(tmp_path: Path) -> None:
    file = lay_out(tmp_path / "app")
    (file.parent / "node_modules" / "x").mkdir(parents=True)
    with watching(file) as watcher:
        watcher.until(lambda: watcher.serving.applied, "the first apply")
        watcher.until(lambda: watcher.following and watcher.following.looks, "it has looked")
        assert watcher.following is not None
        look = watcher.following.looks[Path(os.path.abspath(file))]
        assert not [place for place in look.places if "node_modules" in place]
