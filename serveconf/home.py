"""What the commands remember between two calls: where the control API is, its token, and the Ray that was started here.

One file, ``$SERVECONF_HOME/cluster.json`` (default ``~/.serveconf``), readable by its owner alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serveconf.private import home_path, write_private


@dataclass(frozen=True, kw_only=True)
class LocalRay:
    """The Ray that serveconf started: everything in the session of process ``pid`` is its own.

    ``started`` and ``mark`` tell that session from one that has its number later (``processes``).
    """

    pid: int
    address: str
    started: float = 0.0  # in seconds since the epoch
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One cluster. ``ray`` is None where Ray was there before."""

    address: str = ""
    token: str = ""
    ray: LocalRay | None = None


def home_folder() -> Path:
    """The folder, made where it is missing (0700)."""
    folder = home_path()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def read_record() -> Record:
    """What was remembered; an empty record where there is none or it can't be read."""
    try:
        return _record(json.loads((home_folder() / "cluster.json").read_bytes()))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return Record()


def _record(said: Mapping[str, Any]) -> Record:
    """Raises what anything but such a record makes of it."""
    ray = said.get("ray")
    return Record(
        address=_text(said.get("address", "")),
        token=_text(said.get("token", "")),
        ray=LocalRay(
            pid=int(ray["pid"]),
            address=_text(ray["address"]),
            started=float(ray.get("started", 0.0)),
            mark=_text(ray.get("mark", "")),
        )
        if ray is not None
        else None,
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def write_record(record: Record) -> None:
    """Remember it."""
    write_private(home_folder() / "cluster.json", json.dumps(asdict(record)).encode())


def forget_record() -> None:
    """Remember nothing."""
    (home_folder() / "cluster.json").unlink(missing_ok=True)
