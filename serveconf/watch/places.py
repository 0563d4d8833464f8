"""Where a change of a stack's files shows: folders, and in each either everything or a few names.

Folders are watched, not files: an editor renames over a file, a ConfigMap swaps a link, and both are news of the folder.
A link on the way to a file counts as the file does; a folder is watched from its parent too, so that it may vanish and
come back; where it is not there, the nearest folder that is says when that changes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from serveconf.code.ignore import never_belongs
from serveconf.code.left_out import is_volatile

EVERYTHING = "*"  # no entry of a folder is watched by this name: it would be found with all others
LINKS = 40  # followed at most, as the kernel does

Places = Mapping[str, frozenset[str]]


def places_of(files: Iterable[Path], app_dir: Path | None, folders: Iterable[str]) -> Places:
    """The places of the files, and of every one of ``folders``, which are relative to ``app_dir``."""
    places: dict[str, set[str]] = {}
    for file in files:
        _add_way(places, file)
    if app_dir is not None:
        _add_way(places, app_dir)
        for folder in folders:
            places.setdefault(os.path.join(app_dir, folder) if folder else str(app_dir), set()).add(EVERYTHING)
    return {folder: frozenset(names) for folder, names in merged_missing(places).items()}


def merged_missing(places: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Each folder that is not there is looked for in the nearest one that is."""
    found: dict[str, set[str]] = {}
    for folder, names in places.items():
        wanted, here = set(names), folder
        while not os.path.isdir(here) and os.path.dirname(here) != here:
            wanted, here = {os.path.basename(here)}, os.path.dirname(here)
        found.setdefault(here, set()).update(wanted)
    return found


def joined(many: Iterable[Places]) -> Places:
    """All of them as one."""
    places: dict[str, frozenset[str]] = {}
    for one in many:
        for folder, names in one.items():
            places[folder] = places.get(folder, frozenset()) | names
    return places


def is_news(places: Places, path: str) -> bool:
    """Whether a change of that path may be a change of what is watched."""
    folder, name = os.path.split(path)
    names = places.get(folder)
    if names is None:
        return path in places  # the folder itself: it has vanished, or another one took its place
    if name in names:
        return True
    own = not never_belongs(name, folder=False) or name.startswith("..")
    return EVERYTHING in names and own and name != "__pycache__" and not is_volatile(name)


def _add_way(places: dict[str, set[str]], path: Path) -> None:
    """The entry of the path, that of its folder, and every link that is followed to get there."""
    real = os.path.realpath(path)
    for one in (os.path.abspath(path), real):
        folder, name = os.path.split(one)
        places.setdefault(folder, set()).add(name)
        outer, inner = os.path.split(folder)
        if inner:
            places.setdefault(outer, set()).add(inner)
    _add_links(places, os.path.abspath(path))  # those that lead in a circle, too, which have no end that differs


def _add_links(places: dict[str, set[str]], path: str) -> None:
    rest = [part for part in reversed(path.split(os.sep)) if part]
    here, followed = os.sep, 0
    while rest and followed < LINKS:
        part = rest.pop()
        if part == os.pardir:
            here = os.path.dirname(here)
            continue
        one = os.path.join(here, part)
        if not os.path.islink(one):
            here = one
            continue
        places.setdefault(here, set()).add(part)
        followed += 1
        try:
            target = os.readlink(one)
        except OSError:
            return
        if os.path.isabs(target):
            here = os.sep
        rest += [piece for piece in reversed(target.split(os.sep)) if piece not in ("", os.curdir)]
