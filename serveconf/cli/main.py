"""The ``serveconf`` command: one line per command, each in a module of its own. Imports no Ray."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from serveconf import __version__
from serveconf.cli.apply import apply, plan
from serveconf.cli.change import delete, resume, rollback, shutdown
from serveconf.cli.common import Output, chosen, show_error
from serveconf.cli.convert import convert
from serveconf.cli.dashboard import dashboard
from serveconf.cli.events import events
from serveconf.cli.explain import explain
from serveconf.cli.init import init
from serveconf.cli.logs import logs
from serveconf.cli.look import history, routes, status
from serveconf.cli.run import run, watch
from serveconf.cli.schema import schema
from serveconf.cli.sync import sync
from serveconf.cli.validate import validate
from serveconf.errors import InternalError

app = typer.Typer(
    name="serveconf",
    help="Serve FastAPI apps and models on Ray, as a YAML file says.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"serveconf {__version__}")
        raise typer.Exit


@app.callback()
def options(
    address: Annotated[
        str | None, typer.Option("--address", envvar="SERVECONF_ADDRESS", help="URL of the control API.")
    ] = None,
    token: Annotated[str | None, typer.Option("--token", envvar="SERVECONF_TOKEN", help="Its bearer token.")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Serve FastAPI apps and models on Ray, as a YAML file says."""
    chosen.address, chosen.token = address, token


COMMANDS = (
    *(validate, plan, apply, run, watch, sync),
    *(status, events, dashboard, routes, logs, history),
    *(rollback, resume, delete, shutdown),
    *(init, convert, explain, schema),
)

for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """The console script. A fault of serveconf itself is one line, too; SERVECONF_DEBUG=1 shows where it is."""
    try:
        app()
    except Exception as error:  # the last edge: nobody is left to tell it to but the user
        if os.environ.get("SERVECONF_DEBUG"):
            raise
        hint = "this is a fault of serveconf; with SERVECONF_DEBUG=1 it shows where"
        show_error(InternalError(f"{type(error).__name__}: {error}", hint=hint), Output.TEXT)
        sys.exit(1)
