"""What apps wrote beside their modules: into an unpacked package, where the next version does not look.

Nothing of it is removed, and ``plan`` and ``status`` say where it lies. In the store, one key for each path, so that many
may add at once; ``cluster/writes`` adds what replicas are seen to write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from serveconf.code.package import listed
from serveconf.reconcile.ports import Store

MOST = 200  # paths of a stack: the warning names a few
_PREFIX = "beside/"


class Beside(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One file: on which node, in which unpacked package, by its relative path."""

    node: str
    folder: str
    path: str


async def add_beside(store: Store, stack: str, written: Iterable[Beside]) -> None:
    """These, too."""
    known = set(await store.keys(f"{_PREFIX}{stack}/"))
    for one in sorted(written):
        key = f"{_PREFIX}{stack}/{hashlib.sha256(msgspec.json.encode(one)).hexdigest()[:24]}"
        if key not in known and len(known) < MOST:
            await store.put(key, msgspec.json.encode(one))
            known.add(key)


async def forget_beside(store: Store, stack: str) -> None:
    """The stack is gone. Its files stay where they are."""
    for key in await store.keys(f"{_PREFIX}{stack}/"):
        await store.delete(key)


async def warnings_of(store: Store, node: str) -> dict[str, list[str]]:
    """Stack -> a sentence for what was written, and where. ``node``: whose files can be looked at from here.

    An app that writes the same in each of its versions is told of it once.
    """
    found: dict[str, dict[tuple[str, str], list[str]]] = {}
    for key in await store.keys(_PREFIX):
        data = await store.get(key)
        if data is None:
            continue
        one = msgspec.json.decode(data, type=Beside)
        if one.node == node and not (Path(one.folder) / one.path).exists():
            continue  # somebody has taken care of it
        stack = key.removeprefix(_PREFIX).rpartition("/")[0]
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
