"""``serveconf plan`` and ``serveconf apply``: how they are given. What they do is in ``applying``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serveconf.cli import applying
from serveconf.cli.common import Report
from serveconf.cli.options import EnvFileOption, ReportOption, SpecArgument


def plan(
    file: SpecArgument,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 2 where there are changes.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Save the plan to this file, for 'apply' to take.")] = None,
    drift: Annotated[
        bool, typer.Option("--drift", help="Show only what is not as it was applied, whatever the file says now.")
    ] = False,
    env_file: EnvFileOption = None,
    output: ReportOption = Report.TEXT,
) -> None:
    """Show what apply would do, each line with its cost and its reason. Changes nothing.

    Exit code 0; 1: error; with --exit-code 2: there are changes.
    """
    if drift and out is not None:
        raise typer.BadParameter("--drift changes nothing that could be saved", param_hint="--out")
    applying.plan(file, exit_code=exit_code, out=out, drift=drift, env_file=env_file, output=output)


def apply(
    file: SpecArgument,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return when the apply has begun.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", min=0.1, help="Give up after so many seconds and take back what was started."),
    ] = None,
    allow_empty: Annotated[
        bool,
        typer.Option("--allow-empty", help="Accept a spec without deployments: everything of the stack is taken away."),
    ] = False,
    max_failed: Annotated[
        int | None,
        typer.Option("--max-failed", min=0, help="Exit with 4 where more requests than this failed meanwhile."),
    ] = None,
    env_file: EnvFileOption = None,
    output: ReportOption = Report.TEXT,
) -> None:
    """Make the spec so, and wait until it is. Starts a local Ray where no cluster is in reach.

    Exit code 0; 1: invalid; 3: failed, what ran before still runs; 4: failed; 5: deadline; 6: conflict or stale plan.
    """
    applying.apply(
        file,
        no_wait=no_wait,
        timeout=timeout,
        allow_empty=allow_empty,
        max_failed=max_failed,
        env_file=env_file,
        output=output,
    )
