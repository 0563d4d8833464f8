"""A file is hashed again exactly when it may have been written."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from serveconf.code import hashes as hashes_module
from serveconf.code.hashes import Content, Hashes, read_content
from serveconf.code.snapshot import take_snapshot


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read."""
    names: list[str] = []

    def noted(path: Path) -> Content:
        names.append(path.name)
        return read_content(path)

    monkeypatch.setattr(hashes_module, "read_content", noted)
    return names


def later() -> int:
    return time.time_ns() + 3_600_000_000_000


def test_what_was_not_written_is_not_read_again(tmp_path: Path, read: list[str]) -> None:
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "b.py").write_text("1")
    hashes = Hashes(later)
    first = take_snapshot(tmp_path, hashes=hashes)
    assert take_snapshot(tmp_path, hashes=hashes) == first
    assert sorted(read) == ["a.py", "b.py"]
    (tmp_path / "b.py").write_text("2")
    assert take_snapshot(tmp_path, hashes=hashes) == take_snapshot(tmp_path)
    assert read.count("a.py") == 2  # once here, once by the snapshot without memory


def test_a_file_that_was_written_a_moment_ago_is_read_again(tmp_path: Path, read: list[str]) -> None:
    (tmp_path / "a.py").write_text("1")
    hashes = Hashes()
    take_snapshot(tmp_path, hashes=hashes)
    before = (tmp_path / "a.py").stat()
    (tmp_path / "a.py").write_text("2")
    os.utime(tmp_path / "a.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert take_snapshot(tmp_path, hashes=hashes).digest == take_snapshot(tmp_path).digest


def test_another_file_of_the_same_size_and_time_is_another(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    os.utime(tmp_path / "a.py", (1, 1))
    hashes = Hashes(later)
    take_snapshot(tmp_path, hashes=hashes)
    (tmp_path / "beside").write_text("2")
    os.utime(tmp_path / "beside", (1, 1))
    (tmp_path / "beside").replace(tmp_path / "a.py")
    assert take_snapshot(tmp_path, hashes=hashes).digest == take_snapshot(tmp_path).digest
