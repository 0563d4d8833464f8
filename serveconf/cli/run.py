"""``serveconf run``: start what is missing, apply, and apply again whenever a spec or its code has changed; then stop it all.

What does not validate or start leaves the last good state serving.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serveconf.cli.applying import reach
from serveconf.cli.common import Output, chosen, colors, errors_shown, show_problems, tell
from serveconf.cli.ending import Ending
from serveconf.cli.lasting import lasting_output
from serveconf.cli.options import EnvFileOption
from serveconf.cli.quick import spec_file
from serveconf.errors import ServeconfError
from serveconf.spec.problems import SpecInvalid

if TYPE_CHECKING:
    from serveconf.client import Client
    from serveconf.spec.load import Loaded

SourcesArgument = Annotated[
    list[Path],
    typer.Argument(metavar="FILE|FOLDER...", help="Spec files, or folders of them.", show_default=False),
]


def run(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE... | FOLDER | MODULE:APP...]",
            help="Spec files, or a folder of them; or what to serve without one: module:attribute, or Python files.",
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
    no_logs: Annotated[bool, typer.Option("--no-logs", help="Do not show what the apps write.")] = False,
    env_file: EnvFileOption = None,
) -> None:
    """Start what is missing, apply, watch file and code, show what happens. Ctrl-C stops what was started.

    Without an argument it serves serve.yaml, or the FastAPI apps found below the folder.
    Exit code 0 after Ctrl-C, SIGTERM or SIGHUP, else as apply.
    """
    code = 0
    with lasting_output(), Ending(still_stopping) as ending, errors_shown(Output.TEXT), suppress(KeyboardInterrupt):
        sources, note = _sources(targets or [], save, port, env_file or [])
        if note:
            tell(note)
        running = _Running(sources, env_file)
        try:
            running.start()
            code = running.serve(ending, watching=not no_watch, logs=not no_logs)
        finally:
            with ending.held():
                running.stop()
    raise typer.Exit(0 if ending.told else code)


def _sources(
    targets: list[str], save: Path | None, port: int | None, env_files: list[Path]
) -> tuple[list[Path], str | None]:
    """What to follow, and what to tell about it: several files or folders as they are, else what ``spec_file`` makes of it."""
    from serveconf.watch.sources import ENDINGS

    specs = [Path(target) for target in targets if target.endswith(ENDINGS) or Path(target).is_dir()]
    if len(targets) > 1 and len(specs) == len(targets) and save is None and port is None:
        return specs, None
    file, note = spec_file(targets, save=save, port=port, env_files=env_files)
    return [file], note


def still_stopping() -> None:
    """A second Ctrl-C, while what was started is being stopped."""
    tell("stopping already; one moment")


class _Running:
    """One ``run``: what it has started, it stops."""

    def __init__(self, sources: list[Path], env_files: list[Path] | None) -> None:
        self._sources = sources
        self._env_files = env_files
        self._first = first_spec(sources, env_files)
        self._client: Client | None = None
        self._started = False
        self._existed: frozenset[str] = frozenset()
        self._tried: Iterable[str] = ()

    def start(self) -> None:
        """Find the control API, or start it."""
        found = reach(self._first)
        self._started, self._client = found.started, found.client
        self._existed = frozenset(stack["name"] for stack in found.client.status()["stacks"])

    def serve(self, ending: Ending, *, watching: bool, logs: bool) -> int:
        """Apply, and follow the files, until a signal ends it. Returns the exit code."""
        from serveconf.cli.app_logs import AppLogs
        from serveconf.cli.follow import follow_stacks, is_one_file, once_settled
        from serveconf.cli.watch_view import TextView
        from serveconf.watch.ports import FirstFailure, Options
        from serveconf.watch.serving import ControlApi

        one = is_one_file(self._sources)
        options = Options(
            env_files=tuple(self._env_files or ()),
            watching=watching,
            first_failure=FirstFailure.ENDS if one else FirstFailure.GOES_ON,
        )
        footer = "watching the spec and the code; Ctrl-C stops" if watching else "serving; Ctrl-C stops"
        terminal = colors(sys.stderr)
        with TextView(sys.stderr, color=terminal, live=terminal) as view:
            api = ControlApi(lambda: self._reached(view.say), view.tell, by_hand=True, sources=self._sources)
            shown = AppLogs(api.current, lambda: api.tried, view.status, view.app_line if logs else None, self._existed)
            try:
                return follow_stacks(
                    ending, self._sources, api, options, view.tell, [once_settled(lambda: view.rest(footer))]
                )
            finally:
                self._tried = api.tried
                shown.stop()

    def stop(self) -> None:
        """Take away what this run has started, and nothing else."""
        from serveconf.client import author
        from serveconf.launch import shut_down
        from serveconf.submit import follow

        if self._started:
            tell("stopping")
            shut_down(None if self._client is None else self._client.address, chosen.token, tell)
            return
        for stack in sorted(set(self._tried) - self._existed):
            assert self._client is not None
            tell(f"removing stack {stack}")
            with suppress(ServeconfError):  # it is not there, or nobody is left to ask
                operation = self._client.begin(stack, "delete", {"author": author()})
                follow(self._client, operation, lambda event: None)

    def _reached(self, say: Callable[[str], None]) -> Client:
        """The control API, started again where it has gone with all that there was."""
        if self._client is None or not self._client.healthy():
            found = reach(self._first, say)
            self._started, self._client = self._started or found.started, found.client
        return self._client


def first_spec(sources: list[Path], env_files: list[Path] | None) -> Loaded:
    """The first spec that is valid: its front is what has to be free. Raises SpecInvalid where none is."""
    from serveconf.cli.follow import found_specs
    from serveconf.spec.load import load_file

    wrong: list[SpecInvalid] = []
    for file in found_specs(sources):
        try:
            return load_file(file, env=os.environ, env_files=env_files or ())
        except SpecInvalid as invalid:
            wrong.append(invalid)
    for one in wrong[:-1]:
        show_problems(one, Output.TEXT)
    raise wrong[-1]
