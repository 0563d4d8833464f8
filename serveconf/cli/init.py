"""``serveconf init``: a first spec for apps that exist already.

Import paths are looked at in a child process; without any, the code below the folder is read (not run) for FastAPI apps.
Where imports start is found out from the code too; apps that start in different folders get a file, a stack, for each.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from serveconf.cli.find_apps import App, find_apps, python_folders
from serveconf.cli.import_check import Outcome, inspect, target
from serveconf.cli.import_roots import find_module
from serveconf.cli.spec_text import Entry, names_for, spec_text, write_schema
from serveconf.code.ignore import OUR_FILE
from serveconf.disk import write_whole

Found = tuple[App, Outcome]
Variables = Mapping[str, str]
TEMPLATE = """\
# What of this folder is no code: it is in no package, and a change of it replaces no replica. Written as .gitignore is.
# Left out without a word of this file: what .gitignore names, secrets (.env, *.key, ...), sqlite files and logs, and what a
# running app is seen to write here ('serveconf status DEPLOYMENT' lists that).
#
# Data that C code or a child process writes is not seen; name it:
# uploads/
#
# A line with ! says that something is code after all, whatever its name is and whoever writes it:
# !seed.db
"""


def init(
    import_paths: Annotated[
        list[str] | None, typer.Argument(metavar="[IMPORT_PATH...]", help="What to serve, as module:attribute.")
    ] = None,
    file: Annotated[Path, typer.Option("--file", "-f", help="The spec to write.")] = Path("serve.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds that each import may take.")] = 60,
    env_file: Annotated[
        list[Path] | None,
        typer.Option("--env-file", help="File with NAME=value lines that the code needs; the spec then names them."),
    ] = None,
    from_ray_serve: Annotated[
        bool, typer.Option("--from-ray-serve", help="From the Ray Serve config, or the bound application, found here.")
    ] = False,
) -> None:
    """Write a commented spec for the given import paths, or for the FastAPI apps found below the folder.

    What an import path names is found out by importing it in a child process. With --from-ray-serve it may be a Ray Serve
    config file too, and nothing is imported. Exit code 1: the file is there already, or nothing was found.
    """
    folder = Path(os.path.abspath(file.parent))
    if file.exists() and not force:
        raise failed(f"{file} is there already", "give --force to write over it, or --file for another one")
    if from_ray_serve:
        _init_from_ray_serve(import_paths or [], folder, file)
        return
    (kept, texts), values = _variables_of(file), _read(env_file or [])
    if import_paths:
        check_paths(import_paths)
        found = look([*dict.fromkeys(import_paths)], folder, kept, values, timeout)
    else:
        found = [(app, Outcome(ok=True, kind="asgi")) for app in find_apps(folder)]
    if not found:
        raise failed("no FastAPI app was found below this folder", "name one: serveconf init main:app")
    named = {name: f"${{{name}}}" for name in values}
    _write(found, {path: {**said, **named} for path, said in texts.items()}, named, file, force=force)
    for app, outcome in found:
        if not outcome.ok:
            print(f"warning: {app.import_path} does not import yet: {outcome.error}", file=sys.stderr)
    if not values and any("KeyError" in (outcome.error or "") for _, outcome in found):
        print("  hint: give it the variables that it needs with --env-file FILE", file=sys.stderr)
    typer.echo("next: " + " ".join(["serveconf run", str(file), *(f"--env-file {one}" for one in env_file or [])]))


def _init_from_ray_serve(named: list[str], folder: Path, file: Path) -> None:
    from serveconf.cli.from_ray_serve import lines_to_change, source_named, sources, text_for

    if named:
        check_paths([path for path in named if not path.endswith((".yaml", ".yml"))])
        found = [source_named(path, folder) for path in named]
    else:
        found = [*sources(folder)]
    if not found:
        raise failed(
            "neither a Ray Serve config nor a bound application was found below this folder",
            "name one: serveconf init --from-ray-serve config.yaml, or … main:app",
        )
    if len(found) > 1:
        what = ", ".join(one.name for one in found if one is not None)
        raise failed(f"there is more than one: {what}", "name the one that is meant")
    source = found[0]
    if source is None:
        raise failed(f"{named[0]} is no Ray Serve config", f"'serveconf convert {named[0]}' says why")
    write_whole(file, text_for(source, folder))
    typer.echo(f"wrote {file}, made of {source.name}")
    lines = lines_to_change(folder)
    if lines:
        typer.echo("these lines name Ray Serve:" if len(lines) > 1 else "this line names Ray Serve:")
    for line in lines:
        typer.echo(f"  {os.path.relpath(line.file, folder)}:{line.number}: {line.text}")
        typer.echo(
            f"    {f'write: {line.instead}' if line.instead else 'has no equal here: see docs/from-ray-serve.md'}"
        )
    typer.echo(f"next: serveconf run {file}")


def failed(message: str, hint: str) -> typer.Exit:
    """The error, shown; to be raised."""
    print(f"error: {message}\n  hint: {hint}", file=sys.stderr)
    return typer.Exit(1)


def check_paths(paths: list[str]) -> None:
    """Raises typer.Exit where one is no import path."""
    for path in paths:
        if not re.fullmatch(r"[\w.-]+:[\w.]+", path):
            raise failed(f"'{path}' is no import path", "write module:attribute, such as main:app")


def look(
    paths: list[str], folder: Path, kept: Mapping[str, Variables], values: Variables, timeout: float
) -> list[Found]:
    """Where each is imported from, and what it is. ``kept``, ``values``: variables of each, and of all of them."""
    folders = python_folders(folder)
    apps = [App(find_module(path.partition(":")[0], folder, folders) or folder, path) for path in paths]
    outcomes: dict[App, Outcome] = {}
    for root in dict.fromkeys(app.root for app in apps):
        mine = [app for app in apps if app.root == root]
        asked = [target(app.import_path, env_vars={**kept.get(app.import_path, {}), **values}) for app in mine]
        outcomes |= zip(mine, inspect(root, asked, [], timeout), strict=True)
    return [(app, outcomes[app]) for app in apps]


def _read(files: list[Path]) -> dict[str, str]:
    from serveconf.spec.envfile import read_env_file

    values: dict[str, str] = {}
    for file in files:
        more, problems = read_env_file(file)
        if problems:
            raise failed(str(problems[0]), "write NAME=value, a line for each")
        values |= more
    return values


def _variables_of(file: Path) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """What the spec that is to be written over sets for each import path: the values, and the texts as written there."""
    from serveconf.spec.load import load_file
    from serveconf.spec.problems import SpecInvalid, join

    values: dict[str, dict[str, str]] = {}
    texts: dict[str, dict[str, str]] = {}
    try:
        loaded = load_file(file, env=os.environ)
    except SpecInvalid:  # it is not there, or no help
        return values, texts
    for index, deployment in enumerate(loaded.spec.deployments):
        path = f"deployments[{index}].ray_actor_options.runtime_env.env_vars"
        said = deployment.ray_actor_options.runtime_env.get("env_vars") or {}
        values[deployment.import_path] = dict(said)
        texts[deployment.import_path] = {
            name: loaded.masks.get(join(path, name), value.replace("$", "$$")) for name, value in said.items()
        }
    return values, texts


def _write(
    found: list[Found], variables: Mapping[str, Variables], named: Variables, file: Path, *, force: bool
) -> None:
    """A file for each folder where imports start; the one with the most apps is ``file``."""
    folder = Path(os.path.abspath(file.parent))
    roots: dict[Path, list[Entry]] = {}
    for name, (app, outcome) in zip(names_for([app.import_path for app, _ in found]), found, strict=True):
        entry = Entry(
            name=name,
            import_path=app.import_path,
            kind=outcome.kind if outcome.ok else None,
            factory=app.factory,
            env_vars=variables.get(app.import_path, named),
        )
        roots.setdefault(app.root, []).append(entry)
    stacks: list[str] = []
    for root, entries in sorted(roots.items(), key=lambda item: (-len(item[1]), item[0])):
        app_dir = os.path.relpath(root, folder)
        stack = _stack_name(app_dir, folder, stacks) if len(roots) > 1 else None
        path = file if len(stacks) <= 1 else file.with_name(f"{file.stem}-{stack}{file.suffix}")
        if path.exists() and not force:
            raise failed(f"{path} is there already", "give --force to write over it")
        text = spec_text(
            entries,
            schema=write_schema(folder),
            alone=len(found) == 1,
            stack=stack,
            app_dir=None if app_dir == "." else app_dir,
        )
        write_whole(path, text)
        typer.echo(f"wrote {path}: {', '.join(entry.import_path for entry in entries)}")
        if ignored := write_ignore(root):
            typer.echo(f"wrote {os.path.relpath(ignored)}: says how to name what is data, and what is code after all")


def _stack_name(app_dir: str, folder: Path, taken: list[str]) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.name if app_dir == "." else app_dir).strip("-") or "stack"
    while name in taken:
        name += "2"
    taken.append(name)
    return name


def write_ignore(folder: Path) -> Path | None:
    """Write it; None where there is one."""
    file = folder / OUR_FILE
    if file.exists():
        return None
    write_whole(file, TEMPLATE)
    return file
