"""The files that what a command says ends up in: ``run > out.txt``, ``run 2>&1 | tee log``.

Below an app_dir they would count as code: each line that is said would roll what it speaks of, which is said in turn. A pipe is
followed to who reads it, as proc(5) tells; where there is no /proc, or somebody else reads, only what is written to directly is known.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from serveconf.errors import OperatorError
from serveconf.private import note_own_file

_FLAGS = re.compile(r"^flags:\s+([0-7]+)$", re.MULTILINE)


def note_own_output() -> None:
    """Have every command that has the same home know of them. Best effort: at worst they are code."""
    for file in output_files():
        with suppress(OSError, OperatorError):  # a container may have a home that nobody writes to
            note_own_file(file)


def output_files(descriptors: tuple[int, ...] = (1, 2)) -> frozenset[Path]:
    """The regular files that hold, in the end, what is written to these descriptors of ours."""
    if sys.platform != "linux":
        return frozenset()
    me = _ends_of(Path("/proc/self"), descriptors)
    files, ahead = set(me.files), set(me.written)
    others = [_ends_of(folder) for folder in Path("/proc").iterdir() if ahead and folder.name.isdigit()]
    seen: set[str] = set()
    while ahead:
        pipe = ahead.pop()
        seen.add(pipe)
        for reader in others:
            if pipe in reader.read:
                files |= reader.files
                ahead |= reader.written - seen
    return frozenset(files)


@dataclass(kw_only=True)
class _Ends:
    """What one process has open: pipes, by the names that the kernel gives them, and files that it writes."""

    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    files: set[Path] = field(default_factory=set)


def _ends_of(process: Path, descriptors: tuple[int, ...] | None = None) -> _Ends:
    ends = _Ends()
    for name in _names(process) if descriptors is None else map(str, descriptors):
        with suppress(OSError):  # it has just been closed, or is not ours to look at
            target = os.readlink(process / "fd" / name)
            flags = _FLAGS.search((process / "fdinfo" / name).read_text())
            writes = flags is not None and int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY
            if target.startswith("pipe:"):
                (ends.written if writes else ends.read).add(target)
            elif writes and _is_there((process / "fd" / name).stat()):
                ends.files.add(Path(target))
    return ends


def _is_there(file: os.stat_result) -> bool:
    """A regular file that still has a name."""
    return stat.S_ISREG(file.st_mode) and file.st_nlink > 0


def _names(process: Path) -> Iterator[str]:
    with suppress(OSError):
        yield from os.listdir(process / "fd")
