"""Which spec files there are: those that were named, and in a folder each YAML file that no other one includes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from serveconf.watch.places import EVERYTHING, Places

ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True, kw_only=True)
class Found:
    """The spec files, those folders that can't be read just now with why, and where to watch for more."""

    files: tuple[Path, ...]
    missing: tuple[str, ...] = ()
    places: Places = field(default_factory=dict)


def find_specs(sources: Sequence[Path]) -> Found:
    """What the sources, files and folders, hold now. A file that is named counts whether it is there or not."""
    files: dict[Path, None] = {}
    missing: list[str] = []
    places: dict[str, frozenset[str]] = {}
    for source in sources:
        path = Path(os.path.abspath(source))
        parent = str(path.parent)
        places[parent] = places.get(parent, frozenset()) | {path.name}
        if not _is_folder(source, path):
            files[path] = None
            continue
        places[str(path)] = frozenset({EVERYTHING})
        try:
            names = sorted(os.listdir(path))
        except OSError as error:
            missing.append(f"{source}: {error.strerror}")
            continue
        files |= dict.fromkeys(path / name for name in names if is_spec_name(name) and (path / name).is_file())
    return Found(files=tuple(files), missing=tuple(missing), places=places)


def is_spec_name(name: str) -> bool:
    """Whether a file of a folder is one of its specs, going by its name."""
    return name.endswith(ENDINGS) and not name.startswith(".")


def _is_folder(source: Path, path: Path) -> bool:
    """What ended with YAML's name is a file also while it is gone; a folder that is gone was a folder."""
    return path.is_dir() or (not path.exists() and not source.name.endswith(ENDINGS))


def without_included(files: Iterable[Path], included: Iterable[Path]) -> list[Path]:
    """The files that are specs of their own."""
    parts = {os.path.realpath(path) for path in included}
    return [file for file in files if os.path.realpath(file) not in parts]
