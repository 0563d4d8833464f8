"""What the commands remember between two calls: where the control API is, its token, and the Ray that was started here.

One file, ``$SERVECONF_HOME/cluster.json`` (default ``~/.serveconf``), readable by its owner alone.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from serveconf.private import home_path, write_private


class LocalRay(msgspec.Struct, frozen=True, kw_only=True):
    """The Ray that serveconf started: everything in the session of process ``pid`` is its own.

    ``started`` and ``mark`` tell that session from one that has its number later (``processes``).
    """

    pid: int
    address: str
    started: float = 0.0  # in seconds since the epoch
    mark: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True):
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
        return msgspec.json.decode((home_folder() / "cluster.json").read_bytes(), type=Record)
    except (FileNotFoundError, msgspec.DecodeError):
        return Record()


def write_record(record: Record) -> None:
    """Remember it."""
    write_private(home_folder() / "cluster.json", msgspec.json.encode(record))


def forget_record() -> None:
    """Remember nothing."""
    (home_folder() / "cluster.json").unlink(missing_ok=True)
