"""``serveconf logs``: what replicas, proxies and the controller write."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from serveconf.cli.columns import Color, paint
from serveconf.cli.common import Output, chosen, colors, errors_shown, print_json
from serveconf.cli.looking import stack_meant
from serveconf.cli.options import OutputOption, StackOption
from serveconf.errors import AuthorError

TAIL = 100
SEARCHED = 10_000  # lines of each process that --since and --grep look at, where --tail says nothing
PALETTE: tuple[Color, ...] = ("cyan", "green", "yellow", "magenta", "blue", "bright_red")

Row = dict[str, Any]


def logs(
    deployment: Annotated[
        str | None, typer.Argument(metavar="[DEPLOYMENT]", help="Name of the deployment.", show_default=False)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written, until Ctrl-C.")] = False,
    tail: Annotated[
        int | None,
        typer.Option("--tail", min=0, help="Lines of each process to begin with; 100, or all with --since or --grep."),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Only what is newer: 10m, 2h, or a time like 2026-01-31T08:00.")
    ] = None,
    grep: Annotated[str | None, typer.Option("--grep", help="Only lines in which this regular expression is.")] = None,
    previous: Annotated[bool, typer.Option("--previous", "-p", help="Of the replica that died last.")] = False,
    proxy: Annotated[bool, typer.Option("--proxy", help="Of the proxies, with their access log.")] = False,
    controller: Annotated[bool, typer.Option("--controller", help="Of the controller.")] = False,
    stack: StackOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show what the replicas of a deployment write, or the proxies, or the controller.

    Lines of several processes are merged by the times that they say; one without belongs to the one before it. JSON with
    --follow is one object a line.
    """
    from serveconf.launch import find

    if sum((deployment is not None, proxy, controller)) != 1:
        raise typer.BadParameter("name a deployment, or say --proxy or --controller")
    if previous and (deployment is None or follow):
        raise typer.BadParameter("--previous is of a deployment, and nothing more comes to it", param_hint="--previous")
    with errors_shown(output, one_line=follow):
        wanted = Wanted(since, grep)
        lines = tail if tail is not None else SEARCHED if since or grep else TAIL
        client = find(chosen.address, chosen.token)
        if deployment is None:
            rows = client.own_logs("proxies" if proxy else "controller", tail=lines, follow=follow)
        else:
            name = stack_meant(client, stack, deployments=(deployment,))
            rows = client.logs(name, deployment, tail=lines, follow=follow, previous=previous)
        shown = (row for row in rows if wanted.has(row))
        if output is Output.JSON and not follow:
            print_json(list(shown))
            return
        try:
            _show(shown, output)
        except KeyboardInterrupt:
            return


def _show(rows: Iterator[Row], output: Output) -> None:
    view = LinesView(color=colors())
    for row in rows:
        typer.echo(json.dumps(row) if output is Output.JSON else view.line(row))


class Wanted:
    """Which lines are asked for. One of which no time is known is not held back by it."""

    def __init__(self, since: str | None, grep: str | None) -> None:
        """Raises AuthorError for a time or an expression that is none."""
        from serveconf.cli.options import read_since

        self._since = read_since(since, datetime.datetime.now(datetime.UTC)) if since else None
        try:
            self._grep = re.compile(grep) if grep else None
        except re.error as error:
            raise AuthorError(f"'{grep}' is no regular expression: {error}", code="grep") from error

    def has(self, row: Row) -> bool:
        """Whether the line is one of them."""
        if self._since is not None and row.get("time") and datetime.datetime.fromisoformat(row["time"]) < self._since:
            return False
        return self._grep is None or self._grep.search(row["line"]) is not None


class LinesView:
    """Lines for people: each process has a colour, the same as long as the command runs."""

    def __init__(self, *, color: bool = False) -> None:
        self._color = color
        self._known: dict[str, Color] = {}

    def line(self, row: Row) -> str:
        """``shop.web.4f2a91c0.1a2b3c  the line``."""
        who = row.get("replica") or row.get("process") or ""
        hue = self._known.setdefault(who, PALETTE[len(self._known) % len(PALETTE)])
        return f"{paint(who, hue, on=self._color)}  {row['line']}"
