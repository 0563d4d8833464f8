"""What a process prints while the disk of its log is full is lost, and nothing else: a request does not fail for a line of its log."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from serveconf.disk import is_full


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
