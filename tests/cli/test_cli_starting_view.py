"""What is shown while Ray and the controller start: each thing once, on a terminal with the time that the last one takes."""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
from collections.abc import Iterator
from typing import TextIO

import pytest

from serveconf.cli.starting_view import StartingView

STEPS = ("no Ray cluster in reach: starting a local one", "starting the controller", "controller ready in 1.0 s")


class Terminal:
    """A real one, and what it has shown when it is closed."""

    shown = ""

    @contextlib.contextmanager
    def opened(self) -> Iterator[TextIO]:
        screen, side = os.openpty()
        try:
            with open(side, "w", encoding="utf-8") as stream:
                yield stream
                while select.select([screen], [], [], 0)[0]:
                    self.shown += os.read(screen, 65536).decode()
        finally:
            os.close(screen)

    def lasting(self) -> list[str]:
        """The lines that stay: not what was cleared, or drawn over."""
        rows, at = [""], 0
        for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.shown):
            match token:
                case "\n":
                    at += 1
                    rows += [""] * (at == len(rows))
                case "\x1b[1A":
                    at -= 1
                case "\x1b[2K":
                    rows[at] = ""
                case text if not text.startswith("\x1b"):
                    rows[at] += text
        return [row.strip() for row in rows if row.strip()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return Terminal()


@pytest.mark.parametrize("live", [False, True])
def test_each_thing_is_told_once_in_its_order(terminal: Terminal, live: bool) -> None:
    with terminal.opened() as stream, StartingView(stream, live=live) as view:
        for step in STEPS:
            view.tell(step)
    assert terminal.lasting() == list(STEPS)
    assert bool(re.search(r"\d\.\d s  no Ray", re.sub(r"\x1b\[[0-9;?]*m", "", terminal.shown))) is live


def test_the_changing_line_has_the_last_thing_and_its_time() -> None:
    with StartingView(io.StringIO(), live=True) as view:
        view.tell(STEPS[0])
        (line,) = view.lines()
    assert re.fullmatch(rf"\x1b\[2m\d+\.\d s\x1b\[0m  {STEPS[0]}", line)


@pytest.mark.parametrize("ends", [KeyboardInterrupt, OSError])
def test_the_terminal_is_as_it_was_whatever_ends_it(terminal: Terminal, ends: type[BaseException]) -> None:
    with terminal.opened() as stream, contextlib.suppress(ends), StartingView(stream, live=True) as view:
        view.tell(STEPS[0])
        raise ends
    assert terminal.lasting() == [STEPS[0]]
    assert terminal.shown.rfind("\x1b[?25h") > terminal.shown.rfind("\x1b[?25l") >= 0  # the cursor


def test_where_nothing_is_started_nothing_is_shown() -> None:
    stream = io.StringIO()
    with StartingView(stream, live=True):
        pass
    assert stream.getvalue() == ""
