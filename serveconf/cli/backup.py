"""``backup`` and ``restore``: all stacks with their revisions and code, as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from serveconf.cli.applying import exit_code_of, watch_apply
from serveconf.cli.common import Output, chosen, errors_shown, exit_code_of_error, print_json, show_error, tell
from serveconf.cli.options import OutputOption
from serveconf.errors import Conflict, NotFound, OperatorError, ServeconfError

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The file.", show_default=False)]


def backup(
    file: FileArgument,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Write all stacks, their revisions and their code to a file that only its owner can read.

    Values that came from variables are in it, as the replicas need them: keep it as you keep secrets.
    """
    from serveconf.backup_file import encode_backup
    from serveconf.launch import find
    from serveconf.private import write_private

    with errors_shown(output):
        if file.exists() and not force:
            raise OperatorError(f"{file} is there already", hint="give --force to write over it")
        found = find(chosen.address, chosen.token).backup()
        data = encode_backup(found)
        try:
            write_private(file, data)
        except OSError as error:
            raise OperatorError(f"the backup can't be written to {file}: {error.strerror}") from error
        told = {
            "file": str(file),
            "stacks": [stack.name for stack in found.stacks],
            "revisions": sum(len(stack.revisions) for stack in found.stacks),
            "packages": len(found.code),
            "bytes": len(data),
            "secrets": any(stack.secret for stack in found.stacks),
        }
    if output is Output.JSON:
        print_json(told)
        return
    typer.echo(
        f"Wrote {file}: {len(found.stacks)} stacks, {told['revisions']} revisions, {len(found.code)} code packages, "
        f"{len(data) / 1e6:.1f} MB."
    )
    if told["secrets"]:
        typer.echo("It holds values that came from variables: keep it as you keep secrets.")


def restore(
    file: FileArgument,
    stack: Annotated[str | None, typer.Option("--stack", help="Only this stack of the file.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Stacks that live go back to what the file holds.")
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Bring the stacks of a backup up again, each as one apply. Starts a local Ray where no cluster is in reach.

    Each is brought up whatever becomes of the others. Exit codes as apply's, the highest of all; 6 where a stack lives and
    --replace is not given: then nothing is touched.
    """
    from serveconf.backup_file import decode_backup
    from serveconf.launch import find_or_start

    with errors_shown(output):
        try:
            saved = decode_backup(file.read_bytes())
        except OSError as error:
            raise OperatorError(f"{file} can't be read: {error.strerror}") from error
        wanted = [one for one in saved.stacks if stack in (None, one.name)]
        if stack is not None and not wanted:
            names = ", ".join(one.name for one in saved.stacks) or "none"
            raise NotFound(f"the backup has no stack '{stack}'", hint=f"its stacks: {names}")
        client = find_or_start(chosen.address, chosen.token, http=None, tell=tell).client
        there = {one["name"] for one in client.status()["stacks"]} & {one.name for one in wanted}
        if there and not replace:
            raise Conflict(
                f"these stacks live: {', '.join(sorted(there))}",
                hint="--replace has them go back to what the file holds; --stack NAME restores only that one",
            )
        for digest, data in saved.code.items():
            if not client.has_code(digest):
                client.put_code(digest, data)
        results: list[dict[str, Any]] = []
        errors: dict[str, ServeconfError] = {}
        for one in wanted:
            tell(f"stack {one.name}:")
            try:
                results.append(watch_apply(client, client.restore(one, replaces=replace), None))
            except ServeconfError as error:  # the other stacks are brought up all the same
                errors[one.name] = error
                if output is not Output.JSON:
                    show_error(error, output)
    if output is Output.JSON:
        told = [{"stack": name, "error": error.as_json()} for name, error in errors.items()]
        print_json({"stacks": results, **({"errors": told} if told else {})})
    raise typer.Exit(max(*map(exit_code_of, results), *map(exit_code_of_error, errors.values()), 0, 0))
