"""Output that may go away: a pipe whose reader has ended, a terminal that is closed or stopped.

What a long-running command says must never end it, nor keep it from ending. A thread of its own writes, so that nobody waits for
a reader that does not read; what can't be written is dropped.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

WAITING = 10_000  # pieces that may wait for a slow reader
LAST_S = 2.0  # for what is still to be written at the end


class LastingStream:
    """A text stream in place of ``stream``, for as long as the command runs."""

    errors = "replace"

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding or "utf-8"
        self._terminal = stream.isatty()
        self._file = stream.fileno()
        self._pieces: queue.Queue[bytes | None] = queue.Queue(WAITING)
        self._gone = False
        self._thread = threading.Thread(target=self._write, name="output", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Give it to the writer; what does not fit any more is lost."""
        if not isinstance(text, str):
            raise TypeError("text only")
        if text and not self._gone:
            with suppress(queue.Full):
                self._pieces.put_nowait(text.encode(self.encoding, "replace"))
        return len(text)

    def flush(self) -> None:
        """It is written soon."""

    def writable(self) -> bool:
        """It always takes text."""
        return True

    def isatty(self) -> bool:
        """Whether it was a terminal at the beginning."""
        return self._terminal

    def fileno(self) -> int:
        """The file below."""
        return self._file

    def end(self) -> None:
        """Write what there is, unless nobody takes it."""
        try:
            self._pieces.put(None, timeout=LAST_S)
        except queue.Full:
            return
        self._thread.join(LAST_S)

    def _write(self) -> None:
        while (piece := self._pieces.get()) is not None:
            while piece and not self._gone:
                try:
                    piece = piece[os.write(self._file, piece) :]
                except BlockingIOError:  # somebody who shares the terminal has set it so
                    threading.Event().wait(0.05)
                except OSError:
                    self._gone = True


@contextmanager
def lasting_output() -> Iterator[None]:
    """stdout and stderr, as they are, may go away from here on."""
    before = sys.stdout, sys.stderr
    lasting: list[LastingStream] = []
    try:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            try:
                stream.flush()
                # where both are one file, what is said stays in order
                same = next((one for one in lasting if os.path.sameopenfile(one.fileno(), stream.fileno())), None)
                made = same or LastingStream(stream)
            except (AttributeError, OSError, ValueError):  # closed, or no file at all, as in tests
                continue
            if same is None:
                lasting.append(made)
            setattr(sys, name, made)
        yield
    finally:
        for made in lasting:
            made.end()
        sys.stdout, sys.stderr = before
