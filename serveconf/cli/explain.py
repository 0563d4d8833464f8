"""``serveconf explain``: one field of the spec, as the models describe it."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Annotated

import typer


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
            metavar="FIELD.PATH",
            autocompletion=complete,
            help="Such as deployments.num_replicas; '.' for the whole spec.",
        ),
    ] = ".",
    output: Annotated[ExplainFormat, typer.Option("--output", "-o", help="Format of the answer.")] = ExplainFormat.TEXT,
) -> None:
    """Explain a field of the spec: its type, its default, its meaning, and what changing it costs.

    "-o markdown" prints the whole reference page instead. Exit code 1: there is no such field.
    """
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
    typer.echo(
        json.dumps(found.as_json(), indent=2, ensure_ascii=False) if output is ExplainFormat.JSON else describe(found)
    )
