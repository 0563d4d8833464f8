"""``serveconf dump``: the live stacks as spec files. A plan of what it writes shows no changes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serveconf.cli.common import Output, chosen, errors_shown, print_json, tell
from serveconf.cli.looking import stack_meant
from serveconf.cli.options import OutputOption, StackOption
from serveconf.disk import write_whole
from serveconf.errors import NotFound, OperatorError

if TYPE_CHECKING:
    from serveconf.client import Client


def dump(
    stack: StackOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="A folder: each stack becomes NAME.yaml in it.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print a live stack as a spec file, or write all of them to a folder.

    Values that came from variables are written as they were in the file: ${NAME}.
    """
    from serveconf.launch import find

    with errors_shown(output):
        client = find(chosen.address, chosen.token)
        names = [one["name"] for one in client.status()["stacks"]]
        if out is None or stack is not None:
            names = [stack_meant(client, stack)]
        specs = {name: live_spec(client, name, out or Path.cwd()) for name in names}
        if out is not None:
            _write(specs, out, force=force, quiet=output is Output.JSON)
        if output is Output.JSON:
            print_json(list(specs.values()) if out is not None and stack is None else specs[names[0]])
        elif out is None:
            typer.echo(spec_yaml(specs[names[0]]), nl=False)


def live_spec(client: Client, stack: str, folder: Path) -> dict[str, Any]:
    """The spec of the revision that serves, with an app_dir that means the same from ``folder``."""
    found = next((one for one in client.status()["stacks"] if one["name"] == stack), None)
    if found is None:
        raise NotFound(f"there is no stack '{stack}'", hint="'serveconf status' lists the stacks")
    revision = client.revision(stack, found["revision"])
    spec: dict[str, Any] = {"name": stack, **revision["spec"]}
    folders = {package["app_dir"] for package in revision["packages"].values()} - {None}
    if len(folders) > 1:
        tell(f"warning: the deployments of {stack} come from several folders: {', '.join(sorted(folders))}")
    elif folders:
        app_dir = folders.pop()
        said = spec.get("app_dir", ".")
        if os.path.realpath(folder / said) != os.path.realpath(app_dir):
            spec["app_dir"] = app_dir
    if any(str(one.get("import_path", "")).startswith("__main__:") for one in spec.get("deployments", ())):
        tell(f"warning: {stack} has deployments that a script deployed by value: no file can name them")
    return _ordered(spec)


def _ordered(spec: dict[str, Any]) -> dict[str, Any]:
    first = ("name", "app_dir", "http_options", "defaults")
    return {key: spec[key] for key in (*first, *(key for key in spec if key not in first)) if key in spec}


_BREAKS = re.compile("[\r\x85\u2028\u2029]")  # YAML reads each of them as the end of a line, unless it is escaped


def spec_yaml(spec: dict[str, Any]) -> str:
    """A spec as its file; each text in a form that every YAML reader reads as that text."""
    import yaml

    from serveconf.spec.scalars import Ambiguous, resolve_plain

    class Dumper(yaml.SafeDumper):
        """Quotes what readers of YAML disagree about."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Dumper, value: str) -> yaml.ScalarNode:
        try:
            plain = resolve_plain(value) == value and not _BREAKS.search(value)
        except Ambiguous:
            plain = False
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')

    Dumper.add_representer(str, text)
    return yaml.dump(_escaped(spec), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)


def _escaped(value: Any) -> Any:
    """With each dollar of a value doubled, as it is read back; in keys there are no variables, so it stands for itself."""
    match value:
        case dict():
            return {key: _escaped(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_escaped(inner) for inner in value]
        case str() if "${" not in value:  # else it is what the file said: a variable
            return value.replace("$", "$$")
        case _:
            return value


def _write(specs: dict[str, dict[str, Any]], out: Path, *, force: bool, quiet: bool) -> None:
    """All of them or none. ``quiet``: stdout is for something else."""
    files = {out / f"{name}.yaml": spec for name, spec in specs.items()}
    if not force and (there := [str(file) for file in files if file.exists()]):  # before any is written
        which = f"{there[0]} is" if len(there) == 1 else f"{', '.join(there)} are"
        raise OperatorError(f"{which} there already", hint="give --force to write over what is there")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file, spec in files.items():
            write_whole(file, spec_yaml(spec))
            tell(f"wrote {file}") if quiet else typer.echo(f"wrote {file}")
    except OSError as error:
        raise OperatorError(f"{error.filename or out} can't be written: {error.strerror}") from error
