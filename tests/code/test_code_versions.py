"""What makes a deployment another one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serveconf.code.left_out import is_volatile
from serveconf.code.snapshot import Snapshot
from serveconf.code.versions import relevant_files, version_of


def snapshot(*paths: str) -> Snapshot:
    return Snapshot(digest="", files={path: f"hash of {path}" for path in paths}, total_bytes=0)


def test_imported_modules_and_data_files_count_and_other_modules_do_not() -> None:
    files = snapshot("shop/a.py", "shop/b.py", "shop/page.html", "shop/b.pyi", "weights.bin", "requirements.txt")
    assert sorted(relevant_files(files, ["shop/a.py"])) == [
        "requirements.txt",
        "shop/a.py",
        "shop/page.html",
        "weights.bin",
    ]


def test_the_spec_and_the_ignore_files_do_not_count() -> None:
    files = snapshot("serve.yaml", "a.py", ".gitignore", "sub/.serveconfignore")
    assert relevant_files(files, ["a.py"], exclude=["serve.yaml"]) == {"a.py": "hash of a.py"}


@pytest.mark.parametrize(
    "path",
    [
        *("app.db", "data/x.sqlite3", "app.db-wal", "x.sqlite-journal", "server.log", "server.log.1", "a.pid"),
        *("main.py~", "x.tmp", ".main.py.swp", ".#main.py", "#main.py#", ".DS_Store"),
    ],
)
def test_names_of_what_a_running_app_or_an_editor_writes_are_known(path: str) -> None:
    assert is_volatile(path)


@pytest.mark.parametrize("path", ["db.py", "catalog.json", "logs.txt", "tmp/page.html", "log/x.csv"])
def test_ordinary_names_are_not_volatile(path: str) -> None:
    assert not is_volatile(path)


@given(st.dictionaries(st.text(), st.text()), st.dictionaries(st.text(), st.integers()), st.randoms())
def test_a_version_does_not_depend_on_order(files: dict[str, str], fields: dict[str, int], dice: random.Random) -> None:
    shuffled = list(files.items())
    dice.shuffle(shuffled)
    version = version_of(fields, files)
    assert version_of(dict(reversed(fields.items())), dict(shuffled)) == version
    assert len(version) == 12


def test_a_version_depends_on_fields_and_files() -> None:
    versions = [
        version_of({"a": 1}, {}),
        version_of({"a": 2}, {}),
        version_of({"a": 1}, {"a": "1"}),
        version_of({}, {}),
    ]
    assert len(set(versions)) == 4
