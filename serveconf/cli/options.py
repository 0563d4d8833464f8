"""Options and arguments that several commands take, as typer reads them from their signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serveconf.cli.common import Output, Report

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
