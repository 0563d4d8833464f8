"""What the served app writes below app_dir is seen, however it is opened, and nothing else is."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serveconf.ingress.written import MOST, Written, forget, watch_writes


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "app"
    (place / "uploads").mkdir(parents=True)
    (place / "there.csv").write_text("x")
    (place / "web.py").write_text("x = 1")
    (tmp_path / "outside").mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def written(folder: Path) -> Iterator[Written]:
    found = watch_writes(str(folder))
    yield found
    forget(found)


def write_low() -> None:
    os.close(os.open("low.bin", os.O_WRONLY | os.O_CREAT))


def write_and_rename() -> None:
    Path("new.tmp").write_text("x")
    os.replace("new.tmp", "results.csv")


@pytest.mark.parametrize(
    ("write", "seen"),
    [
        (lambda: Path("a.csv").write_text("x"), "a.csv"),
        (lambda: Path("a.csv").absolute().write_text("x"), "a.csv"),
        (lambda: open("there.csv", "a").close(), "there.csv"),
        (lambda: open("there.csv", "r+").close(), "there.csv"),
        (lambda: open(b"uploads/a.png", "wb").close(), "uploads/a.png"),
        (lambda: shutil.copyfile("there.csv", "copy.csv"), "copy.csv"),
        (write_low, "low.bin"),
        (write_and_rename, "results.csv"),
        (lambda: sqlite3.connect("data.store").close(), "data.store-wal"),
        (lambda: sqlite3.connect("data.store").close(), "data.store"),
    ],
)
def test_a_write_is_seen(written: Written, write: Callable[[], object], seen: str) -> None:
    write()
    assert seen in written.paths


@pytest.mark.parametrize(
    "read",
    [
        lambda: Path("there.csv").read_text(),
        lambda: os.close(os.open("there.csv", os.O_RDONLY)),
        lambda: Path("../outside/x").write_text("x"),
        lambda: sqlite3.connect(":memory:").close(),
        lambda: Path("made.py").write_text("x = 1"),
        lambda: open(os.open(os.devnull, os.O_WRONLY), "w").close(),
    ],
)
def test_what_is_no_data_of_the_app_is_not(written: Written, read: Callable[[], object]) -> None:
    read()
    assert written.paths == set()


def test_news_come_once_for_each_path_and_from_any_thread(folder: Path) -> None:
    news: list[int] = []
    found = watch_writes(str(folder), lambda: news.append(1))
    for _ in range(3):
        Path("a.csv").write_text("x")
    thread = threading.Thread(target=lambda: Path("b.csv").write_text("x"))
    thread.start()
    thread.join()
    forget(found)
    Path("c.csv").write_text("x")
    assert (found.paths, len(news)) == ({"a.csv", "b.csv"}, 2)


def test_who_looks_on_never_makes_a_write_fail(folder: Path) -> None:
    def broken() -> None:
        raise RuntimeError("the loop is closed")

    found = watch_writes(str(folder), broken)
    Path("a.csv").write_text("x")
    forget(found)
    assert Path("a.csv").read_text() == "x"


def test_paths_are_bounded(folder: Path) -> None:
    found = Written(str(folder))
    for number in range(MOST + 5):
        found.note(f"{folder}/{number}")
    assert len(found.paths) == MOST


def test_what_is_opened_while_the_interpreter_ends_is_no_fault() -> None:
    """It clears modules, and asks the hook of what is opened after that."""
    code = (
        "from serveconf.ingress import written\n"
        "written.watch_writes('/nowhere')\n"
        "for name in [name for name in vars(written) if not name.startswith('__')]:\n"
        "    setattr(written, name, None)\n"
        "open('/dev/null', 'w').close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
