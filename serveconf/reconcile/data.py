"""What the replicas of a stack were seen to write, in the store: one key for each path, so that many may add at once.

Below app_dir it is the stack's *data*, which no snapshot takes. *Beside* its modules, in an unpacked package, the next version
does not look: nothing of it is removed, and ``plan`` and ``status`` say where it lies. ``cluster/ground`` adds both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, unquote

import msgspec

from serveconf.code.package import listed
from serveconf.reconcile.ports import Store

BESIDE_SQLITE = ("-wal", "-shm", "-journal")
MOST_DATA = 1_000  # paths of a stack
_WRITTEN = "written/"
MOST_BESIDE = 200  # paths of a stack: the warning names a few
_BESIDE = "beside/"


async def data_of(store: Store, stack: str) -> list[str]:
    """Relative paths, sorted."""
    prefix = _prefix(stack)
    return sorted(unquote(key.removeprefix(prefix)) for key in await store.keys(prefix))


async def all_data(store: Store) -> dict[str, list[str]]:
    """Stack -> its paths, sorted, for people: a database stands for what sqlite keeps beside it."""
    found: dict[str, set[str]] = {}
    for key in await store.keys(_WRITTEN):
        stack, _, path = key.removeprefix(_WRITTEN).partition("/")
        found.setdefault(stack, set()).add(unquote(path))
    return {stack: sorted(path for path in paths if not _belongs(path, paths)) for stack, paths in found.items()}


def _belongs(path: str, paths: set[str]) -> bool:
    return any(path.endswith(end) and path.removesuffix(end) in paths for end in BESIDE_SQLITE)


async def add_data(store: Store, stack: str, paths: set[str]) -> None:
    """These, too."""
    known = set(await data_of(store, stack))
    for path in sorted(paths - known)[: max(0, MOST_DATA - len(known))]:
        await store.put(f"{_prefix(stack)}{quote(path, safe='')}", b"1")


async def forget_data(store: Store, stack: str) -> None:
    """The stack is gone."""
    for key in await store.keys(_prefix(stack)):
        await store.delete(key)


def _prefix(stack: str) -> str:
    return f"{_WRITTEN}{stack}/"


class Beside(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One file: on which node, in which unpacked package, by its relative path."""

    node: str
    folder: str
    path: str


async def add_beside(store: Store, stack: str, written: Iterable[Beside]) -> None:
    """These, too."""
    known = set(await store.keys(f"{_BESIDE}{stack}/"))
    for one in sorted(written):
        key = f"{_BESIDE}{stack}/{hashlib.sha256(msgspec.json.encode(one)).hexdigest()[:24]}"
        if key not in known and len(known) < MOST_BESIDE:
            await store.put(key, msgspec.json.encode(one))
            known.add(key)


async def forget_beside(store: Store, stack: str) -> None:
    """The stack is gone. Its files stay where they are."""
    for key in await store.keys(f"{_BESIDE}{stack}/"):
        await store.delete(key)


async def warnings_of(store: Store, node: str) -> dict[str, list[str]]:
    """Stack -> a sentence for what was written, and where. ``node``: whose files can be looked at from here.

    An app that writes the same in each of its versions is told of it once.
    """
    found: dict[str, dict[tuple[str, str], list[str]]] = {}
    for key in await store.keys(_BESIDE):
        data = await store.get(key)
        if data is None:
            continue
        one = msgspec.json.decode(data, type=Beside)
        if one.node == node and not (Path(one.folder) / one.path).exists():
            continue  # somebody has taken care of it
        stack = key.removeprefix(_BESIDE).rpartition("/")[0]
        found.setdefault(stack, {}).setdefault((one.node, one.folder), []).append(one.path)
    return {stack: _warnings(of) for stack, of in found.items()}


def _warnings(found: dict[tuple[str, str], list[str]]) -> list[str]:
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (node, folder), paths in sorted(found.items()):
        alike.setdefault((node, tuple(sorted(paths))), []).append(folder)
    return [_warning(node, paths, folders) for (node, paths), folders in alike.items()]


def _warning(node: str, paths: tuple[str, ...], folders: list[str]) -> str:
    more = f" and {len(folders) - 1} more folders beside it" if len(folders) > 1 else ""
    return (
        f"written beside the code, where a new version does not find it: {listed(list(paths))}, in {folders[0]}{more} on {node}. "
        "It is kept; write to the working directory instead, which is app_dir"
    )
