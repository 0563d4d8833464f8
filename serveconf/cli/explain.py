"""``serveconf explain`` and ``schema``: what a spec may say.

One field, as the models describe it, or one code of a problem, with its cure; all of it, as editors read it. With ``-o
markdown`` explain writes the docs' pages; docs/commands.md from the commands themselves.
"""

from __future__ import annotations

import inspect
import json
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from serveconf.cli.main import COMMANDS
from serveconf.cli.parser import app

_INTRO = """\
# Commands

<!-- Written by `serveconf explain commands -o markdown`; do not edit. -->

`serveconf [--address URL] [--token T] COMMAND`; `SERVECONF_ADDRESS` and `SERVECONF_TOKEN` do what the two flags do. Neither is
needed on the machine where `apply` or `run` has started everything. `--token-file FILE`, and `-` for stdin, keep the token out
of the command line, which everybody on a machine can read.

`-o json` gives one JSON document on stdout. Exit codes: 0 done, 1 invalid, 2 usage, 3 failed and taken back, 4 failed,
5 deadline, 6 conflict, stale plan or locked.
"""


class ExplainFormat(StrEnum):
    """How ``explain`` writes."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


def complete(incomplete: str) -> list[str]:
    """Field paths for the shell's completion."""
    from serveconf.spec.fields import walk_fields

    paths = [path.replace("[]", "") for path, _ in walk_fields()]
    return [path for path in paths if path.startswith(incomplete)]


def explain(
    field: Annotated[
        str,
        typer.Argument(
            metavar="FIELD.PATH | CODE",
            autocompletion=complete,
            help="A field, such as deployments.num_replicas ('.': the whole spec); or a code, such as ambiguous or 503.",
        ),
    ] = ".",
    output: Annotated[ExplainFormat, typer.Option("--output", "-o", help="Format of the answer.")] = ExplainFormat.TEXT,
) -> None:
    """Explain a field of the spec (its default, its meaning, what changing it costs) or the code of a problem.

    "codes" lists the codes. "-o markdown" prints the whole reference page instead. Exit code 1: there is no such field or code.
    """
    if field == "commands" and output is ExplainFormat.MARKDOWN:
        typer.echo(commands_page(), nl=False)
        return
    code = _code_of(field)
    if code and (field != code or not _is_field(code)):  # a word that is both means the field; [name] is the code
        _explain_code(code, output)
        return
    if output is ExplainFormat.MARKDOWN:
        from serveconf.spec.page import docs_page

        typer.echo(docs_page(), nl=False)
        return
    from serveconf.spec.reference import describe, find_field

    found, near = find_field(field)
    if found is None:
        if output is ExplainFormat.JSON:
            hint = f"did you mean '{near}'?" if near else None
            typer.echo(json.dumps({"error": {"code": "unknown_field", "message": f"no field '{field}'", "hint": hint}}))
        else:
            print(f"no field '{field}' in the spec" + (f"; did you mean '{near}'?" if near else ""), file=sys.stderr)
        raise typer.Exit(1)
    if output is ExplainFormat.JSON:
        typer.echo(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
        return
    typer.echo(describe(found))
    if code:
        typer.echo(f"\nThere is a code [{code}] too: serveconf explain '[{code}]'")


def _code_of(word: str) -> str | None:
    """The code that is meant, also in brackets, as problems show it; ``codes`` for all of them."""
    from serveconf.answers import ANSWERS

    bare = word.strip().removeprefix("[").removesuffix("]")
    return bare if bare == "codes" or bare in ANSWERS else None


def _is_field(name: str) -> bool:
    from serveconf.spec.reference import find_field

    return find_field(name)[0] is not None


def _explain_code(code: str, output: ExplainFormat) -> None:
    from serveconf.answers import ANSWERS, answer_text, answers_page

    known = {
        one: {"code": one, "where": str(answer.where), "cause": answer.cause, "cure": answer.cure}
        for one, answer in ANSWERS.items()
    }
    if output is ExplainFormat.MARKDOWN:
        typer.echo(answers_page(), nl=False)
    elif output is ExplainFormat.JSON:
        typer.echo(json.dumps([*known.values()] if code == "codes" else known[code], indent=2, ensure_ascii=False))
    elif code == "codes":
        width = max(map(len, ANSWERS))
        typer.echo("\n".join(f"{one:<{width}}  {answer.cause}" for one, answer in ANSWERS.items()))
    else:
        typer.echo(answer_text(code))


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


def schema() -> None:
    """Print the JSON Schema of spec files, for editors and other tools.

    The first line of a spec, "# yaml-language-server: $schema=<address of this schema>", makes an editor use it.
    """
    from serveconf.spec.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
