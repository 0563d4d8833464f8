"""Histories and queues have budgets of bytes: what is over them is refused or goes, and nothing that counts is lost."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import World, request

from serveconf.code.package import pack
from serveconf.code.snapshot import take_snapshot
from serveconf.errors import NoRoom
from serveconf.plan.state import DesiredStack
from serveconf.reconcile import operations
from serveconf.reconcile.records import ALWAYS_KEPT, Revision, StackHead, code_of, outlived

WEB = {"name": "web", "import_path": "a:app"}


def revision(stack: str, number: int, code: str) -> Revision:
    desired = DesiredStack(name=stack, revision=number, code=code, deployments=())
    return Revision(number=number, stack=stack, time=float(number), desired=desired)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("wxyz")), max_size=30), st.data())
def test_of_a_history_the_oldest_go_until_it_fits_and_never_what_serves(
    applied: list[tuple[str, str]], data: st.DataObject
) -> None:
    kept: dict[str, dict[int, Revision]] = {}
    for number, (stack, code) in enumerate(applied, 1):
        kept.setdefault(stack, {})[number] = revision(stack, number, code)
    lives, stays = kept.get("a", {}), set()
    heads = (
        {"a": StackHead(name="a", current=data.draw(st.sampled_from(sorted(lives))))} if lives else {}
    )  # b is deleted
    if lives:
        stays = {heads["a"].current, *sorted(lives)[-ALWAYS_KEPT:]}
    sizes, budget = {"w": 1, "x": 10, "y": 100, "z": 1000}, data.draw(st.integers(0, 1200))
    going = outlived(kept, heads, sizes, budget)
    left = [r for of in kept.values() for r in of.values() if r not in going]
    assert stays <= {r.number for r in left}
    needs = sum(sizes[code] for code in {digest for r in left for digest in code_of(r.desired)})
    may_go = [r for r in left if r.number not in stays]
    assert needs <= budget or not may_go
    assert not going or all(r.time > going[-1].time for r in may_go)  # the oldest go first


@pytest.mark.anyio
async def test_after_an_apply_the_history_is_within_its_budget(world: World) -> None:
    world.plane.packages.store_bytes = 2 * 10 * 8  # of which a history may have half: eight packages
    for number in range(12):
        code = f"{number:064x}"
        await world.store.put(f"code/{code}", b"x" * 10)
        (await world.plane.packages.sizes())[code] = 10
        await world.apply(WEB, code=code, files={"a.py": str(number)})
    assert sorted(world.ledger.revisions["default"]) == [5, 6, 7, 8, 9, 10, 11, 12]
    await world.restart()
    assert sorted(world.ledger.revisions["default"]) == [5, 6, 7, 8, 9, 10, 11, 12]


@pytest.mark.anyio
async def test_an_upload_takes_the_room_of_stacks_that_are_gone_and_of_old_revisions(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    app = tmp_path_factory.mktemp("app")

    def made(number: int) -> tuple[str, bytes]:
        (app / "weights").write_bytes(random.Random(number).randbytes(9_700))
        snapshot = take_snapshot(app)
        return snapshot.digest, pack(app, snapshot)

    packages = world.plane.packages
    for number in range(9):
        digest, data = made(number)
        await packages.put(digest, data)
        stack = "old" if number < 3 else "new"
        await world.apply({**WEB, "route_prefix": f"/{stack}"}, stack=stack, code=digest, files={"a.py": str(number)})
        if number == 2:
            await world.run(world.plane.delete("old", None, request(stack="old")))
    assert len(world.ledger.revisions["new"]) == 6 and "old" not in world.ledger.heads
    packages.store_bytes = 10 * 10_000
    for number in range(20, 25):  # plans, or applies that come to nothing
        await packages.put(*made(number))
    assert world.ledger.revisions["old"] and len(world.ledger.revisions["new"]) == 6  # they only take each other's room
    packages.store_bytes = 5 * 10_000
    with pytest.raises(NoRoom):
        await packages.put(*made(30))
    assert "old" not in world.ledger.revisions and len(world.ledger.revisions["new"]) == ALWAYS_KEPT
    assert all([await packages.has(digest) for digest in world.ledger.code_in_use()])


@pytest.mark.anyio
async def test_more_applies_than_the_queue_has_bytes_for_are_refused_and_the_others_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "QUEUED_BYTES", 10_000)
    world = World(tmp_path)
    files = {f"{'x' * 100}{number}": "1" for number in range(30)}
    taken = [world.plane.apply(request({**WEB, "num_replicas": n}, files=files, code="c")) for n in (1, 2)]
    with pytest.raises(NoRoom) as refused:
        world.plane.apply(request(WEB, files=files, code="c"))
    assert refused.value.code == "applies_full"
    assert [(await world.run(operation))["outcome"] for operation in taken] == ["applied", "applied"]
    await asyncio.sleep(0)
    huge = {f"{'x' * 1000}{number}": "1" for number in range(30)}  # alone it is taken, however large
    assert (await world.run(world.plane.apply(request(WEB, files=huge, code="c"))))["outcome"] == "applied"
