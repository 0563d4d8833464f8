"""The parser of the command line. A command's module is imported when it is called, or when its help is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from serveconf import __version__
from serveconf.cli.common import chosen
from serveconf.cli.main import COMMANDS, collect_again


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
        collect_again()
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
