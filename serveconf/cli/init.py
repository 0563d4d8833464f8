"""``serveconf init``: a first spec for apps that exist already.

Import paths are looked at in a child process; without any, the code below the folder is read (not run) for FastAPI apps.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from serveconf.cli.import_check import Outcome, inspect, target


def init(
    import_paths: Annotated[
        list[str] | None, typer.Argument(metavar="[IMPORT_PATH...]", help="What to serve, as module:attribute.")
    ] = None,
    file: Annotated[Path, typer.Option("--file", "-f", help="The spec to write.")] = Path("serve.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds that each import may take.")] = 60,
) -> None:
    """Write a commented spec for the given import paths, or for the FastAPI apps found below the folder.

    What an import path names is found out by importing it in a child process. Exit code 1: the file is there already,
    or nothing was found.
    """
    folder = file.parent
    if file.exists() and not force:
        raise _failed(f"{file} is there already", "give --force to write over it, or --file for another one")
    given = [*dict.fromkeys(import_paths or [])]
    wrong = [path for path in given if not re.fullmatch(r"[\w.]+:[\w.]+", path)]
    if wrong:
        raise _failed(f"'{wrong[0]}' is no import path", "write module:attribute, such as main:app")
    if given:
        outcomes = inspect(folder.resolve(), [target(path) for path in given], [], timeout)
    else:
        from serveconf.cli.find_apps import find_apps

        given = list(find_apps(folder))
        outcomes = [Outcome(ok=True, kind="asgi")] * len(given)
    if not given:
        raise _failed("no FastAPI app was found below this folder", "name one: serveconf init main:app")
    file.write_text(spec_text(zip(given, outcomes, strict=True), schema=_write_schema(folder)), encoding="utf-8")
    typer.echo(f"wrote {file}: {', '.join(given)}")
    for path, outcome in zip(given, outcomes, strict=True):
        if not outcome.ok:
            print(f"warning: {path} does not import yet: {outcome.error}", file=sys.stderr)
    typer.echo(f"next: serveconf run {file}")


def _failed(message: str, hint: str) -> typer.Exit:
    print(f"error: {message}\n  hint: {hint}", file=sys.stderr)
    return typer.Exit(1)


def spec_text(found: Iterable[tuple[str, Outcome]], *, schema: str) -> str:
    """The spec as one would write it by hand."""
    entries = list(found)
    names = list(_names([path for path, _ in entries]))
    lines = [
        f"# yaml-language-server: $schema={schema}",
        "# What is served, and where. `serveconf explain` tells what may stand here; `serveconf validate` checks it.",
        "",
        "http_options:",
        "  host: 127.0.0.1            # 0.0.0.0 to be reached from other machines",
        "  port: 8000",
        "",
        "deployments:",
    ]
    for name, (path, outcome) in zip(names, entries, strict=True):
        only = len(entries) == 1
        lines += [
            f"  - name: {name}",
            f"    import_path: {path:<23}# {_kind_words(outcome)}",
            f"    route_prefix: {'/' if only else '/' + name:<22}# below which requests reach it",
            "    num_replicas: 1",
            *_arguments(outcome),
            "",
        ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _kind_words(outcome: Outcome) -> str:
    if not outcome.ok:
        return "could not be imported when this was written"
    kinds = {"asgi": "an ASGI app", "class": "a class", "function": "a function", "deployment": "a deployment"}
    return kinds.get(outcome.kind or "", "an object")


def _arguments(outcome: Outcome) -> list[str]:
    if outcome.ok and outcome.kind == "class":
        return [
            "    init_kwargs: {}            # arguments of the class",
            "    user_config: null          # for reconfigure(user_config)",
        ]
    if outcome.ok and outcome.kind == "function":
        return ["    # factory: true             # if the function returns an app instead of answering requests"]
    return []


def _names(paths: list[str]) -> Iterator[str]:
    """A name for each import path: its module's last part, or more of it where that is taken."""
    taken: set[str] = set()
    for path in paths:
        module, _, attribute = path.partition(":")
        last = module.rpartition(".")[2]
        candidates = [last if last not in ("main", "app", "api") else module.replace(".", "-"), f"{last}-{attribute}"]
        candidates += [path.replace(":", "-").replace(".", "-")]
        name = next((one.strip("-._") for one in candidates if one.strip("-._") not in taken), candidates[-1])
        while name in taken or not name:
            name += "2"
        taken.add(name)
        yield name


def _write_schema(folder: Path) -> str:
    """Puts the schema of this version beside the spec, for editors; its path from there."""
    from serveconf.spec.schema import json_schema

    schema = folder / ".serveconf" / "serveconf.schema.json"
    schema.parent.mkdir(exist_ok=True)
    schema.write_text(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return schema.relative_to(folder).as_posix()
