"""``plan --drift``: what differs behind the back of the file that was applied, and nothing else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import typer

from serveconf.cli.common import Output, chosen, colors, print_json, width

if TYPE_CHECKING:
    from serveconf.spec.load import Loaded


def show_drift(loaded: Loaded, output: Output) -> bool:
    """Print it; whether there is any. Raises Unreachable and NotFound where the stack does not run."""
    from serveconf.launch import find

    client = find(chosen.address, chosen.token)
    stack = loaded.spec.name
    found: dict[str, Any] = client.drift(stack)
    notes = [*found.get("warnings", ()), *others_since(client.history(stack), str(loaded.file), found["base_revision"])]
    changed = bool(found["changed"] or notes)
    if output is Output.JSON:
        print_json({**found, "changed": changed, "warnings": notes})
        return changed
    from serveconf.cli.plan_view import render_plan

    if changed:
        typer.echo(render_plan(found, color=colors(), warnings=notes, width=width()).rpartition("\n")[0])
    where = f"Stack '{stack}' is as revision {found['base_revision']} left it."
    typer.echo(f"Drift of stack '{stack}' from revision {found['base_revision']}." if changed else f"No drift. {where}")
    return changed


def others_since(history: list[dict[str, Any]], file: str, current: int) -> list[str]:
    """Who has applied something else since this file was applied last; all that was applied, where it never was."""
    applied = [one for one in history if one["outcome"] == "applied" and one["revision"] <= current]
    notes = []
    for one in applied:  # the newest first
        if one["source"] and _is_same(one["source"], file):
            break
        source = one["source"] or "no file"
        notes.append(
            f"revision {one['revision']} came from {source} ({one['author']}, {one['time']}): {one['summary']}"
        )
    return notes


def _is_same(source: str, file: str) -> bool:
    return os.path.realpath(source) == os.path.realpath(file)
