"""Histories and queues have budgets of bytes: what is over them is refused or goes, and nothing that counts is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import World, request

from serveconf.errors import NoRoom
from serveconf.plan.state import DesiredStack
from serveconf.reconcile import control
from serveconf.reconcile.records import Revision, StackHead, code_of
from serveconf.reconcile.retention import ALWAYS_KEPT, outlived

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
    heads = {s: StackHead(name=s, current=data.draw(st.sampled_from(sorted(of)))) for s, of in kept.items()}
    sizes, budget = {"w": 1, "x": 10, "y": 100, "z": 1000}, data.draw(st.integers(0, 1200))
    going = outlived(kept, heads, sizes, budget)
    left = [r for of in kept.values() for r in of.values() if r not in going]
    for stack, of in kept.items():
        numbers = [r.number for r in left if r.stack == stack]
        assert heads[stack].current in numbers
        assert set(sorted(of)[-ALWAYS_KEPT:]) <= set(numbers)
    needs = sum(sizes[code] for code in {digest for r in left for digest in code_of(r.desired)})
    oldest_left = [r for r in left if going and r.time < going[-1].time]
    assert all(
        r.number == heads[r.stack].current or r.number in sorted(kept[r.stack])[-ALWAYS_KEPT:] for r in oldest_left
    )
    may_go = [
        r for r in left if r.number != heads[r.stack].current and r.number not in sorted(kept[r.stack])[-ALWAYS_KEPT:]
    ]
    assert needs <= budget or not may_go


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
async def test_more_applies_than_the_queue_has_bytes_for_are_refused_and_the_others_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "QUEUED_BYTES", 10_000)
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
