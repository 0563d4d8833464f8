"""``promote`` and ``abort``: a canary is ended at once, one way or the other."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from serveconf.cli.apply import finish, watch_apply
from serveconf.cli.common import Output, OutputOption, chosen, errors_shown, print_json, tell
from serveconf.cli.look import StackOption, stack_meant

DeploymentArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="DEPLOYMENT", help="One that has a canary; the canaries of a stack go together.", show_default=False
    ),
]


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
