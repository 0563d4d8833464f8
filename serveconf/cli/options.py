"""Options and arguments that several commands take, as typer reads them from their signatures.

How what is written in them is read, too: times, and the names of webhooks.
"""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Annotated

import typer

from serveconf.cli.common import Output, Report
from serveconf.credentials import WEBHOOK_NAME
from serveconf.errors import AuthorError

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


_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_SPAN = re.compile(r"(?:\d+(?:\.\d+)?[dhms])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([dhms])")


def webhook_name(name: str | None) -> str | None:
    """The name of a webhook, as the control API takes it: another one could never be called."""
    if name is not None and not re.fullmatch(WEBHOOK_NAME, name):
        raise typer.BadParameter("a webhook's name is up to 100 letters, digits, '.', '_' and '-'")
    return name


def read_since(text: str, now: datetime.datetime) -> datetime.datetime:
    """The moment that is meant. A time without a zone is one of this machine's. Raises AuthorError."""
    try:
        if _SPAN.fullmatch(text):
            spans = (datetime.timedelta(**{_UNITS[unit]: float(number)}) for number, unit in _PART.findall(text))
            return now - sum(spans, datetime.timedelta())
        return datetime.datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):  # a time before all years, too
        raise AuthorError(
            f"'{text}' is no time",
            hint="write how long ago, as 10m or 1h30m, or when, as 2026-01-31T08:00",
            code="since",
        ) from None
