"""``serveconf schema``: the JSON Schema of spec files."""

from __future__ import annotations

import json

import typer


def schema() -> None:
    """Print the JSON Schema of spec files, for editors and other tools.

    The first line of a spec, "# yaml-language-server: $schema=<address of this schema>", makes an editor use it.
    """
    from serveconf.spec.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
