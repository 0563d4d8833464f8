"""``status``: what is there. Also which stack a command is about, for all that look at or change one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from serveconf.cli.common import Output, chosen, colors, errors_shown, print_json, show, width
from serveconf.errors import AuthorError

if TYPE_CHECKING:
    from serveconf.client import Client


def stack_meant(client: Client, stack: str | None, *, deployments: Sequence[str] = ()) -> str:
    """The stack that a command is about: the named one, the only one there is, or the only one with these deployments.

    Raises AuthorError where several could be meant.
    """
    if stack is not None:
        return stack
    stacks: dict[str, set[str]] = {
        one["name"]: {d["name"] for d in one["deployments"]} for one in client.status()["stacks"]
    }
    fitting = [name for name, has in stacks.items() if has.issuperset(deployments)] if deployments else [*stacks]
    if len(fitting) == 1:
        return fitting[0]
    if len(stacks) <= 1:
        return next(iter(stacks), "default")
    raise AuthorError(
        f"there are {len(stacks)} stacks: {', '.join(stacks)}",
        hint="say which one is meant with --stack NAME",
        code="stack",
    )


def status(
    deployment: str | None = None,
    *,
    watch: bool = False,
    exit_code: bool = False,
    stack: str | None = None,
    output: Output = Output.TEXT,
) -> None:
    """Show what is there, once or until Ctrl-C."""
    from serveconf.launch import find

    with errors_shown(output):
        client = find(chosen.address, chosen.token)
        if watch and deployment is None and output is Output.TEXT and colors():
            from serveconf.cli.live_view import watch_status

            last = watch_status(client, stack)
            raise SystemExit(1 if exit_code and not is_healthy(last) else 0)
        while True:
            found, text = _looked_at(client, deployment, stack)
            if output is Output.JSON:
                print_json(found)
            else:
                if watch and colors():
                    print("\x1b[2J\x1b[H", end="")
                show(text)
            if not watch:
                break
            try:
                time.sleep(1.0)
            except KeyboardInterrupt:
                break
    healthy = found["state"] == "Healthy" if deployment is not None else is_healthy(found)
    raise SystemExit(1 if exit_code and not healthy else 0)


def _looked_at(client: Client, deployment: str | None, stack: str | None) -> tuple[dict[str, Any], str]:
    """The status, or one deployment of it, as data and as text."""
    if deployment is None:
        from serveconf.cli.status_view import render_status

        found: dict[str, Any] = client.status()
        if stack is not None:
            from serveconf.cli.deployment_view import find_stack

            found["stacks"] = [find_stack(found, stack)]
        return found, render_status(found, color=colors())
    from serveconf.cli.deployment_view import look_at_deployment, render_deployment

    one = look_at_deployment(client, stack_meant(client, stack, deployments=(deployment,)), deployment)
    return one, render_deployment(one, color=colors(), width=width())


def is_healthy(found: dict[str, Any]) -> bool:
    """Every stack serves as it was applied, every proxy is up at the generation, and Ray answers."""
    if found["controller"].get("silent_s") is not None:
        return False
    stacks = all(stack["state"] in ("Healthy", "Pinned", "RolledBack", "Invalid") for stack in found["stacks"])
    return stacks and all(p["state"] == "Ready" and p["generation"] == found["generation"] for p in found["proxies"])
