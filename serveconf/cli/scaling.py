"""``serveconf scale``: set a number of replicas, and wait until they are there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from serveconf.cli.common import Output, chosen, errors_shown, print_json, show
from serveconf.cli.looking import stack_meant
from serveconf.errors import Unreachable

if TYPE_CHECKING:
    from serveconf.client import Client

LOOK_S = 0.2
DEADLINE = 5  # exit code, as apply's
WAIT_S = 300.0


def scale(
    deployment: str,
    replicas: int,
    *,
    stack: str | None = None,
    no_wait: bool = False,
    timeout_s: float = WAIT_S,
    output: Output = Output.TEXT,
) -> None:
    """Set the number; ends with ``DEADLINE`` where they are not there in time."""
    from serveconf.launch import find

    with errors_shown(output):
        client = find(chosen.address, chosen.token)
        name = stack_meant(client, stack, deployments=(deployment,))
        found = client.scale(name, deployment, replicas)
        ready = _wait(client, name, deployment, replicas, 0 if no_wait else timeout_s)
    if output is Output.JSON:
        print_json({**found, "ready": ready})
    else:
        show(f"{deployment}: {found['before']} -> {replicas} replicas, {ready} ready.")
    raise SystemExit(0 if no_wait or ready == replicas else DEADLINE)


def _wait(client: Client, stack: str, deployment: str, replicas: int, timeout_s: float) -> int:
    """How many are ready, once they are as many as they should be, or past the time."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            ready = _ready(client.status(load=False), stack, deployment)
        except Unreachable:  # what it was told it goes on with when it is back
            if not client.comes_back(max(0.0, deadline - time.monotonic())):
                raise
        else:
            if ready == replicas or time.monotonic() >= deadline:
                return ready
        time.sleep(LOOK_S)


def _ready(status: dict[str, Any], stack: str, deployment: str) -> int:
    stacks = {one["name"]: one for one in status["stacks"]}
    found = {one["name"]: one for one in stacks.get(stack, {}).get("deployments", ())}
    return [one["state"] for one in found.get(deployment, {}).get("replicas", ())].count("Ready")
