"""``serveconf logs``: what the replicas of a deployment write."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from serveconf.cli.common import Output, OutputOption, chosen, errors_shown, print_json
from serveconf.cli.look import StackOption, stack_meant


def logs(
    deployment: Annotated[str, typer.Argument(help="Name of the deployment.", show_default=False)],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written, until Ctrl-C.")] = False,
    tail: Annotated[int, typer.Option("--tail", min=0, help="Lines of each replica to begin with.")] = 100,
    stack: StackOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show what the replicas of a deployment write to stdout and stderr. JSON with --follow is one object a line."""
    from serveconf.launch import find

    with errors_shown(output):
        client = find(chosen.address, chosen.token)
        name = stack_meant(client, stack, deployments=(deployment,))
        lines = client.logs(name, deployment, tail=tail, follow=follow)
        if output is Output.JSON and not follow:
            print_json(list(lines))
            return
        try:
            for line in lines:
                typer.echo(json.dumps(line) if output is Output.JSON else f"{line['replica']}  {line['line']}")
        except KeyboardInterrupt:
            return
