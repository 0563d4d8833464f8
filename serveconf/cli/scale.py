"""``scale``: a number of replicas by hand."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from serveconf.cli.common import Output, OutputOption, chosen, errors_shown, print_json
from serveconf.cli.look import StackOption, stack_meant

LOOK_S = 0.2
DEADLINE = 5  # exit code, as apply's


def scale(
    deployment: Annotated[str, typer.Argument(help="The deployment.")],
    replicas: Annotated[int, typer.Argument(min=0, help="How many replicas it should have.")],
    stack: StackOption = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until they are there.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait.")] = 300.0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Set a deployment's number of replicas until the next apply; where it follows the load, within min and max."""
    from serveconf.launch import find

    with errors_shown(output):
        client = find(chosen.address, chosen.token)
        name = stack_meant(client, stack, deployments=(deployment,))
        found = client.scale(name, deployment, replicas)
        ready = _wait(client, name, deployment, replicas, 0 if no_wait else timeout)
    if output is Output.JSON:
        print_json({**found, "ready": ready})
    else:
        typer.echo(f"{deployment}: {found['before']} -> {replicas} replicas, {ready} ready.")
    raise typer.Exit(0 if no_wait or ready == replicas else DEADLINE)


def _wait(client: Any, stack: str, deployment: str, replicas: int, timeout_s: float) -> int:
    """How many are ready, once they are as many as they should be, or past the time."""
    deadline = time.monotonic() + timeout_s
    while True:
        stacks = {one["name"]: one for one in client.status()["stacks"]}
        found = {one["name"]: one for one in stacks.get(stack, {}).get("deployments", ())}
        states = [one["state"] for one in found.get(deployment, {}).get("replicas", ())]
        ready = states.count("Ready")
        if ready == replicas or time.monotonic() >= deadline:
            return ready
        time.sleep(LOOK_S)
