"""``status``, ``routes`` and ``history``: what is there, and how it came to be."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from serveconf.cli import looking
from serveconf.cli.common import Output, chosen, colors, errors_shown, print_json, show, width
from serveconf.cli.looking import stack_meant
from serveconf.cli.options import OutputOption, StackOption


def status(
    deployment: Annotated[
        str | None, typer.Argument(metavar="[DEPLOYMENT]", help="Show this one in full.", show_default=False)
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every second, until Ctrl-C.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 where something is not healthy.")] = False,
    stack: StackOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show stacks, deployments, replicas and proxies, their states and the generation.

    Of one deployment also what its spec says, and its restarts and events of the last hour.
    """
    looking.status(deployment, watch=watch, exit_code=exit_code, stack=stack, output=output)


TestOption = Annotated[
    str | None,
    typer.Option(
        "--test", metavar="'[METHOD] URL'", help="Say who would take this request, and why.", show_default=False
    ),
]
HeaderOption = Annotated[
    list[str] | None,
    typer.Option("-H", "--header", metavar="'NAME: VALUE'", help="A header of that request; may be repeated."),
]


def routes(test: TestOption = None, header: HeaderOption = None, output: OutputOption = Output.TEXT) -> None:
    """Show the live routing table, or who would take a request."""
    from serveconf.cli.status_view import render_routes, render_verdict
    from serveconf.launch import find

    if header and test is None:
        raise typer.BadParameter("a header belongs to --test")
    if nameless := [one for one in header or () if ":" not in one.strip()[1:]]:
        raise typer.BadParameter(f"'{nameless[0]}' is no header: write 'NAME: VALUE'")
    with errors_shown(output):
        client = find(chosen.address, chosen.token)
        if test is not None:
            method, blank, url = test.strip().rpartition(" ")
            verdict = client.test_route(method.strip().upper() if blank else "GET", url, header or ())
            if output is Output.JSON:
                print_json(verdict)
            else:
                show(render_verdict(verdict, color=colors()))
            return
        found = client.routes()
    if output is Output.JSON:
        print_json(found)
    else:
        show(render_routes(found, color=colors()))


def history(
    revision: Annotated[int | None, typer.Argument(help="Show this revision in full.", show_default=False)] = None,
    stack: StackOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show the revisions of a stack, or one of them with its spec."""
    from serveconf.cli.status_view import render_history, render_revision
    from serveconf.launch import find

    with errors_shown(output):
        client = find(chosen.address, chosen.token)
        name = stack_meant(client, stack)
        found: Any = client.history(name) if revision is None else client.revision(name, revision)
    if output is Output.JSON:
        print_json(found)
    else:
        show(render_history(found, width=width()) if revision is None else render_revision(found))
