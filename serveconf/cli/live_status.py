"""``status --watch`` on a terminal: the live view, fed by the control API, past the end of one controller."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from serveconf.cli.live_view import LiveStatus
from serveconf.client import Client
from serveconf.errors import Unreachable

COMES_BACK_S = 60.0


def watch_status(client: Client, stack: str | None) -> dict[str, Any]:
    """Show it until Ctrl-C; the last status. Raises Unreachable where the controller does not come back."""
    view = LiveStatus(stack=stack, color=True)
    view.status = client.status()
    threading.Thread(target=_follow_events, args=(client, view, stack), daemon=True).start()
    show_while(view.lines, lambda: _follow(client, view), color=True)
    return view.status


def _follow(client: Client, view: LiveStatus) -> None:
    while True:
        try:
            for kind, data in client.live():
                view.take(kind, data)
        except Unreachable:
            pass  # it has ended; the next one tells the same
        view.connected = False
        if not client.comes_back(COMES_BACK_S):
            raise Unreachable(f"the control API at {client.address} does not come back")


def _follow_events(client: Client, view: LiveStatus, stack: str | None) -> None:
    from serveconf.cli.events import followed

    try:
        for event in followed(client, stack, None, tell=lambda message: None):
            view.events.take(event)
    except Unreachable:
        return  # the view says so


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
