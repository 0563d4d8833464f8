"""``serveconf watch``: like ``run``'s watching, against a running cluster, for containers and services."""

from __future__ import annotations

import sys
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serveconf.cli.common import Output, chosen, colors, errors_shown, tell
from serveconf.cli.ending import Ending
from serveconf.cli.lasting import lasting_output
from serveconf.cli.options import EnvFileOption
from serveconf.cli.run import SourcesArgument
from serveconf.errors import Unreachable

if TYPE_CHECKING:
    from serveconf.cli.watch_view import JsonView, TextView
    from serveconf.client import Client


class LogFormat(StrEnum):
    """How what happens is written to stderr."""

    TEXT = "text"
    JSON = "json"


PruneOption = Annotated[
    bool, typer.Option("--prune", help="Take a stack away when the file that it came from is there no more.")
]
NoSelfHealOption = Annotated[
    bool, typer.Option("--no-self-heal", help="Only say what was changed behind its back; do not undo it.")
]
RetryOption = Annotated[bool, typer.Option("--retry", help="Try once more what has failed before.")]
ReadyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--ready-file",
        help="This file is there once every stack serves as its file says, and not while the cluster can't be asked.",
    ),
]
LogFormatOption = Annotated[LogFormat, typer.Option("--log-format", help="Lines for people, or one JSON object each.")]


def watch(
    sources: SourcesArgument,
    prune: PruneOption = False,
    no_self_heal: NoSelfHealOption = False,
    retry: RetryOption = False,
    ready_file: ReadyFileOption = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    env_file: EnvFileOption = None,
) -> None:
    """Apply to a running cluster, and again whenever a spec or its code has changed. Ctrl-C only stops watching.

    One stack per file; a broken file holds up no other. Exit code 0 after a signal; where a single file is followed and
    what it says is wrong at first, as apply.
    """
    from serveconf.cli.follow import follow_stacks, found_specs, is_one_file, once_settled, readiness
    from serveconf.watch.ports import FirstFailure, Options
    from serveconf.watch.serving import ControlApi

    code = 0
    with lasting_output(), Ending() as ending, errors_shown(Output.TEXT), suppress(KeyboardInterrupt):
        one = is_one_file(sources)
        if one:
            found_specs(sources)
        options = Options(
            env_files=tuple(env_file or ()),
            prune=prune,
            self_heal=not no_self_heal,
            first_failure=FirstFailure.ENDS_WHERE_WRONG if one else FirstFailure.GOES_ON,
        )
        view = make_view(log_format)
        beside = [readiness(ready_file)] if ready_file else []
        if log_format is LogFormat.TEXT:
            beside.append(once_settled(lambda: tell("watching; Ctrl-C stops")))
        with view:
            api = ControlApi(reach_running, view.tell, retry=retry, sources=sources)
            code = follow_stacks(ending, sources, api, options, view.tell, beside)
    raise typer.Exit(0 if ending.told else code)


def make_view(log_format: LogFormat) -> JsonView | TextView:
    """What shows what happens."""
    from serveconf.cli.watch_view import JsonView, TextView

    if log_format is LogFormat.JSON:
        return JsonView(sys.stderr)
    return TextView(sys.stderr, color=colors(sys.stderr))


def reach_running() -> Client:
    """The control API of a running cluster: where only its controller is missing that is started, a Ray never is."""
    from serveconf.launch import find, may_start, start
    from serveconf.local_ray import ray_in_reach

    try:
        return find(chosen.address, chosen.token)
    except Unreachable:
        ray = ray_in_reach() if may_start(chosen.address) else None
        if ray is None:
            raise
    return start(chosen.address, ray, http=None, tell=lambda message: None).client
