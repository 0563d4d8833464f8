"""``serveconf sync``: pull-based GitOps. What the branch says is what runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serveconf.cli.common import Output, chosen, errors_shown, print_json
from serveconf.cli.ending import Ending
from serveconf.cli.lasting import lasting_output
from serveconf.cli.options import EnvFileOption, OutputOption, webhook_name
from serveconf.cli.watch import (
    LogFormat,
    LogFormatOption,
    NoSelfHealOption,
    PruneOption,
    ReadyFileOption,
    RetryOption,
    make_view,
)

if TYPE_CHECKING:
    from serveconf.client import Client
    from serveconf.errors import ServeconfError
    from serveconf.watch.following import Following
    from serveconf.watch.memory import Outcome
    from serveconf.watch.ports import Said
    from serveconf.watch.repository import Repository

Firsts = dict[Path, "tuple[Outcome | None, ServeconfError | None]"]


def sync(
    git_url: Annotated[
        str, typer.Argument(metavar="GIT_URL", help="The repository, as git takes it.", show_default=False)
    ],
    branch: Annotated[
        str | None, typer.Option("--branch", help="Branch or tag; left out: the repository's own.")
    ] = None,
    path: Annotated[
        str, typer.Option("--path", help="The spec file in the repository, or a folder of them.")
    ] = "serve.yaml",
    interval: Annotated[float, typer.Option("--interval", min=1, help="Seconds between two looks.")] = 30.0,
    once: Annotated[bool, typer.Option("--once", help="Look and apply once; exit code as apply.")] = False,
    webhook: Annotated[
        str | None,
        typer.Option(
            "--webhook",
            metavar="NAME",
            callback=webhook_name,
            help="Look at once when POST /api/v1/sync/NAME of the control API is called; its secret: token --webhook NAME.",
        ),
    ] = None,
    verify_signatures: Annotated[
        bool,
        typer.Option("--verify-signatures", help="Take only commits (or tags) signed by a key that git trusts here."),
    ] = False,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            metavar="NAME",
            help="A variable that specs may fill in; also a pattern: SHOP_*. All others are unset.",
        ),
    ] = None,
    env_file: EnvFileOption = None,
    prune: PruneOption = False,
    no_self_heal: NoSelfHealOption = False,
    retry: RetryOption = False,
    ready_file: ReadyFileOption = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    output: OutputOption = Output.TEXT,
) -> None:
    """Apply what a git branch says, and again whenever it says something else. Respects the pin of a rollback.

    What does not validate or start leaves the last good state serving. Ctrl-C only stops looking.
    """
    import asyncio

    from serveconf.cli.follow import follow_stacks, readiness
    from serveconf.watch.git import Checkout
    from serveconf.watch.ports import Options
    from serveconf.watch.repository import FromGit, Repository, hear_webhook, keep_pulling

    code = 0
    with lasting_output(), Ending() as ending, errors_shown(output), suppress(KeyboardInterrupt):
        repository = Repository(Checkout(git_url, branch, verified=verify_signatures), path, verify=verify_signatures)
        options = Options(
            env_files=tuple(env_file or ()),
            prune=prune,
            self_heal=not no_self_heal and not once,
            events=False,
            poll_s=max(2.0, min(interval, 10.0)),
            lock=repository.checkout.lock,
            variables=tuple(env or ()),
        )
        view = make_view(log_format)
        say = _saying(view.tell)
        with view:
            api = FromGit(repository, lambda: _reach(say), view.tell, retry=retry)
            if once:
                code = _once(ending, repository, api, options, view.tell, output)
            else:
                called = asyncio.Event()

                async def pulling(following: Following) -> None:
                    await keep_pulling(repository, following, view.tell, interval_s=interval, called=called)

                async def hearing(following: Following) -> None:
                    await hear_webhook(lambda: api.current().webhook_calls(webhook or ""), called)

                beside = [pulling, *([hearing] if webhook else []), *([readiness(ready_file)] if ready_file else [])]
                code = follow_stacks(ending, [repository.target], api, options, view.tell, beside)
    raise typer.Exit(code if once else 0)


def _once(
    ending: Ending, repository: Repository, api: Any, options: Any, tell: Callable[[Said], None], output: Output
) -> int:
    """Pull, and try each file once; what became of them goes to stdout as JSON where that is asked for."""
    from serveconf.cli.follow import AllTried, exit_code_of_first, follow_stacks, found_specs, shown_error
    from serveconf.watch.file_lock import waited_for

    firsts: Firsts = {}

    async def until_tried(following: Following) -> None:
        while not following.all_tried:
            await following.news.wait(following.news.count, 0.1)
        firsts.update(following.firsts)
        raise AllTried

    try:
        commit = repository.fetch()
        with waited_for(repository.checkout.lock):
            repository.check_out(commit)
    except KeyboardInterrupt:
        repository.checkout.stop()
        return 0
    many = repository.target.is_dir()
    found_specs([repository.target])
    follow_stacks(ending, [repository.target], api, options, tell, [until_tried])
    if ending.told:
        return 0
    if output is Output.JSON:
        found = [
            outcome.result
            if outcome and outcome.result
            else {"file": str(file), **_not_tried(outcome, error, shown_error)}
            for file, (outcome, error) in sorted(firsts.items())
        ]
        print_json(found if many else found[0] if found else {})
    return max((exit_code_of_first(outcome, error) for outcome, error in firsts.values()), default=0)


def _not_tried(
    outcome: Outcome | None, error: ServeconfError | None, shown: Callable[[ServeconfError], dict[str, Any]]
) -> dict[str, Any]:
    if error is not None:
        return {"error": shown(error)}
    return {"outcome": "conflict", "message": outcome.message if outcome else ""}


def _reach(say: Callable[[str], None]) -> Client:
    from serveconf.launch import find_or_start

    return find_or_start(chosen.address, chosen.token, http=None, tell=say).client


def _saying(tell: Callable[[Said], None]) -> Callable[[str], None]:
    from serveconf.watch.ports import Said

    return lambda message: tell(Said(kind="start", message=message))
