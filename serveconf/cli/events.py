"""``serveconf events``: what was done, and what the system did by itself, with why."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from serveconf.cli.common import Output, chosen, colors, errors_shown, print_json, tell, width
from serveconf.cli.options import OutputOption
from serveconf.client import Client
from serveconf.errors import Unreachable

COMES_BACK_S = 60.0
LEFT_BEHIND = 20  # lines of the live view, when it has ended


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")] = False,
    stack: Annotated[str | None, typer.Option("--stack", help="Only events of this stack.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Only what is newer: 10m, 2h, or a time like 2026-01-31T08:00.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show what was done and what the system did by itself, with why. JSON with --follow is one object a line."""
    from serveconf.cli.columns import folded
    from serveconf.cli.events_view import HANG, render_event
    from serveconf.cli.options import read_since
    from serveconf.launch import find

    with errors_shown(output, one_line=follow):
        begin = read_since(since, datetime.datetime.now(datetime.UTC)).isoformat() if since else None
        client = find(chosen.address, chosen.token)
        if not follow:
            found = client.recent_events(stack=stack, since=begin)
            if output is Output.JSON:
                print_json(found)
            else:
                lines = [line for e in found for line in folded(render_event(e, color=colors()), width(), HANG)]
                typer.echo("\n".join(lines) or "No events.")
            return
        if output is Output.TEXT and colors():
            _show_live(followed(client, stack, begin))
            return
        try:
            for event in followed(client, stack, begin):
                typer.echo(json.dumps(event) if output is Output.JSON else render_event(event, color=colors()))
        except KeyboardInterrupt:
            return


def _show_live(events: Iterator[dict[str, Any]]) -> None:
    """On a screen of its own, where repeats are counted up in place; what it showed last stays when it ends."""
    from serveconf.cli.events_view import EventList
    from serveconf.cli.live_view import show_while

    shown = EventList()

    def follow() -> None:
        for event in events:
            shown.take(event)

    def lines(height: int, width: int) -> list[str]:
        return shown.lines(height, color=True, width=width) or ["No events yet."]

    show_while(lines, follow, color=True)
    typer.echo("\n".join(shown.lines(LEFT_BEHIND, color=True, width=width())))


def followed(
    client: Client, stack: str | None, since: str | None, tell: Callable[[str], None] = tell
) -> Iterator[dict[str, Any]]:
    """Every event, also past the end of the controller that tells them: the next one knows what the last one knew."""
    told: set[str] = set()  # of the newest time: what is asked for again from there comes once
    while True:
        try:
            for event in client.follow_events(stack=stack, since=since):
                line = json.dumps(event)
                if line in told:
                    continue
                told = told | {line} if event["time"] == since else {line}
                since = event["time"]
                yield event
        except Unreachable as error:
            tell(f"{error.message}; waiting for it")
        if not client.comes_back(COMES_BACK_S):
            raise Unreachable(f"the control API at {client.address} does not come back")
