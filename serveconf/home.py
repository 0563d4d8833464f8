"""What the commands remember between two calls: where the control API is, its token, and the Ray that was started here.

One file, ``$SERVECONF_HOME/cluster.json`` (default ``~/.serveconf``), readable by its owner alone.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec


class LocalRay(msgspec.Struct, frozen=True, kw_only=True):
    """The Ray that serveconf started: everything in the session of process ``pid`` is its own."""

    pid: int
    address: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster. ``ray`` is None where Ray was there before."""

    address: str = ""
    token: str = ""
    ray: LocalRay | None = None


def home_folder() -> Path:
    """The folder, made where it is missing (0700)."""
    folder = Path(os.environ.get("SERVECONF_HOME") or Path.home() / ".serveconf")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def read_record() -> Record:
    """What was remembered; an empty record where there is none or it can't be read."""
    try:
        return msgspec.json.decode((home_folder() / "cluster.json").read_bytes(), type=Record)
    except (FileNotFoundError, msgspec.DecodeError):
        return Record()


def write_record(record: Record) -> None:
    """Remember it: written beside and moved over, so that a reader never sees half of it."""
    path = home_folder() / "cluster.json"
    new = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(record))
    new.replace(path)


def forget_record() -> None:
    """Remember nothing."""
    (home_folder() / "cluster.json").unlink(missing_ok=True)
