"""What the replicas of a stack were seen to write below app_dir, in the store: one key for each path, so that many may add at once."""

from __future__ import annotations

from urllib.parse import quote, unquote

from serveconf.reconcile.ports import Store

BESIDE_SQLITE = ("-wal", "-shm", "-journal")
MOST = 1_000  # paths of a stack
_PREFIX = "written/"


async def data_of(store: Store, stack: str) -> list[str]:
    """Relative paths, sorted."""
    prefix = _prefix(stack)
    return sorted(unquote(key.removeprefix(prefix)) for key in await store.keys(prefix))


async def all_data(store: Store) -> dict[str, list[str]]:
    """Stack -> its paths, sorted, for people: a database stands for what sqlite keeps beside it."""
    found: dict[str, set[str]] = {}
    for key in await store.keys(_PREFIX):
        stack, _, path = key.removeprefix(_PREFIX).partition("/")
        found.setdefault(stack, set()).add(unquote(path))
    return {stack: sorted(path for path in paths if not _belongs(path, paths)) for stack, paths in found.items()}


def _belongs(path: str, paths: set[str]) -> bool:
    return any(path.endswith(end) and path.removesuffix(end) in paths for end in BESIDE_SQLITE)


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
    return f"{_PREFIX}{stack}/"
