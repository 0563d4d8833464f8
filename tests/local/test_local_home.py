"""What is remembered between two calls: read back as it was written, private, and never believed half."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serveconf import disk
from serveconf.disk import DiskFull
from serveconf.home import LocalRay, Record, forget_record, home_folder, read_record, write_record

TEXT = st.text(max_size=20)
RAYS = st.builds(
    LocalRay,
    pid=st.integers(0, 2**31),
    address=TEXT,
    started=st.floats(0, 1e12),
    mark=TEXT,
)
RECORDS = st.builds(Record, address=TEXT, token=TEXT, ray=st.none() | RAYS)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "address": ANY,
        "token": ANY,
        "ray": ANY | st.fixed_dictionaries({"pid": ANY, "address": ANY}, optional={"started": ANY, "mark": ANY}),
    },
)


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home") / "below" / ".serveconf"
        patch.setenv("SERVECONF_HOME", str(folder))
        yield folder


@given(RECORDS)
def test_what_was_remembered_is_read_as_it_was(record: Record) -> None:
    write_record(record)
    assert read_record() == record


@given(ANY | NEARLY)
def test_whatever_the_file_holds_is_a_record_or_none(said: Any) -> None:
    (home_folder() / "cluster.json").write_text(json.dumps(said))
    record = read_record()
    write_record(record)
    assert read_record() == record


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\x00",
        b"{",
        b"[" * 100_000,
        b'{"address": "a", "token": "t", "ray": {"pid": Infinity, "address": "r"}}',
        b'{"address": "a", "token": "t", "ray": {"pid": 1}}',
        b'{"address": "a", "token": 7}',
    ],
)
def test_what_is_no_record_is_none_and_no_half_of_one(data: bytes) -> None:
    (home_folder() / "cluster.json").write_bytes(data)
    assert read_record() == Record()


def test_a_record_of_before_starts_and_marks_is_still_one() -> None:
    (home_folder() / "cluster.json").write_text('{"token": "t", "ray": {"pid": "12", "address": "r"}, "later": 1}')
    assert read_record() == Record(token="t", ray=LocalRay(pid=12, address="r", started=0.0, mark=""))


def test_the_folder_and_the_token_are_nobody_else_s(home: Path) -> None:
    write_record(Record(token="t"))
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "cluster.json").stat().st_mode) == 0o600
    (home / "cluster.json").chmod(0o644)
    write_record(Record(token="u"))
    assert stat.S_IMODE((home / "cluster.json").stat().st_mode) == 0o600


def test_forgetting_twice_is_no_mistake() -> None:
    write_record(Record(token="t"))
    forget_record()
    forget_record()
    assert read_record() == Record()


def test_a_disk_that_is_full_leaves_what_was_remembered(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(Record(token="before"))

    def full(*args: Any) -> Any:
        raise OSError(28, "No space left on device", "cluster.json")

    monkeypatch.setattr(disk.os, "fdopen", full)
    with pytest.raises(DiskFull, match=r"no space left for cluster.json in .*\.serveconf on"):
        write_record(Record(token="after"))
    monkeypatch.undo()
    monkeypatch.setenv("SERVECONF_HOME", str(home))
    assert read_record() == Record(token="before")
    assert [file.name for file in home.iterdir()] == ["cluster.json"]


def test_who_reads_while_another_writes_reads_one_of_both() -> None:
    first, second = Record(address="a" * 5000, token="1"), Record(address="b" * 9000, token="2")
    write_record(first)
    done = threading.Event()

    def write() -> None:
        for record in (second, first) * 50:
            write_record(record)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not done.is_set():
        assert read_record() in (first, second)
    thread.join()
