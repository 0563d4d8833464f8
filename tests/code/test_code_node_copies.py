"""Unpacked packages on one node: what the store has forgotten goes, and a full disk has a name."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from serveconf.code.package import pack
from serveconf.code.snapshot import take_snapshot
from serveconf.errors import OperatorError
from serveconf.reconcile import packages as packages_module
from serveconf.reconcile.packages import Packages
from serveconf.testing import MemoryStore

pytestmark = pytest.mark.anyio


async def put(store: MemoryStore, app: Path, text: str) -> str:
    app.mkdir(exist_ok=True)
    (app / "m.py").write_text(text)
    snapshot = take_snapshot(app)
    await store.put(f"code/{snapshot.digest}", pack(app, snapshot))
    return snapshot.digest


def unpacked(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


async def test_who_unpacks_a_package_takes_what_the_store_has_forgotten_off_the_node(tmp_path: Path) -> None:
    store, app = MemoryStore(), tmp_path / "app"
    node = Packages(store, tmp_path / "code")
    first, second, third = [await put(store, app, text) for text in ("one = 1", "two = 2", "three = 3")]
    for digest in (first, second):
        await node.folder(digest)
    await store.delete(f"code/{first}")
    await node.folder(third)
    assert unpacked(tmp_path / "code") == {first, second, third}  # a process that lives uses them all
    node.use_only({second})
    other = Packages(store, tmp_path / "code")
    await other.folder(await put(store, app, "four = 4"))
    assert first not in unpacked(tmp_path / "code") >= {second, third}


async def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    digest = await put(store, tmp_path / "app", "one = 1")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packages_module, "unpack", full)
    with pytest.raises(OperatorError) as refused:
        await Packages(store, tmp_path / "code").folder(digest)
    assert refused.value.code == "disk_full"
    assert str(tmp_path / "code") in refused.value.message
