"""What is ours alone: made so, and not believed where somebody else could have laid it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from serveconf import private
from serveconf.cluster.settings import node_folder
from serveconf.errors import OperatorError
from serveconf.private import own_folder, read_trusted, write_private


def mode(path: Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_a_folder_of_ours_is_for_nobody_else_even_where_it_was_open(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o777)
    assert (mode(own_folder(tmp_path / "new")), mode(own_folder(tmp_path / "open"))) == (0o700, 0o700)


def test_a_link_that_somebody_has_laid_in_our_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").symlink_to(tmp_path / "theirs")
    with pytest.raises(OperatorError, match="not a folder of ours"):
        own_folder(tmp_path / "ours")
    assert mode(tmp_path / "theirs") != 0o700


def test_a_folder_of_somebody_else_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_folder(tmp_path / "x")
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    with pytest.raises(OperatorError, match="somebody else"):
        own_folder(tmp_path / "x")


def test_a_nodes_folder_follows_no_foreign_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "theirs").mkdir()
    root = node_folder("c1").parent
    (root / "c2").symlink_to(tmp_path / "theirs")
    with pytest.raises(OperatorError, match="not a folder of ours"):
        node_folder("c2")


def test_a_private_file_is_private_over_one_that_everybody_reads(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, b"new")
    assert (file.read_bytes(), mode(file), len(list(tmp_path.iterdir()))) == (b"new", 0o600, 1)


def test_a_private_file_takes_the_place_of_a_link_and_leaves_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "file").symlink_to(tmp_path / "theirs")
    write_private(tmp_path / "file", b"secret")
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert not (tmp_path / "file").is_symlink()


def test_a_file_is_believed_that_we_have_written_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ours").write_text("yes")
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    os.mkfifo(tmp_path / "pipe")
    assert read_trusted(tmp_path / "ours") == b"yes"
    assert [read_trusted(tmp_path / name) for name in ("link", "pipe", "none", ".")] == [None] * 4
    monkeypatch.setattr(private, "TRUSTED", frozenset({4711}))
    assert read_trusted(tmp_path / "ours") is None
