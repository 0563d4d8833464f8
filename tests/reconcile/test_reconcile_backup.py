"""A backup of the stacks, and what a restore makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from world import World

from serveconf.backup_file import Backup, BadBackup, SavedStack, decode_backup, encode_backup
from serveconf.code.package import pack
from serveconf.code.snapshot import take_snapshot
from serveconf.errors import Conflict

pytestmark = pytest.mark.anyio

WEB: dict[str, Any] = {"name": "web", "import_path": "a:app", "num_replicas": 2}


async def applied(world: World, folder: Path) -> None:
    """A stack with two revisions, and its package."""
    folder.mkdir()
    (folder / "a.py").write_text("app = 1\n")
    snapshot = take_snapshot(folder)
    await world.plane.packages.put(snapshot.digest, pack(folder, snapshot))
    more = {"code": snapshot.digest, "files": dict(snapshot.files)}
    await world.apply(WEB, **more)
    await world.apply(
        {**WEB, "user_config": {"key": "geheim"}}, masks={"deployments[0].user_config.key": "${KEY}"}, **more
    )


async def test_a_backup_restored_onto_an_empty_cluster_brings_the_same_up(tmp_path: Path) -> None:
    world, other = World(tmp_path / "one"), World(tmp_path / "two")
    await applied(world, tmp_path / "app")
    saved = decode_backup(encode_backup(await world.plane.backup()))
    assert [(s.name, s.current, sorted(s.revisions), s.secret) for s in saved.stacks] == [("default", 2, [1, 2], True)]
    for digest, data in saved.code.items():
        await other.plane.packages.put(digest, data)
    result = await other.run(await other.plane.restore(saved.stacks[0], replaces=False))
    assert (result["outcome"], result["revision"]) == ("applied", 3)
    before, after = world.plane.history("default")[0], other.plane.history("default")[0]
    assert after.spec == before.spec and "geheim" not in str(after.spec)
    assert [r.number for r in other.plane.history("default")] == [3, 2, 1]
    current = other.ledger.current("default")
    assert current is not None and current.deployments == before.desired.deployments
    assert len(other.serving("/web")) == 2


async def test_a_stack_that_lives_is_replaced_only_where_that_is_said(tmp_path: Path) -> None:
    world = World(tmp_path / "one")
    await applied(world, tmp_path / "app")
    saved = (await world.plane.backup()).stacks[0]
    await world.apply({**WEB, "num_replicas": 1}, files={"a.py": "2"})
    with pytest.raises(Conflict, match="lives"):
        await world.plane.restore(saved, replaces=False)
    result = await world.run(await world.plane.restore(saved, replaces=True))
    assert (result["outcome"], result["revision"]) == ("applied", 4)
    assert len(world.serving("/web")) == 2


async def test_a_package_that_is_missing_changes_nothing(tmp_path: Path) -> None:
    world, other = World(tmp_path / "one"), World(tmp_path / "two")
    await applied(world, tmp_path / "app")
    saved = (await world.plane.backup()).stacks[0]
    result = await other.run(await other.plane.restore(saved, replaces=False))
    assert (result["outcome"], result["problems"][0]["code"]) == ("failed", "bad_backup")
    assert other.replicas() == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"name: shop\n", "no backup"),
        (b"", "no backup"),
        (b"serveconf backup 2\nabc\n", "newer"),
        (encode_backup(Backup(serveconf="0.1.0"))[:-1], "damaged"),
        (encode_backup(Backup(serveconf="0.1.0")).replace(b"0.1.0", b"0.1.1"), "damaged"),
    ],
)
def test_what_is_no_whole_backup_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(BadBackup, match=said):
        decode_backup(data)


async def test_records_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    for revisions in ({}, {1: b"{}"}, {1: msgspec.json.encode([1])}):
        with pytest.raises(BadBackup):
            await world.plane.restore(SavedStack(name="shop", current=1, revisions=revisions), replaces=False)
    assert world.stacks.names() == []
