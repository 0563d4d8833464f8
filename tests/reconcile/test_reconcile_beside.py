"""What an app writes beside its modules is never removed, and is told with its names and its place."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from serveconf.cluster.ground import report_writes
from serveconf.code.package import pack, was_written_to
from serveconf.code.snapshot import take_snapshot
from serveconf.reconcile.data import MOST_BESIDE, Beside, add_beside, forget_beside, warnings_of
from serveconf.reconcile.packages import Packages, clear_node
from serveconf.testing import ManualClock, MemoryStore


async def unpacked(packages: Packages, folder: Path, text: str) -> Path:
    """A package of one module and one template, unpacked."""
    source = folder / text
    (source / "pages").mkdir(parents=True)
    (source / "web.py").write_text(text)
    (source / "pages" / "a.html").write_text("x")
    os.chmod(source / "pages" / "a.html", 0o755)
    snapshot = take_snapshot(source)
    await packages.put(snapshot.digest, pack(source, snapshot))
    return await packages.folder(snapshot.digest)


def overwrite(code: Path) -> None:
    (code / "web.py").chmod(0o644)
    (code / "web.py").write_text("other")


@pytest.mark.parametrize(
    ("write", "kept"),
    [
        (lambda code: None, False),
        (lambda code: ((code / "__pycache__").mkdir(), (code / "__pycache__" / "web.pyc").write_text("x")), False),
        (lambda code: (code / "uploads").mkdir(), False),  # nothing is in it
        (lambda code: (code / "data.store").write_text("x"), True),
        (lambda code: (code / "pages" / "b.html").write_text("x"), True),
        (lambda code: (code / "link").symlink_to("/"), True),
        (lambda code: os.mkfifo(code / "pipe"), True),
        (overwrite, True),
        (lambda code: (code / "pages" / "a.html").unlink(), True),
    ],
)
def test_unpacked_code_goes_with_its_last_revision_unless_an_app_has_written_to_it(
    tmp_path: Path, write: Callable[[Path], object], kept: bool
) -> None:
    async def main() -> tuple[Path, Path]:
        clock, store = ManualClock(), MemoryStore()
        packages = Packages(store, tmp_path / "node" / "code", now=clock.now)
        code, other = await unpacked(packages, tmp_path, "one"), await unpacked(packages, tmp_path, "two")
        write(code)
        assert was_written_to(code, code.name) is kept
        clock.advance(3_600)
        await packages.collect({other.name})
        assert await store.keys("code/") == [f"code/{other.name}"]
        await packages.collect({other.name})
        return code, other

    code, other = asyncio.run(main())
    assert (code.exists(), other.exists()) == (kept, True)
    (tmp_path / "node" / "a.sock").write_text("")
    (tmp_path / "node" / "code" / ".draft").mkdir()
    clear_node(tmp_path / "node")
    left = sorted(path.name for path in (tmp_path / "node" / "code").iterdir()) if kept else []
    assert left == ([code.name] if kept else [])
    assert (tmp_path / "node").exists() is kept
    assert not (tmp_path / "node" / "a.sock").exists()


def test_the_warning_names_files_folder_and_node_and_ends_when_they_are_taken_away(tmp_path: Path) -> None:
    async def main() -> None:
        store = MemoryStore()
        (tmp_path / "data.store").write_text("x")
        here = Beside(node="n1", folder=str(tmp_path), path="data.store")
        there = [Beside(node="n2", folder="/x/code/abc", path=f"u/{number}.png") for number in range(7)]
        await add_beside(store, "shop", [here, *there])
        await add_beside(store, "shop", [here])
        await add_beside(store, "shop-2", [here])
        found = await warnings_of(store, "n1")
        assert found["shop-2"] == found["shop"][:1]
        assert f"data.store, in {tmp_path} on n1" in found["shop"][0]
        assert "u/0.png, u/1.png, u/2.png, u/3.png, u/4.png and 2 more, in /x/code/abc on n2" in found["shop"][1]
        (tmp_path / "data.store").unlink()
        assert len((await warnings_of(store, "n1"))["shop"]) == 1
        await forget_beside(store, "shop")
        assert await warnings_of(store, "n1") == {}
        await add_beside(store, "shop", [Beside(node="n", folder="/x", path=str(n)) for n in range(MOST_BESIDE + 9)])
        assert len(await store.keys("beside/shop/")) == MOST_BESIDE

    asyncio.run(main())


def test_a_replicas_writes_are_told_apart_data_below_app_dir_and_what_lies_beside_modules(tmp_path: Path) -> None:
    app_dir, code = tmp_path / "app", tmp_path / "code"
    for folder in (app_dir, code, code / "__pycache__"):
        folder.mkdir()

    async def main() -> tuple[list[str], list[str]]:
        store = MemoryStore()
        tasks = report_writes(store, "shop", app_dir=str(app_dir), code=code)
        (app_dir / "results.csv").write_text("x")
        (app_dir / "module.py").write_text("x")
        (code / "__pycache__" / "web.pyc.123").write_text("x")
        (code / "made.py").write_text("x")
        async with asyncio.timeout(120):
            while not (await store.keys("beside/") and await store.keys("written/")):
                await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return await store.keys("written/"), (await warnings_of(store, "elsewhere"))["shop"]

    written, warnings = asyncio.run(main())
    assert written == ["written/shop/results.csv"]
    assert len(warnings) == 1
    assert f": made.py, in {code} on " in warnings[0]


def test_what_each_version_writes_again_is_told_once() -> None:
    async def main() -> None:
        store = MemoryStore()
        same = [Beside(node="n2", folder=f"/x/code/{name}", path="started.json") for name in ("a", "b", "c")]
        await add_beside(store, "shop", [*same, Beside(node="n2", folder="/x/code/d", path="other.csv")])
        said = (await warnings_of(store, "n1"))["shop"]
        assert len(said) == 2
        assert "started.json, in /x/code/a and 2 more folders beside it on n2" in said[0]

    asyncio.run(main())
