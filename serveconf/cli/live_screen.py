"""A full screen that keeps changing while something is read: rich on the terminal's other screen, so nothing is left of it."""

from __future__ import annotations

import sys
from collections.abc import Callable


def show_while(lines: Callable[[int, int], list[str]], work: Callable[[], None], *, color: bool) -> None:
    """Show what ``lines`` says for a screen of that height and width, four times a second, until ``work`` returns or Ctrl-C."""
    from rich.console import Console, Group  # takes too long to import for a command that shows nothing live
    from rich.live import Live
    from rich.text import Text

    console = Console(file=sys.stdout, no_color=not color, highlight=False, markup=False)

    def picture() -> Group:
        shown = lines(console.size.height - 1, console.size.width)
        return Group(*(Text.from_ansi(line, no_wrap=True, overflow="ellipsis") for line in shown))

    with Live(get_renderable=picture, console=console, screen=True, refresh_per_second=4, redirect_stderr=False):
        try:
            work()
        except KeyboardInterrupt:
            return
