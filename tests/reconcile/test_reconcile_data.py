"""What replicas were seen to write is kept by stack, whoever adds to it when."""

from __future__ import annotations

import asyncio
from pathlib import Path

from serveconf.code.snapshot import take_snapshot
from serveconf.reconcile.data import MOST_DATA, add_data, all_data, data_of, forget_data


class Keys:
    """A store in memory."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    async def put(self, key: str, value: bytes) -> None:
        await asyncio.sleep(0)
        self.values[key] = value

    async def delete(self, key: str) -> None:
        self.values.pop(key, None)

    async def keys(self, prefix: str) -> list[str]:
        await asyncio.sleep(0)
        return [key for key in self.values if key.startswith(prefix)]


def test_many_add_at_once_and_nothing_is_lost() -> None:
    async def main() -> list[str]:
        store = Keys()
        await asyncio.gather(*(add_data(store, "shop", {f"uploads/{n}.png", "a b?.csv"}) for n in range(20)))
        await add_data(store, "shop-2", {"other.csv"})
        await forget_data(store, "shop-2")
        assert await data_of(store, "shop-2") == []
        assert await all_data(store) == {"shop": await data_of(store, "shop")}
        return await data_of(store, "shop")

    assert asyncio.run(main()) == sorted([f"uploads/{n}.png" for n in range(20)] + ["a b?.csv"])


def test_a_database_stands_for_what_sqlite_keeps_beside_it() -> None:
    async def main() -> dict[str, list[str]]:
        store = Keys()
        await add_data(store, "shop", {"a.db", "a.db-wal", "a.db-shm", "a.db-journal", "b-wal"})
        return await all_data(store)

    assert asyncio.run(main()) == {"shop": ["a.db", "b-wal"]}


def test_it_is_bounded() -> None:
    async def main() -> int:
        store = Keys()
        await add_data(store, "shop", {str(n) for n in range(MOST_DATA + 7)})
        return len(await data_of(store, "shop"))

    assert asyncio.run(main()) == MOST_DATA


def test_data_stays_out_of_the_code_unless_it_is_brought_back(tmp_path: Path) -> None:
    for name in ("web.py", "results.csv", "uploads/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    data = {"results.csv", "uploads/a.png"}
    assert set(take_snapshot(tmp_path, data=data).files) == {"web.py"}
    (tmp_path / ".serveconfignore").write_text("!results.csv\n")
    assert {"results.csv", "web.py"} <= set(take_snapshot(tmp_path, data=data).files)
    assert "uploads/a.png" not in take_snapshot(tmp_path, data=data).files
