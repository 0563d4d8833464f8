"""``serveconf doctor``: what of this machine is in the way, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serveconf.cli.common import Output, chosen, colors, errors_shown, load, print_json
from serveconf.cli.options import OutputOption

if TYPE_CHECKING:
    from serveconf.doctor.checks import Finding

_DEFAULT = Path("serve.yaml")
_COLOURS = {"ok": "32", "warning": "33", "error": "31"}
_MARKS = {"ok": "ok", "warning": "warn", "error": "FAIL"}


def doctor(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", help="A spec, for the port that it wants; else serve.yaml.", show_default=False
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Look at Python, packages, memory, limits, ports, folders and what former runs have left, and say what to do.

    Changes nothing. Exit code 1: something is in the way.
    """
    from serveconf.doctor.checks import Grade, examine
    from serveconf.doctor.machine import look_at_machine

    with errors_shown(output):
        file = file or (_DEFAULT if _DEFAULT.is_file() else None)
        http = load(file, None).spec.http_options if file else None
        wanted = (http.host, http.port) if http else ("127.0.0.1", 8000)
        found = examine(look_at_machine(wanted, chosen.address))
    failed = any(finding.grade is Grade.ERROR for finding in found)
    if output is Output.JSON:
        print_json({"ok": not failed, "findings": [finding.as_json() for finding in found]})
    else:
        typer.echo(render(found, color=colors()))
    raise typer.Exit(1 if failed else 0)


def render(found: list[Finding], *, color: bool) -> str:
    """One line for each, and what to do below it."""
    width = max(len(finding.subject) for finding in found)
    lines = []
    for finding in found:
        mark = _MARKS[finding.grade].ljust(4)
        if color:
            mark = f"\x1b[{_COLOURS[finding.grade]}m{mark}\x1b[0m"
        lines.append(f"{mark}  {finding.subject:<{width}}  {finding.message}")
        if finding.hint:
            lines.append(f"      {'':<{width}}  → {finding.hint}")
    return "\n".join(lines)
