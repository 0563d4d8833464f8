"""``serveconf convert``: a Ray Serve config file as a serveconf spec, printed with notes on what has no equal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serveconf.cli.common import colors
from serveconf.cli.problems_view import text
from serveconf.spec.problems import Problem

if TYPE_CHECKING:
    from serveconf.convert.reading import Config


def convert(
    file: Annotated[
        Path, typer.Argument(metavar="RAY_SERVE_YAML", help="A config file of Ray Serve, or a RayService manifest.")
    ],
) -> None:
    """Print a Ray Serve config, or the one in a RayService manifest, as a serveconf spec.

    What has no equal here, or means something else, is told in comments at the top. Exit code 1: the file cannot be read
    or is no Ray Serve config.
    """
    from serveconf.convert.reading import Config, read_config

    config = read_config(file)
    if not isinstance(config, Config):
        print(text(config, color=colors(sys.stderr)), file=sys.stderr)
        raise typer.Exit(1)
    typer.echo(spec_text_of(config, [file.parent, Path()], file.name), nl=False)


def spec_text_of(
    config: Config, folders: list[Path], name: str, *, app_dir: str | None = None, notes: Sequence[str] = ()
) -> str:
    """The spec's text, what there is to know of it in comments. ``folders``: where the code may lie, the config's first.

    ``app_dir``: where it does, None where the config says; ``notes``: what else there is to tell.
    """
    from serveconf.convert.spec import to_spec

    spec, own = to_spec(config, folders)
    if app_dir is not None:
        rest = {key: value for key, value in spec.items() if key not in ("name", "app_dir")}
        start = {"name": spec["name"]} if "name" in spec else {}
        spec = start | ({"app_dir": app_dir} if app_dir != "." else {}) | rest
    body = to_yaml(spec)
    told = [*own, *notes, *(f"{problem.path}: {problem.message}; mend this" for problem in problems_of(body))]
    lines = [f"# A spec made of {name}. Read these notes, then try it: serveconf validate --import FILE"]
    lines += [f"#  - {' '.join(note.split())}" for note in told]
    return "\n".join([*lines, "", body])


def problems_of(body: str) -> Iterator[Problem]:
    """What the spec still lacks; its code is elsewhere, so that its folders are not looked for."""
    from serveconf.spec.check import check
    from serveconf.spec.reading import read_yaml

    reading = read_yaml(body.encode(), file="", folder=Path(), env={})
    yield from reading.problems
    yield from check(reading)


def to_yaml(data: dict[str, Any]) -> str:
    """The data as YAML that means the same to every reader, variables written literally."""
    import yaml

    from serveconf.spec.scalars import Ambiguous, resolve_plain

    class Dumper(yaml.SafeDumper):
        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def scalar(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        try:
            ambiguous = resolve_plain(value) != value
        except Ambiguous:
            ambiguous = True
        style = '"' if ambiguous else "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value.replace("$", "$$"), style)

    Dumper.add_representer(str, scalar)
    return yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
