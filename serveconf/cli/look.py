"""``status``, ``routes`` and ``history``: what is there, and how it came to be."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serveconf.cli.common import Output, OutputOption, chosen, colors, errors_shown, print_json, width
from serveconf.errors import AuthorError

if TYPE_CHECKING:
    from serveconf.client import Client

StackOption = Annotated[
    str | None, typer.Option("--stack", help="Name of the stack; it may be left out where there is only one.")
]


def stack_meant(client: Client, stack: str | None, *, deployments: Sequence[str] = ()) -> str:
    """The stack that a command is about: the named one, the only one there is, or the only one with these deployments.

    Raises AuthorError where several could be meant.
    """
    if stack is not None:
        return stack
    stacks: dict[str, set[str]] = {
        one["name"]: {d["name"] for d in one["deployments"]} for one in client.status()["stacks"]
    }
    fitting = [name for name, has in stacks.items() if has.issuperset(deployments)] if deployments else [*stacks]
    if len(fitting) == 1:
        return fitting[0]
    if len(stacks) <= 1:
        return next(iter(stacks), "default")
    raise AuthorError(
        f"there are {len(stacks)} stacks: {', '.join(stacks)}",
        hint="say which one is meant with --stack NAME",
        code="stack",
    )


def status(
    deployment: Annotated[
        str | None, typer.Argument(metavar="[DEPLOYMENT]", help="Show this one in full.", show_default=False)
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every second, until Ctrl-C.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 where something is not healthy.")] = False,
    stack: StackOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show stacks, deployments, replicas and proxies, their states and the generation.

    Of one deployment also what its spec says, and its restarts and events of the last hour.
    """
    from serveconf.launch import find

    with errors_shown(output):
        client = find(chosen.address, chosen.token)
        if watch and deployment is None and output is Output.TEXT and colors():
            from serveconf.cli.live_status import watch_status

            last = watch_status(client, stack)
            raise typer.Exit(1 if exit_code and not is_healthy(last) else 0)
        while True:
            found, text = _looked_at(client, deployment, stack)
            if output is Output.JSON:
                print_json(found)
            else:
                if watch and colors():
                    typer.echo("\x1b[2J\x1b[H", nl=False)
                typer.echo(text)
            if not watch:
                break
            try:
                time.sleep(1.0)
            except KeyboardInterrupt:
                break
    healthy = found["state"] == "Healthy" if deployment is not None else is_healthy(found)
    raise typer.Exit(1 if exit_code and not healthy else 0)


def _looked_at(client: Client, deployment: str | None, stack: str | None) -> tuple[dict[str, Any], str]:
    """The status, or one deployment of it, as data and as text."""
    if deployment is None:
        from serveconf.cli.status_view import render_status

        found: dict[str, Any] = client.status()
        if stack is not None:
            from serveconf.cli.deployment_view import find_stack

            found["stacks"] = [find_stack(found, stack)]
        return found, render_status(found, color=colors())
    from serveconf.cli.deployment_view import look_at_deployment, render_deployment

    one = look_at_deployment(client, stack_meant(client, stack, deployments=(deployment,)), deployment)
    return one, render_deployment(one, color=colors(), width=width())


def is_healthy(found: dict[str, Any]) -> bool:
    """Every stack serves as it was applied, every proxy is up at the generation, and Ray answers."""
    if found["controller"].get("silent_s") is not None:
        return False
    stacks = all(stack["state"] in ("Healthy", "Pinned", "RolledBack", "Invalid") for stack in found["stacks"])
    return stacks and all(p["state"] == "Ready" and p["generation"] == found["generation"] for p in found["proxies"])


TestOption = Annotated[
    str | None,
    typer.Option(
        "--test", metavar="'[METHOD] URL'", help="Say who would take this request, and why.", show_default=False
    ),
]
HeaderOption = Annotated[
    list[str] | None,
    typer.Option("-H", "--header", metavar="'NAME: VALUE'", help="A header of that request; may be repeated."),
]


def routes(test: TestOption = None, header: HeaderOption = None, output: OutputOption = Output.TEXT) -> None:
    """Show the live routing table, or who would take a request."""
    from serveconf.cli.status_view import render_routes, render_verdict
    from serveconf.launch import find

    if header and test is None:
        raise typer.BadParameter("a header belongs to --test")
    if nameless := [one for one in header or () if ":" not in one.strip()[1:]]:
        raise typer.BadParameter(f"'{nameless[0]}' is no header: write 'NAME: VALUE'")
    with errors_shown(output):
        client = find(chosen.address, chosen.token)
        if test is not None:
            method, blank, url = test.strip().rpartition(" ")
            verdict = client.test_route(method.strip().upper() if blank else "GET", url, header or ())
            if output is Output.JSON:
                print_json(verdict)
            else:
                typer.echo(render_verdict(verdict, color=colors()))
            return
        found = client.routes()
    if output is Output.JSON:
        print_json(found)
    else:
        typer.echo(render_routes(found, color=colors()))


def history(
    revision: Annotated[int | None, typer.Argument(help="Show this revision in full.", show_default=False)] = None,
    stack: StackOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show the revisions of a stack, or one of them with its spec."""
    from serveconf.cli.history_view import render_history, render_revision
    from serveconf.launch import find

    with errors_shown(output):
        client = find(chosen.address, chosen.token)
        name = stack_meant(client, stack)
        found: Any = client.history(name) if revision is None else client.revision(name, revision)
    if output is Output.JSON:
        print_json(found)
    else:
        typer.echo(render_history(found, width=width()) if revision is None else render_revision(found))
