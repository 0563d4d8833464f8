"""``serveconf sync``: pull-based GitOps. What the branch says is what runs."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serveconf.cli.apply import finish, reach, watch_apply
from serveconf.cli.common import Output, OutputOption, errors_shown, load, show_error, tell
from serveconf.cli.ending import Ending
from serveconf.cli.lasting import lasting_output
from serveconf.errors import AuthorError, ServeconfError

if TYPE_CHECKING:
    from serveconf.watch.git import Checkout


def sync(
    git_url: Annotated[
        str, typer.Argument(metavar="GIT_URL", help="The repository, as git takes it.", show_default=False)
    ],
    branch: Annotated[
        str | None, typer.Option("--branch", help="Branch or tag; left out: the repository's own.")
    ] = None,
    path: Annotated[str, typer.Option("--path", help="The spec file in the repository.")] = "serve.yaml",
    interval: Annotated[float, typer.Option("--interval", min=1, help="Seconds between two looks.")] = 30.0,
    once: Annotated[bool, typer.Option("--once", help="Look and apply once; exit code as apply.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Apply what a git branch says, and again whenever it says something else. Respects the pin of a rollback.

    What does not validate or start leaves the last good state serving. Ctrl-C only stops looking.
    """
    from serveconf.watch.git import Checkout

    with errors_shown(output):
        checkout = Checkout(git_url, branch)
    if once:
        with errors_shown(output):
            result = _apply(checkout, checkout.pull(), path)
        finish(result, output)
    with lasting_output(), Ending(), suppress(KeyboardInterrupt):
        _follow(checkout, path, interval)


def _follow(checkout: Checkout, path: str, interval: float) -> None:
    """Apply each new commit once; what failed for want of a network or a cluster is tried again."""
    applied = ""
    while True:
        try:
            commit = checkout.pull()
            if commit != applied:
                tell(f"commit {commit[:12]}")
                _apply(checkout, commit, path)
            applied = commit
        except AuthorError as error:  # trying the same commit again would not help
            applied = commit
            show_error(error, Output.TEXT)
        except ServeconfError as error:
            show_error(error, Output.TEXT)
        time.sleep(interval)


def _apply(checkout: Checkout, commit: str, path: str) -> dict[str, Any]:
    from serveconf.submit import submit

    loaded = load(_spec_in(checkout.folder, path), None)
    client = reach(loaded).client
    submission = submit(loaded, client, automatic=True)
    return watch_apply(client, client.begin(submission.stack, "apply", {**submission.body, "commit": commit}), loaded)


def _spec_in(folder: Path, path: str) -> Path:
    """The spec file; never one outside of the repository."""
    file = (folder / path).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise AuthorError(f"--path {path} leads out of the repository")
    return file
