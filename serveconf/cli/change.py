"""``delete``, ``rollback``, ``resume`` and ``shutdown``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from serveconf.cli.apply import finish, watch_apply
from serveconf.cli.common import Output, OutputOption, chosen, errors_shown, print_json, tell
from serveconf.cli.look import StackOption, stack_meant
from serveconf.errors import AuthorError


def delete(
    deployments: Annotated[
        list[str] | None, typer.Argument(metavar="DEPLOYMENT...", help="Deployments to take away.", show_default=False)
    ] = None,
    stack: Annotated[
        str | None, typer.Option("--stack", help="The stack they are in; without deployments: the whole stack.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Take deployments, or a whole stack, away. What was begun is finished first."""
    with errors_shown(output):
        if not deployments and stack is None:
            raise AuthorError("say which deployments to delete, or --stack NAME for a whole stack")
        result = _change(stack, "delete", {"deployments": deployments or None})
    finish(result, output)


def rollback(
    revision: Annotated[
        int | None, typer.Argument(help="Revision to go back to.", show_default="the one before")
    ] = None,
    stack: StackOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Go back to an earlier revision and pin it: watchers leave it alone until 'resume' or an apply by hand."""
    with errors_shown(output):
        result = _change(stack, "rollback", {"revision": revision})
    finish(result, output)


def resume(stack: StackOption = None, output: OutputOption = Output.TEXT) -> None:
    """End the pin that a rollback leaves."""
    from serveconf.launch import find

    with errors_shown(output):
        client = find(chosen.address, chosen.token)
        name = stack_meant(client, stack)
        client.resume(name)
    if output is Output.JSON:
        print_json({"stack": name, "pinned": False})
    else:
        typer.echo(f"Stack {name} is pinned no longer.")


def shutdown(output: OutputOption = Output.TEXT) -> None:
    """Stop proxies, replicas and the controller, and the Ray that apply or run started."""
    from serveconf.launch import shut_down

    with errors_shown(output):
        stopped = shut_down(chosen.address, chosen.token, tell)
    if output is Output.JSON:
        print_json({"stopped": stopped})
    else:
        typer.echo("Stopped." if stopped else "Nothing was running.")


def _change(stack: str | None, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    from serveconf.client import author
    from serveconf.launch import find

    client = find(chosen.address, chosen.token)
    name = stack_meant(client, stack, deployments=body.get("deployments") or ())
    operation = client.begin(name, verb, {**body, "author": author()})
    return watch_apply(client, operation, None)
