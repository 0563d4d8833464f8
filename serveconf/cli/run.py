"""``serveconf run`` and ``serveconf watch``: apply, then apply again whenever the spec or the code has changed.

What does not validate or start leaves the last good state serving.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serveconf.cli.apply import reach, show_apply, take_back
from serveconf.cli.common import (
    EXIT_OF,
    EnvFileOption,
    Output,
    SpecArgument,
    chosen,
    errors_shown,
    load,
    show_error,
    show_problems,
    tell,
)
from serveconf.cli.ending import Ending
from serveconf.cli.lasting import lasting_output
from serveconf.cli.quick import spec_file
from serveconf.errors import ServeconfError
from serveconf.spec.models import Location
from serveconf.spec.problems import SpecInvalid

if TYPE_CHECKING:
    from serveconf.client import Client
    from serveconf.spec.load import Loaded


def run(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE | MODULE:APP...]",
            help="The spec file; or what to serve without one: module:attribute, or Python files.",
            show_default=False,
        ),
    ] = None,
    no_watch: Annotated[
        bool, typer.Option("--no-watch", help="Apply once and serve; do not look for changes.")
    ] = False,
    save: Annotated[Path | None, typer.Option("--save", help="Write the spec of such a run to this file.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="HTTP port of a run without a spec file.")
    ] = None,
    env_file: EnvFileOption = None,
) -> None:
    """Start what is missing, apply, watch file and code, show what happens. Ctrl-C stops what was started.

    Without an argument it serves serve.yaml, or the FastAPI apps found below the folder.
    Exit code 0 after Ctrl-C or SIGTERM, else as apply.
    """
    code = 0
    with lasting_output(), Ending(still_stopping) as ending, errors_shown(Output.TEXT), suppress(KeyboardInterrupt):
        file, note = spec_file(targets or [], save=save, port=port, env_files=env_file or ())
        if note:
            tell(note)
        loaded = load(file, env_file)
        found = reach(loaded)
        existed = True
        try:
            existed = any(stack["name"] == loaded.spec.name for stack in found.client.status()["stacks"])
            code = _serve(file, loaded, found.client, env_file, watching=not no_watch)
        finally:
            with ending.held():
                _stop(found.client, loaded.spec.name, started=found.started, existed=existed)
    raise typer.Exit(0 if ending.told else code)


def watch(file: SpecArgument, env_file: EnvFileOption = None) -> None:
    """Apply to a running cluster, and again whenever the spec or the code has changed. Ctrl-C only stops watching."""
    from serveconf.launch import find

    code = 0
    with lasting_output(), Ending() as ending, errors_shown(Output.TEXT), suppress(KeyboardInterrupt):
        loaded = load(file, env_file)
        code = _serve(file, loaded, find(chosen.address, chosen.token), env_file, watching=True)
    raise typer.Exit(0 if ending.told else code)


def still_stopping() -> None:
    """A second Ctrl-C, while what was started is being stopped."""
    tell("stopping already; one moment")


def _serve(file: Path, loaded: Loaded, client: Client, env_files: list[Path] | None, *, watching: bool) -> int:
    """Apply once, then keep following the files until Ctrl-C. Returns the exit code."""
    from serveconf.watch.files import fingerprint

    try:
        seen = fingerprint(loaded.files, loaded.app_dir)
        code = EXIT_OF[_apply_once(client, loaded, automatic=False)["outcome"]]
        if code != 0:
            return code
        _greet(loaded, watching=watching)
        if watching:
            _follow_files(file, loaded, client, env_files, seen)
        else:
            threading.Event().wait()
    except KeyboardInterrupt:
        return 0
    return 0


def _follow_files(file: Path, loaded: Loaded, client: Client, env_files: list[Path] | None, seen: str) -> None:
    """Apply each settled change; start to watch anew after each, as other files may belong to it by then."""
    from serveconf.watch.files import changes

    stop = threading.Event()
    while True:
        seen = next(changes(loaded.files, loaded.app_dir, seen=seen, stop=stop))
        tell("changed: looking at it")
        try:
            loaded = load(file, env_files)
            _apply_once(client, loaded, automatic=True)
        except SpecInvalid as invalid:
            show_problems(invalid, Output.TEXT)
            tell("what was applied before goes on serving")
        except ServeconfError as error:
            show_error(error, Output.TEXT)


def _apply_once(client: Client, loaded: Loaded, *, automatic: bool) -> dict[str, Any]:
    from serveconf.submit import submit

    submission = submit(loaded, client, automatic=automatic)
    operation = client.begin(submission.stack, "apply", submission.body)
    try:
        return show_apply(client, operation, loaded)
    except KeyboardInterrupt:
        take_back(client, operation, loaded)
        raise


def _greet(loaded: Loaded, *, watching: bool) -> None:
    http = loaded.spec.http_options
    if http.location is not Location.NO_SERVER:
        host = "127.0.0.1" if http.host == "0.0.0.0" else http.host
        for deployment in loaded.spec.deployments:
            if deployment.prefix is not None:
                tell(f"  {deployment.name}: http://{host}:{http.port}{deployment.prefix}")
    tell("watching the spec and the code; Ctrl-C stops" if watching else "serving; Ctrl-C stops")


def _stop(client: Client, stack: str, *, started: bool, existed: bool) -> None:
    """Take away what this run has started, and nothing else."""
    from serveconf.launch import shut_down
    from serveconf.submit import author, follow

    if started:
        tell("stopping")
        shut_down(client.address, client.token, tell)
    elif not existed:
        tell(f"removing stack {stack}")
        operation = client.begin(stack, "delete", {"author": author()})
        follow(client, operation, lambda event: None)
