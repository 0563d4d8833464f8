"""``serveconf validate``: whole spec files checked without a cluster, without Ray and without running anyone's code.

With ``--import`` the code is imported too, in a child process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from serveconf.cli.common import colors
from serveconf.cli.problems_view import ProblemFormat, is_ok, render, summary
from serveconf.spec.load import Loaded, load_file
from serveconf.spec.problems import Problem, SpecInvalid


def validate(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Spec files, or folders with spec files below them.")
    ],
    output: Annotated[
        ProblemFormat, typer.Option("--output", "-o", help="Format of what is found.")
    ] = ProblemFormat.TEXT,
    env_file: Annotated[
        list[Path] | None, typer.Option("--env-file", help="File with NAME=value lines; the environment wins over it.")
    ] = None,
    import_code: Annotated[
        bool, typer.Option("--import", help="Also import the code, in a child process, and report what fails there.")
    ] = False,
    import_timeout: Annotated[
        float, typer.Option("--import-timeout", min=0.1, help="Seconds that each import may take.")
    ] = 60,
) -> None:
    """Check spec files and report all their problems.

    Nothing is imported and no cluster is asked. Exit code 0: no errors; 1: errors; 2: wrong usage.
    """
    problems: list[Problem] = []
    checked = 0
    for file in spec_files(files, problems):
        checked += 1
        loaded = check_file(file, os.environ, env_file or [], problems)
        if loaded is not None and import_code:
            from serveconf.cli.import_check import import_problems

            problems += sorted(
                import_problems(loaded, import_timeout), key=lambda problem: (problem.file, problem.line)
            )
    found = render(problems, output, color=colors())
    if found:
        typer.echo(found)
    if output is ProblemFormat.TEXT:
        typer.echo(summary(checked, problems))
    raise typer.Exit(0 if is_ok(problems) else 1)


def check_file(path: Path, env: Mapping[str, str], env_files: list[Path], problems: list[Problem]) -> Loaded | None:
    """The spec, if it is valid. Adds what was found to ``problems``."""
    try:
        loaded = load_file(path, env=env, env_files=env_files)
    except SpecInvalid as error:
        problems += error.problems
        return None
    problems += loaded.warnings
    return loaded


def spec_files(paths: list[Path], problems: list[Problem]) -> Iterator[Path]:
    """The files, and the YAML files below the folders, but for those in hidden folders."""
    for path in paths:
        if not os.path.isdir(path):  # a name that can be none is the reader's to say
            yield path
            continue
        below = sorted(_yaml_below(path))
        if not below:
            message = "no .yaml or .yml file in this folder"
            problems.append(Problem(file=str(path), line=0, column=0, path="", message=message, code="file"))
        yield from below


def _yaml_below(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in names if name.endswith((".yaml", ".yml")) and not name.startswith("."))
