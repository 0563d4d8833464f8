"""What a command shows while it starts what is missing: a line for each thing, and on a terminal how long the last one takes."""

from __future__ import annotations

import contextlib
import time
from types import TracebackType
from typing import TextIO

from serveconf.cli.apply_view import Live, start_live
from serveconf.cli.columns import paint, visible


class StartingView:
    """A context manager, so that the terminal is as it was when anything ends it. One that is told nothing shows nothing."""

    def __init__(self, stream: TextIO, *, live: bool) -> None:
        """``live``: ``stream`` is a terminal on which a line may change."""
        self._stream = stream
        self._wants_live = live
        self._live: Live | None = None
        self._last: str | None = None
        self._since = 0.0

    def __enter__(self) -> StartingView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            with contextlib.suppress(OSError):  # the terminal has gone; what was started is there all the same
                self._live.stop()
                self._print(visible(self._last or ""))
            self._live = None

    def tell(self, message: str) -> None:
        """The next thing has begun, so the last one has ended."""
        if not self._wants_live:
            self._print(message)
            return
        before, self._last, self._since = self._last, message, time.monotonic()
        if self._live is None:
            self._live = start_live(self._stream, self.lines, color=True)
        elif before is not None:
            self._live.write_above(visible(before))

    def lines(self) -> list[str]:
        """What the changing line says at this moment."""
        return [f"{paint(f'{time.monotonic() - self._since:.1f} s', dim=True, on=True)}  {visible(self._last or '')}"]

    def _print(self, message: str) -> None:
        self._stream.write(message + "\n")
        self._stream.flush()
