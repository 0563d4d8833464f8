"""``serveconf dashboard``: an address that signs a browser in, once."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from serveconf.cli.common import Output, chosen, errors_shown, print_json
from serveconf.cli.options import OutputOption


def dashboard(
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser of this machine.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print an address that signs a browser in to the dashboard; it works once, within five minutes."""
    from serveconf.launch import find

    with errors_shown(output):
        address = find(chosen.address, chosen.token).invite()
    if output is Output.JSON:
        print_json({"address": address})
    else:
        typer.echo(address)
    if open_it:
        webbrowser.open(address)
