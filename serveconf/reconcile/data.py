"""What the replicas of a stack were seen to write below app_dir, in the store: one key for each path, so that many may add at once."""

from __future__ import annotations

from urllib.parse import quote, unquote

from serveconf.reconcile.ports import Store

MOST = 1_000  # paths of a stack


async def data_of(store: Store, stack: str) -> list[str]:
    """Relative paths, sorted."""
    prefix = _prefix(stack)
    return sorted(unquote(key.removeprefix(prefix)) for key in await store.keys(prefix))


async def add_data(store: Store, stack: str, paths: set[str]) -> None:
    """These, too."""
    known = set(await data_of(store, stack))
    for path in sorted(paths - known)[: max(0, MOST - len(known))]:
        await store.put(f"{_prefix(stack)}{quote(path, safe='')}", b"1")


async def forget_data(store: Store, stack: str) -> None:
    """The stack is gone."""
    for key in await store.keys(_prefix(stack)):
        await store.delete(key)


def _prefix(stack: str) -> str:
    return f"written/{stack}/"
