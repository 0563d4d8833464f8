"""Whose line is it, in a process that several deployments share: each begins with ``[NAME]`` of the one that wrote it.

The process writes through ``mark_lines``, its log is read through ``lines_of``. What a thread writes that no request and no
start has begun belongs to nobody, and is shown to all.

What is printed while the disk of the log is full is lost, and nothing else: a request does not fail for a line of its log.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from serveconf.disk import is_full
from serveconf.runtime.context import the_room

_MARK = re.compile(r"\[([A-Za-z0-9][\w.-]*)\] ")


class MarkedLines:
    """A text stream in front of another one. Everything but writing is that one's."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begun: dict[str, str] = {}  # by deployment: what of its line is there

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Whole lines are passed on; the rest of one waits for its end."""
        room = the_room()
        if room is None:
            return self._stream.write(text)
        name = room.name
        *lines, rest = (self._begun.get(name, "") + text).split("\n")
        self._begun[name] = rest
        if lines:
            self._stream.write("".join(f"[{name}] {line}\n" for line in lines))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Each as ``write`` does."""
        for line in lines:
            self.write(line)


def mark_lines() -> None:
    """From now on this process's lines say whose they are."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, MarkedLines):
            setattr(sys, name, MarkedLines(stream))


def lines_of(deployment: str, lines: Iterable[str]) -> Iterator[str]:
    """Those of one deployment, without its mark, and those of nobody."""
    for line in lines:
        mark = _MARK.match(line)
        if mark is None:
            yield line
        elif mark[1] == deployment:
            yield line[mark.end() :]


class PatientStream:
    """A text stream in front of another one. Everything but writing is that one's."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost = 0  # writes, since there was room last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Where there is room again, how much was lost is said first."""
        try:
            if self.lost:
                self._stream.write(f"serveconf: {self.lost} lines of this log were lost, its disk was full\n")
                self._stream.flush()
                self.lost = 0
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Each as ``write`` does."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """What has no room is lost."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        if not is_full(error):
            raise error
        self.lost += 1


def be_patient() -> None:
    """From now on with this process's output."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, PatientStream):
            setattr(sys, name, PatientStream(stream))
