"""Unpacked packages on one node: what the store has forgotten goes, and a full disk has a name."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from serveconf.code.package import BadPackage, pack
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


class CountingStore(MemoryStore):
    """Tells how often a package was asked for; an answer takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def get(self, key: str) -> bytes | None:
        if key.startswith("code/"):
            self.asked += 1
            await asyncio.sleep(0.05)
        return await super().get(key)


async def test_of_the_processes_of_a_node_one_fetches_a_package_and_the_others_find_it(tmp_path: Path) -> None:
    store = CountingStore()
    digest = await put(store, tmp_path / "app", "one = 1")
    nodes = [[Packages(store, tmp_path / node) for _ in range(4)] for node in ("one", "two")]
    found = await asyncio.gather(*(process.folder(digest) for node in nodes for process in node))
    assert len(set(found)) == store.asked == 2
    assert not list(tmp_path.glob("*/*.fetch")) and not list(tmp_path.glob("*/.*.fetch"))


async def test_who_fails_to_fetch_leaves_it_to_the_next(tmp_path: Path) -> None:
    store = CountingStore()
    digest = await put(store, tmp_path / "app", "one = 1")
    good = await store.get(f"code/{digest}")
    await store.put(f"code/{digest}", b"damaged")
    first, second = Packages(store, tmp_path / "node"), Packages(store, tmp_path / "node")
    with pytest.raises(BadPackage):
        await first.folder(digest)
    assert good is not None
    await store.put(f"code/{digest}", good)
    assert (await second.folder(digest)).is_dir()


async def test_what_was_just_uploaded_is_unpacked_without_asking_the_store_for_it(tmp_path: Path) -> None:
    store, app = CountingStore(), tmp_path / "app"
    digest = await put(MemoryStore(), app, "one = 1")
    packages = Packages(store, tmp_path / "node")
    await packages.put(digest, pack(app, take_snapshot(app)))
    assert (await packages.folder(digest)).is_dir()
    assert store.asked == 0
