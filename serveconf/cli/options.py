"""Options and arguments that several commands take, as typer reads them from their signatures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from serveconf.cli.common import Output, Report
from serveconf.credentials import WEBHOOK_NAME

ReportOption = Annotated[
    Report, typer.Option("--output", "-o", help="Format of the result; markdown for a pull request's comment.")
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="Format of the result.")]
EnvFileOption = Annotated[
    list[Path] | None, typer.Option("--env-file", help="File with NAME=value lines; the environment wins over it.")
]
SpecArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The spec file.", show_default=False)]
StackOption = Annotated[
    str | None, typer.Option("--stack", help="Name of the stack; it may be left out where there is only one.")
]


def webhook_name(name: str | None) -> str | None:
    """The name of a webhook, as the control API takes it: another one could never be called."""
    if name is not None and not re.fullmatch(WEBHOOK_NAME, name):
        raise typer.BadParameter("a webhook's name is up to 100 letters, digits, '.', '_' and '-'")
    return name
