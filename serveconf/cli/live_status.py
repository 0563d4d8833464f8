"""``status --watch`` on a terminal: the live view, fed by the control API, past the end of one controller."""

from __future__ import annotations

import threading
from typing import Any

from serveconf.cli.live_screen import show_while
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
