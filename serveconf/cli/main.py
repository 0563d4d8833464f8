"""The ``serveconf`` command. Its commands are imported when they are called; this module knows their names and a line of each.

A command that only prints should be there at once, so nothing is imported here but typer: no Ray, no pydantic, no httpx.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from serveconf import __version__
from serveconf.cli.common import Output, chosen, full, show_error
from serveconf.disk import is_full
from serveconf.errors import InternalError

# name -> its module in serveconf.cli, where a function has the same name, and the first line of that function's help
COMMANDS: dict[str, tuple[str, str]] = {
    "validate": ("validate", "Check spec files and report all their problems."),
    "plan": ("apply", "Show what apply would do, each line with its cost and its reason."),
    "apply": ("apply", "Make the spec so, and wait until it is."),
    "run": ("run", "Start what is missing, apply, watch file and code, show what happens."),
    "watch": ("watch", "Apply to a running cluster, and again whenever a spec or its code has changed."),
    "sync": ("sync", "Apply what a git branch says, and again whenever it says something else."),
    "status": ("look", "Show stacks, deployments, replicas and proxies, their states and the generation."),
    "events": ("events", "Show what was done and what the system did by itself, with why."),
    "dashboard": (
        "dashboard",
        "Print an address that signs a browser in to the dashboard; it works once, within five minutes.",
    ),
    "token": ("token", "Print the control API's token."),
    "routes": ("look", "Show the live routing table, or who would take a request."),
    "logs": ("logs", "Show what the replicas of a deployment write, or the proxies, or the controller."),
    "history": ("look", "Show the revisions of a stack, or one of them with its spec."),
    "dump": ("dump", "Print a live stack as a spec file, or write all of them to a folder."),
    "scale": ("change", "Set a deployment's number of replicas until the next apply."),
    "rollback": ("change", "Go back to an earlier revision and pin it."),
    "promote": ("change", "End a canary at once: all of the requests to the new version."),
    "abort": ("change", "End a canary at once: all of the requests back to the old version."),
    "resume": ("change", "End the pin that a rollback leaves."),
    "delete": ("change", "Take deployments, or a whole stack, away."),
    "backup": ("backup", "Write all stacks, their revisions and their code to a file that only its owner can read."),
    "restore": ("backup", "Bring the stacks of a backup up again, each as one apply."),
    "upgrade": (
        "upgrade",
        "Bring a running controller, its proxies and replicas to the version of this command, with no request lost.",
    ),
    "shutdown": ("change", "Stop proxies, replicas and the controller, and the Ray that apply or run started."),
    "doctor": (
        "doctor",
        "Look at Python, packages, memory, limits, ports, folders and what former runs have left, and say what to do.",
    ),
    "init": (
        "init",
        "Write a commented spec for the given import paths, or for the FastAPI apps found below the folder.",
    ),
    "convert": ("convert", "Print a Ray Serve config, or the one in a RayService manifest, as a serveconf spec."),
    "explain": (
        "explain",
        "Explain a field of the spec (its default, its meaning, what changing it costs) or the code of a problem.",
    ),
    "schema": ("schema", "Print the JSON Schema of spec files, for editors and other tools."),
}


class LazyCommands(TyperGroup):
    """A group whose commands are imported one at a time, when they are called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Imported()  # type: ignore[assignment]  # nobody adds one later

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of commands in ``--help``, for which none of them is imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


class _Imported(Mapping[str, Any]):
    """Names of commands -> the commands, imported when they are asked for."""

    def __getitem__(self, name: str) -> Any:
        module = importlib.import_module(f"serveconf.cli.{COMMANDS[name][0]}")
        gc.enable()
        single = typer.Typer(**_SETTINGS, add_completion=False)
        single.command(name)(getattr(module, name))
        return typer.main.get_command(single)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


_SETTINGS: dict[str, Any] = {
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
app = typer.Typer(name="serveconf", cls=LazyCommands, no_args_is_help=True, **_SETTINGS)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"serveconf {__version__}")
        raise typer.Exit


@app.callback()
def options(
    address: Annotated[
        str | None, typer.Option("--address", envvar="SERVECONF_ADDRESS", help="URL of the control API.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="SERVECONF_TOKEN", help="Its bearer token; -: the first line of stdin."),
    ] = None,
    token_file: Annotated[
        str | None, typer.Option("--token-file", metavar="FILE", help="A file that holds the token; -: stdin.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Serve FastAPI apps and models on Ray, as a YAML file says."""
    chosen.address, chosen.token = address, _token(token, token_file)


def _token(said: str | None, file: str | None) -> str | None:
    """The token: of the flag or the variable, or of the file, where one is named."""
    if file is None and said != "-":
        return said
    if file is None or file == "-":
        found = sys.stdin.readline()
    else:
        try:
            with open(file, encoding="utf-8") as opened:
                found = opened.readline()
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"{file} can't be read: {error}", param_hint="--token-file") from error
    if not found.strip():
        raise typer.BadParameter("there is no token in it", param_hint="--token-file")
    return found.strip()


STRAIGHT = {"apply": 1, "plan": 1, "status": 0}  # command -> its arguments, where nothing else is said


def straight(words: list[str]) -> bool:
    """Do a command that is given as it mostly is, without an option. typer builds a parser of models for each command; where
    there is nothing to parse that takes longer than all else before the first request. False: it is for typer.
    """
    if not words or STRAIGHT.get(words[0]) != len(words) - 1 or any(not w or w.startswith("-") for w in words):
        return False
    if (token := os.environ.get("SERVECONF_TOKEN")) == "-":  # to be read, and perhaps refused
        return False
    chosen.address = os.environ.get("SERVECONF_ADDRESS") or None
    chosen.token = token or None
    module = importlib.import_module(f"serveconf.cli.{COMMANDS[words[0]][0]}")
    gc.enable()
    try:
        getattr(module, words[0])(*map(Path, words[1:]))
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except KeyboardInterrupt:  # from here on as typer does it
        sys.exit(130)
    except EOFError:
        typer.echo("Aborted!", err=True)
        sys.exit(1)
    except BrokenPipeError:
        nobody = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nobody, stream.fileno())
        sys.exit(1)
    return True


def main() -> None:
    """The console script. A fault of serveconf itself is one line, too; SERVECONF_DEBUG=1 shows where it is."""
    gc.disable()  # until the command is imported: of what imports make nothing is garbage, and looking takes a tenth of a short command
    try:
        if not straight(sys.argv[1:]):
            app()
    except Exception as error:  # the last edge: nobody is left to tell it to but the user
        if os.environ.get("SERVECONF_DEBUG"):
            raise
        if isinstance(error, OSError) and is_full(error):
            show_error(full(error), Output.TEXT)
            sys.exit(1)
        hint = "this is a fault of serveconf; with SERVECONF_DEBUG=1 it shows where"
        show_error(InternalError(f"{type(error).__name__}: {error}", hint=hint), Output.TEXT)
        sys.exit(1)
