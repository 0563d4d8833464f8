"""docs/commands.md: every command with its arguments and options, from the commands themselves."""

from __future__ import annotations

import inspect
from typing import Any

from serveconf.cli.main import COMMANDS, app

_INTRO = """\
# Commands

<!-- Written by `serveconf explain commands -o markdown`; do not edit. -->

`serveconf [--address URL] [--token T] COMMAND`; `SERVECONF_ADDRESS` and `SERVECONF_TOKEN` do what the two flags do. Neither is
needed on the machine where `apply` or `run` has started everything. `--token-file FILE`, and `-` for stdin, keep the token out
of the command line, which everybody on a machine can read.

`-o json` gives one JSON document on stdout. Exit codes: 0 done, 1 invalid, 2 usage, 3 failed and taken back, 4 failed,
5 deadline, 6 conflict, stale plan or locked.
"""


def commands_page() -> str:
    """The page, from the commands themselves."""
    import typer

    group: Any = typer.main.get_command(app)
    return "\n".join([_INTRO, *(_section(name, group.commands[name]) for name in COMMANDS)])


def _section(name: str, command: Any) -> str:
    told = inspect.cleandoc(command.help or "").replace("\n\n", "\0").replace("\n", " ").replace("\0", "\n\n")
    rows = [f"| {_shown(parameter)} | {_cell(parameter.help or '')} |" for parameter in command.params]
    table = ["| argument or option | meaning |", "|---|---|", *rows, ""] if rows else []
    return "\n".join([f"## {name}", "", told, "", *table])


def _shown(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_cell(parameter.metavar or parameter.name.upper())}`"
    return ", ".join(f"`{option}`" for option in parameter.opts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
