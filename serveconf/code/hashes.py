"""The contents of files, hashed once for as long as they are not written again: who takes many snapshots keeps one.

Whether a file was written is told by its inode, size and times. A clock has ticks: a file that was written a moment
before it was hashed may be written again within the same one, so such a hash is used once and not believed later.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serveconf.code.left_out import holds_key

_HEAD = 64 * 1024  # as much of a file as tells a spec by
_SPEC_KEY = re.compile(rb"^deployments\s*:", re.MULTILINE)
YOUNG_NS = 2_000_000_000  # two seconds: the coarsest clock of a file system in use
MOST = 200_000  # contents remembered; with more it begins anew

Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Content:
    """What was read of a file."""

    digest: str  # sha256, in hex
    size: int
    ours: bool  # ``is_ours``
    key: bool = False  # a private key


def stamp_of(found: os.stat_result) -> Stamp:
    """What differs when a file has been written to, or is another one."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Hashes:
    """Contents by path, each with the stamp that it was read at."""

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self._known: dict[str, tuple[Stamp, Content]] = {}

    def of(self, path: Path, stamp: Stamp) -> Content:
        """The content of the file, whose stamp was just taken. Raises OSError where it can't be read."""
        name = str(path)
        known = self._known.get(name)
        if known is not None and known[0] == stamp:
            return known[1]
        content = read_content(path)
        if len(self._known) >= MOST:
            self._known.clear()
        if stamp and self._now_ns() - max(stamp[-2:]) > YOUNG_NS:
            self._known[name] = (stamp, content)
        else:
            self._known.pop(name, None)
        return content

    def young(self, path: Path) -> bool:
        """Whether the file was written so lately that its hash is not believed yet."""
        return str(path) not in self._known


def read_content(path: Path) -> Content:
    """The file's content as it is now. Raises OSError."""
    with open(path, "rb") as stream:
        head = stream.read(_HEAD)
        ours, key = is_ours(path.name, head), holds_key(path.name, head)
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return Content(digest=digest, size=stream.tell(), ours=ours, key=key)


def is_ours(path: str, head: bytes) -> bool:
    """Whether a file is a spec or a saved plan: what is said to serveconf, and no part of what it serves.

    Several specs may share a folder; one of them, edited or applied after another, must not count as changed code.
    """
    if path.endswith((".yaml", ".yml")):
        return _SPEC_KEY.search(head) is not None
    return head.lstrip()[:1] == b"{" and b'"serveconf-plan-' in head[:200]
