"""What changes a cluster by a name alone: ``rollback``, ``resume``, ``scale``, ``promote``, ``abort``, ``delete``, ``shutdown``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from serveconf.cli import scaling
from serveconf.cli.applying import finish, watch_apply
from serveconf.cli.common import Output, chosen, errors_shown, print_json, tell
from serveconf.cli.looking import stack_meant
from serveconf.cli.options import OutputOption, StackOption
from serveconf.errors import AuthorError

MOST_REPLICAS = 100_000  # as in spec/checks.py, which takes longer to import than the command

DeploymentArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="DEPLOYMENT", help="One that has a canary; the canaries of a stack go together.", show_default=False
    ),
]


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


def scale(
    deployment: Annotated[str, typer.Argument(help="The deployment.")],
    replicas: Annotated[int, typer.Argument(min=0, max=MOST_REPLICAS, help="How many replicas it should have.")],
    stack: StackOption = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until they are there.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait.")] = scaling.WAIT_S,
    output: OutputOption = Output.TEXT,
) -> None:
    """Set a deployment's number of replicas until the next apply; where it follows the load, within min and max."""
    scaling.scale(deployment, replicas, stack=stack, no_wait=no_wait, timeout_s=timeout, output=output)


def promote(
    deployment: DeploymentArgument = None, stack: StackOption = None, output: OutputOption = Output.TEXT
) -> None:
    """End a canary at once: all of the requests to the new version, whatever it answers."""
    with errors_shown(output):
        result = _end(stack, "promote", deployment)
    finish(result, output)


def abort(deployment: DeploymentArgument = None, stack: StackOption = None, output: OutputOption = Output.TEXT) -> None:
    """End a canary at once: all of the requests back to the old version. Its apply ends with 3, this command with 0."""
    with errors_shown(output):
        result = _end(stack, "abort", deployment)
    aborted = any(problem["code"] == "canary_aborted" for problem in result["problems"])
    if not aborted:
        finish(result, output)
    elif output is Output.JSON:
        print_json(result)
    else:
        tell(f"Stack {result['stack']} is as it was before.")


def _end(stack: str | None, verb: str, deployment: str | None) -> dict[str, Any]:
    from serveconf.launch import find

    client = find(chosen.address, chosen.token)
    name = stack_meant(client, stack, deployments=[deployment] if deployment else ())
    return watch_apply(client, client.begin(name, verb, {"deployment": deployment}), None)
