"""How long what files say must be quiet: as for a lone save, as for a burst of them, or as for one that is not done yet."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from serveconf.watch import settle
from serveconf.watch.look import Look
from serveconf.watch.settle import News, Restless, settled

pytestmark = pytest.mark.anyio

BROKEN = "broken"


def seen(key: str) -> Look:
    return Look(file=Path("serve.yaml"), key=key, places={}, files={"serve.yaml": key}, half_written=key == BROKEN)


async def quiet_of(monkeypatch: pytest.MonkeyPatch, *looks: str) -> str:
    """Which quiet it waits for in the end, where each look after the first follows news; before them the files said "old"."""
    for name in ("LONE_S", "BURST_S", "BROKEN_S"):
        monkeypatch.setattr(settle, name, 5.0)
    monkeypatch.setattr(settle, "BREATH_S", 0)
    asked: list[str] = []
    left, news, real = list(looks), News(), settle._quiet

    def quiet(found: Look, saves: int) -> float:
        pause = real(found, saves)
        asked.append("broken" if found.half_written else "burst" if saves > 1 else "lone")
        return pause if left else 0.0

    async def look(restless: frozenset[str]) -> Look:
        news.ring()
        await asyncio.sleep(0)
        return seen(left.pop(0))

    monkeypatch.setattr(settle, "_quiet", quiet)
    found, _, busy = await settled(look, news, Restless(), "old")
    assert (found.key, busy) == (looks[-1], frozenset())
    return asked[-1]


@pytest.mark.parametrize(
    ("looks", "quiet"),
    [
        (("new",), "lone"),
        (("old", "new"), "lone"),  # the save came while what was before it was looked at
        ((BROKEN, "new"), "lone"),  # … while it was written
        (("old", BROKEN, "new"), "lone"),
        (("new", "newer"), "burst"),
        (("old", "new", "newer"), "burst"),
        (("new", BROKEN, "newer"), "burst"),
        (("new", "old"), "burst"),
        (("new", BROKEN), "broken"),
        (("old", BROKEN), "broken"),
    ],
)
async def test_one_save_is_believed_sooner_than_one_of_many(
    monkeypatch: pytest.MonkeyPatch, looks: tuple[str, ...], quiet: str
) -> None:
    assert await quiet_of(monkeypatch, *looks) == quiet
