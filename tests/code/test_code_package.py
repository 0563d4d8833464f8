"""Packages: the same bytes for the same snapshot, and nothing but what the digest says on the other side."""

from __future__ import annotations

import io
import multiprocessing
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serveconf.code import package as package_module
from serveconf.code.package import BadPackage, SnapshotChanged, pack, pack_as_it_is, unpack, verify
from serveconf.code.snapshot import take_snapshot


@pytest.fixture
def app_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    (folder / "shop").mkdir(parents=True)
    (folder / "shop/catalog.py").write_text("app = 1\n")
    (folder / "größe.txt").write_text("ä")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    return folder


def packed(app_dir: Path) -> bytes:
    return pack(app_dir, take_snapshot(app_dir))


def a_zip(entries: list[tuple[str, bytes]], comment: bytes = b"", method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = comment
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def test_what_was_packed_is_what_is_unpacked(app_dir: Path, tmp_path: Path) -> None:
    before = take_snapshot(app_dir)
    unpack(pack(app_dir, before), tmp_path / "store/abc", digest=before.digest)
    assert take_snapshot(tmp_path / "store/abc") == before


def test_the_same_snapshot_gives_the_same_bytes(app_dir: Path) -> None:
    before = packed(app_dir)
    (app_dir / "shop/catalog.py").touch()
    assert packed(app_dir) == before


def test_unpacked_files_are_read_only_and_keep_their_executable_bit(app_dir: Path, tmp_path: Path) -> None:
    unpack(packed(app_dir), tmp_path / "out")
    assert stat.S_IMODE((tmp_path / "out/run.sh").stat().st_mode) & 0o333 == 0o111
    assert stat.S_IMODE((tmp_path / "out/shop/catalog.py").stat().st_mode) & 0o333 == 0


def test_a_file_that_changed_since_the_snapshot_is_not_packed(app_dir: Path) -> None:
    snapshot = take_snapshot(app_dir)
    (app_dir / "run.sh").write_text("other")
    with pytest.raises(SnapshotChanged, match=r"run\.sh changed"):
        pack(app_dir, snapshot)
    (app_dir / "run.sh").unlink()
    with pytest.raises(SnapshotChanged, match=r"run\.sh changed"):
        pack(app_dir, snapshot)


def test_another_package_than_was_asked_for_is_refused_and_leaves_nothing(app_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(BadPackage, match="was wanted"):
        unpack(packed(app_dir), tmp_path / "store/x", digest="0" * 64)
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "a//b", "./a", "folder/"])
def test_a_path_that_leads_out_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadPackage, match="path"):
        unpack(a_zip([("fine.py", b""), (name, b"x")]), tmp_path / "store/x")
    assert list((tmp_path / "store").iterdir()) == []


def test_one_path_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        data = a_zip([("a.py", b"1"), ("a.py", b"2")])
    with pytest.raises(BadPackage, match="path"):
        unpack(data, tmp_path / "x")
    with pytest.raises(BadPackage, match="two things"):
        unpack(a_zip([("a", b"1"), ("a/b", b"2")]), tmp_path / "x")


def test_a_package_that_would_grow_past_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_module, "MAX_BYTES", 1000)
    with pytest.raises(BadPackage, match="larger"):
        unpack(a_zip([("bomb", b"0" * 1001)]), tmp_path / "x")


def test_bytes_that_are_no_package_are_refused(app_dir: Path, tmp_path: Path) -> None:
    good = packed(app_dir)
    for data in (b"", b"no zip", good[: len(good) // 2], a_zip([("a.py", b"1")], comment=b"\xff")):
        with pytest.raises(BadPackage):
            unpack(data, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_content_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/a.py").write_text("good")
    digest = take_snapshot(tmp_path / "app").digest
    with pytest.raises(BadPackage, match="does not hold"):
        unpack(a_zip([("a.py", b"evil")], comment=digest.encode()), tmp_path / "x", digest=digest)


def test_a_package_is_verified_without_writing_it(app_dir: Path, tmp_path: Path) -> None:
    snapshot = take_snapshot(app_dir)
    data = pack(app_dir, snapshot)
    verify(data, snapshot.digest)
    with pytest.raises(BadPackage, match="was wanted"):
        verify(data, "0" * 64)
    assert list(tmp_path.iterdir()) == [app_dir]


@given(st.integers(min_value=0), st.binary(min_size=1, max_size=8))
def test_damaged_bytes_are_no_package_and_never_a_fault(place: int, bits: bytes) -> None:
    data = bytearray(a_zip([("a.py", b"1" * 300), ("b/c.py", b"2")], comment=b"0" * 64, method=zipfile.ZIP_DEFLATED))
    start = place % len(data)
    data[start : start + len(bits)] = bits
    with pytest.raises(BadPackage):
        verify(bytes(data), "f" * 64)


def test_a_file_that_is_packed_in_a_foreign_way_is_refused() -> None:
    with pytest.raises(BadPackage, match="foreign"):
        verify(a_zip([("a.py", b"1")], method=zipfile.ZIP_LZMA), "0" * 64)


def test_a_folder_that_is_there_already_is_left_as_it_is(app_dir: Path, tmp_path: Path) -> None:
    unpack(packed(app_dir), tmp_path / "x")
    first = (tmp_path / "x").stat().st_ino
    unpack(packed(app_dir), tmp_path / "x")
    assert (tmp_path / "x").stat().st_ino == first


def test_several_processes_may_unpack_at_once(app_dir: Path, tmp_path: Path) -> None:
    data, snapshot = packed(app_dir), take_snapshot(app_dir)
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(unpack, [(data, tmp_path / "store/x")] * 8)
    assert take_snapshot(tmp_path / "store/x") == snapshot
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["x"]


def test_what_never_rests_is_packed_as_it_was_read_and_named(app_dir: Path, tmp_path: Path) -> None:
    snapshot = take_snapshot(app_dir)
    (app_dir / "run.sh").write_text("other")
    (app_dir / "shop/catalog.py").unlink()
    packed = pack_as_it_is(app_dir, snapshot)
    assert packed.changed == ("run.sh", "shop/catalog.py")
    assert packed.snapshot.digest == take_snapshot(app_dir).digest
    unpack(packed.data, tmp_path / "out", digest=packed.snapshot.digest)
    assert (tmp_path / "out/run.sh").read_text() == "other"
