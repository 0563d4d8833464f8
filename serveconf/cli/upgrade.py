"""``upgrade``: the controller, then the proxies, then the replicas, to the version of this command."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serveconf import __version__
from serveconf.cli.applying import finish
from serveconf.cli.common import Output, chosen, errors_shown, print_json, tell
from serveconf.cli.options import OutputOption

if TYPE_CHECKING:
    from serveconf.client import Client

BACK_S = 60.0  # for the controller to be there again
LOOK_S = 0.2
OLD = "another version"


def upgrade(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be replaced.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Bring a running controller, its proxies and replicas to the version of this command, with no request lost.

    The new version must be installed on every node first, in the environment that Ray's workers start from.
    """
    from serveconf.launch import find
    from serveconf.submit import follow

    with errors_shown(output):
        client = find(chosen.address, chosen.token, upgrades=True)
        actions = to_replace(client.status())
        for action in actions:
            tell(_line(action))
        if dry_run or not actions:
            result = _result("unchanged", actions if dry_run else [])
        else:
            first = [action for action in actions if action["action"] == "controller"]
            if first:
                _replace_controller(client)
            result = follow(client, client.upgrade(__version__), _tell_event)
            result["actions"] = [*first, *result["actions"]]
            if first and result["outcome"] == "unchanged":
                result["outcome"] = "applied"
            result["changed"] = bool(result["actions"])
        if output is Output.TEXT:
            typer.echo(_said(result, dry_run=dry_run))
    if dry_run:
        if output is Output.JSON:
            print_json({"changed": bool(actions), "actions": actions})
        return
    finish(result, output)


def to_replace(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What of a running system is of another version than this command, in the order in which it is replaced."""
    found = []
    controller = status["controller"].get("serveconf", "")
    if controller != __version__:
        found.append(_action("controller", None, "none", controller, 1))
    proxies = Counter(p.get("serveconf", "") for p in status["proxies"] if p["state"] not in ("Draining", "Starting"))
    found += [_action("proxy", None, "proxy", old, n) for old, n in sorted(proxies.items()) if old != __version__]
    for stack in status["stacks"]:
        for deployment in stack["deployments"]:
            live = [r for r in deployment["replicas"] if r["state"] in ("Ready", "Unhealthy")]
            replicas = Counter(r.get("serveconf", "") for r in live)
            name = deployment["name"]
            found += [
                {**_action("roll", name, "roll", old, n), "stack": stack["name"]}
                for old, n in sorted(replicas.items())
                if old != __version__
            ]
    return found


def _action(action: str, deployment: str | None, cost: str, old: str, number: int) -> dict[str, Any]:
    return {
        "action": action,
        "deployment": deployment,
        "cost": cost,
        "reason": "upgrade",
        "before": {"serveconf": old or OLD, "processes": number},
        "after": {"serveconf": __version__},
    }


def _line(action: dict[str, Any]) -> str:
    """``~ roll   shop/web: 3 processes, serveconf 0.1.0 -> 0.2.0``."""
    where = f" {action['stack']}/{action['deployment']}" if action["deployment"] else ""
    number = action["before"]["processes"]
    processes = f"{number} process{'es' if number != 1 else ''}"
    return f"  ~ {action['action']}{where}: {processes}, serveconf {action['before']['serveconf']} -> {__version__}"


def _replace_controller(client: Client) -> None:
    """It ends and comes back as the new one; what runs goes on meanwhile. Raises OperatorError where it does not."""
    from serveconf.errors import OperatorError

    tell("replacing the controller")
    client.upgrade_controller(__version__)
    deadline = time.monotonic() + BACK_S
    while not client.healthy() or client.speaker.version != __version__:
        if time.monotonic() > deadline:
            raise OperatorError(
                f"the controller has not come back as serveconf {__version__} within {BACK_S:g} s",
                hint="what serves goes on; 'serveconf logs --controller' or Ray's log has why",
                code="upgrade_failed",
            )
        time.sleep(LOOK_S)


def _tell_event(event: dict[str, Any]) -> None:
    if event["event"] in ("phase", "log"):
        tell(event["message"])


def _result(outcome: str, actions: list[dict[str, Any]]) -> dict[str, Any]:
    from serveconf.reconcile.result import make_result

    return make_result("", outcome=outcome, changed=bool(actions), actions=actions)


def _said(result: dict[str, Any], *, dry_run: bool) -> str:
    if dry_run:
        return "Nothing was changed." if result["actions"] else f"Everything runs serveconf {__version__}."
    if result["outcome"] == "unchanged":
        return f"Unchanged: everything runs serveconf {__version__}."
    receipt = result["receipt"]
    counts = f"{receipt['requests']} requests meanwhile, {receipt['failed']} failed, longest gap {receipt['max_gap_ms']:g} ms"
    if result["outcome"] == "applied":
        return f"Upgraded to serveconf {__version__} in {receipt['duration_s']:.1f} s; {counts}."
    lines = [f"error: {problem['message']}" for problem in result["problems"]]
    lines += [f"  hint: {problem['hint']}" for problem in result["problems"] if problem["hint"]]
    kept = "What could not be replaced goes on as it was; 'serveconf upgrade' goes on from there."
    return "\n".join([*lines, kept, counts])
