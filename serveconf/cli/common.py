"""What every command shares: the global options, the output format, errors and exit codes.

Nothing of typer: a command that is given as it mostly is (``straight``) has no use for its parser, which takes long to import.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serveconf.disk import disk_full, is_full
from serveconf.errors import Conflict, OperatorError, ServeconfError
from serveconf.spec.problems import SpecInvalid

if TYPE_CHECKING:
    from serveconf.spec.load import Loaded

EXIT_OF = {"applied": 0, "unchanged": 0, "rolled_back": 3, "failed": 4, "timeout": 5, "conflict": 6}


class Output(StrEnum):
    """How a result is written to stdout."""

    TEXT = "text"
    JSON = "json"


class Report(StrEnum):
    """How a plan, or what became of an apply, is written to stdout."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"

    @property
    def output(self) -> Output:
        """The form of everything else: errors, above all."""
        return Output.JSON if self is Report.JSON else Output.TEXT


@dataclass
class Globals:
    """The options before the command's name."""

    address: str | None = None
    token: str | None = None


chosen = Globals()


def print_json(data: Any, *, one_line: bool = False) -> None:
    """The one JSON document of ``-o json``; ``one_line``: one of those that follow each other."""
    show(json.dumps(data, indent=None if one_line else 2, ensure_ascii=False))


def show(text: str) -> None:
    """A result: to stdout."""
    print(text, flush=True)  # whoever reads may have gone, and that is an error of this line


def tell(message: str) -> None:
    """Progress and notes: to stderr."""
    print(message, file=sys.stderr, flush=True)


def colors(stream: Any = None) -> bool:
    """Whether to colour what goes there: only on a terminal that wants it."""
    return (stream or sys.stdout).isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def width(stream: Any = None) -> int | None:
    """How many columns the terminal has; None where what is written goes elsewhere, and a line should stay a line."""
    try:
        return os.get_terminal_size((stream or sys.stdout).fileno()).columns or None
    except (OSError, ValueError):  # a file, a pipe, a test's own
        return None


@contextmanager
def errors_shown(output: Output, *, one_line: bool = False) -> Iterator[None]:
    """Turn what serveconf raises into its message (or JSON) and its exit code; nobody sees our traceback.

    ``one_line``: the JSON is one line, as the others that the command prints.
    """
    try:
        yield
    except SpecInvalid as invalid:
        show_problems(invalid, output)
        raise SystemExit(1) from invalid
    except ServeconfError as error:
        show_error(error, output, one_line=one_line)
        raise SystemExit(exit_code_of_error(error)) from error
    except OSError as error:
        if (said := of_the_system(error)) is None:
            raise
        show_error(said, output)
        raise SystemExit(1) from error


def exit_code_of_error(error: ServeconfError) -> int:
    """The exit code of a command that ends with it."""
    return 6 if isinstance(error, Conflict) else 1


def of_the_system(error: OSError) -> ServeconfError | None:
    """What the system says of a file, or that there is no room; None where it is about neither."""
    if is_full(error):  # the error of an open names a file, that of a write none
        return disk_full("the output" if error.filename is None else "a file", error.filename)
    return OperatorError(f"{error.filename}: {error.strerror}") if error.filename and error.strerror else None


def show_error(error: ServeconfError, output: Output, *, one_line: bool = False) -> None:
    """One error, with its hint."""
    problems = getattr(error, "problems", [])
    if isinstance(error, SpecInvalid):
        show_problems(error, output)
        return
    if output is Output.JSON:
        print_json({"error": error.as_json(), **({"problems": problems} if problems else {})}, one_line=one_line)
        return
    if problems:
        from serveconf.cli.result_view import render_problems

        tell(render_problems(problems, color=colors(sys.stderr)))
        return
    red, off = ("\x1b[1;31m", "\x1b[0m") if colors(sys.stderr) else ("", "")
    tell(f"{red}error:{off} {error.message}")
    if error.hint:
        tell(f"  hint: {error.hint}")


def show_problems(invalid: SpecInvalid, output: Output) -> None:
    """All problems of a spec; as JSON they are the result itself."""
    from serveconf.cli.problems_view import json_document, text

    if output is Output.JSON:
        print_json(json_document(invalid.problems))
    else:
        tell(text(invalid.problems, color=colors(sys.stderr)))


def load(file: Path, env_files: list[Path] | None) -> Loaded:
    """The spec of a file; its warnings are shown."""
    from serveconf.spec.load import load_file  # what looks at a running cluster reads no spec

    loaded = load_file(file, env=os.environ, env_files=env_files or ())
    if loaded.warnings:
        from serveconf.cli.problems_view import text

        tell(text(loaded.warnings, color=colors(sys.stderr)))
    return loaded
