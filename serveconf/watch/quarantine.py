"""What was refused is remembered across restarts of the watcher, so that it is not tried again before its content changes.

One file, ``$SERVECONF_HOME/quarantine.json``: by control API and stack, the key of the content and why it was refused.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import msgspec

from serveconf.disk import DiskFull
from serveconf.home import home_folder
from serveconf.private import write_private

log = logging.getLogger("serveconf.watch")

MOST = 1_000
_LOCK = threading.Lock()  # each file that is followed has a thread of its own


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A content that does not work."""

    key: str
    why: str


def refused(address: str, stack: str) -> Refused | None:
    """What of that stack is in quarantine."""
    return _read().get(_name(address, stack))


def refuse(address: str, stack: str, key: str, why: str) -> None:
    """Put a content into quarantine, in place of the one that was there."""
    with _LOCK:
        known = _read()
        known.pop(_name(address, stack), None)
        known[_name(address, stack)] = Refused(key=key, why=why[:2_000])
        while len(known) > MOST:
            known.pop(next(iter(known)))
        _write(known)


def release(address: str, stack: str) -> None:
    """Something of that stack serves: nothing is in quarantine any more."""
    with _LOCK:
        known = _read()
        if known.pop(_name(address, stack), None) is not None:
            _write(known)


def _name(address: str, stack: str) -> str:
    return f"{address} {stack}"


def _file() -> Path:
    return home_folder() / "quarantine.json"


def _read() -> dict[str, Refused]:
    """Everything; nothing where it can't be read: then a bad content is tried once more, and that is all."""
    try:
        return msgspec.json.decode(_file().read_bytes(), type=dict[str, Refused])
    except (OSError, msgspec.DecodeError):
        return {}


def _write(known: dict[str, Refused]) -> None:
    try:
        write_private(_file(), msgspec.json.encode(known))
    except (DiskFull, OSError) as error:  # nobody may be able to write there: it is tried once more, and that is all
        log.warning("the quarantine can't be kept: %s", error)
