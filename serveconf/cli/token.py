"""``serveconf token`` and ``dashboard``: how others get in.

The control API's token, for other machines, scrapers and scripts; an address that signs a browser in, once.
"""

from __future__ import annotations

import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer

from serveconf.cli.common import Output, chosen, errors_shown, print_json, tell
from serveconf.cli.options import OutputOption, webhook_name

if TYPE_CHECKING:
    from serveconf.client import Client


def token(
    read_only: Annotated[
        bool, typer.Option("--read-only", help="The token that may look and ask for plans, and change nothing.")
    ] = False,
    webhook: Annotated[
        str | None,
        typer.Option(
            "--webhook",
            metavar="NAME",
            callback=webhook_name,
            help="The secret of the webhook of that name, for sync --webhook NAME.",
        ),
    ] = None,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Have it replaced by a new one; the old one opens nothing any more.")
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print the control API's token.

    Give it to others by --token-file or SERVECONF_TOKEN: what stands in a command line everybody on the machine can read.
    """
    from serveconf import credentials
    from serveconf.errors import Unauthorized
    from serveconf.launch import find

    with errors_shown(output):
        client = find(chosen.address, chosen.token)
        if rotate:
            _rotate(client)
        if webhook is not None:
            if credentials.role_of(client.token) is credentials.Role.READ:
                raise Unauthorized("a webhook's secret follows from the token that may write")
            secret = credentials.webhook_secret(client.token, webhook)
            if output is Output.JSON:
                name = f"webhook:{credentials.fingerprint(secret)}"
                print_json({"secret": secret, "webhook": webhook, "name": name})
            else:
                typer.echo(secret)
            return
        found = credentials.read_only(client.token) if read_only else client.token
        if output is Output.JSON:
            role = credentials.role_of(found).value
            print_json({"token": found, "role": role, "name": f"{role}:{credentials.fingerprint(found)}"})
        else:
            typer.echo(found)


def _rotate(client: Client) -> None:
    """The commands of this machine go on with the new one by themselves."""
    from dataclasses import replace

    from serveconf.home import read_record, write_record

    record = read_record()
    before = client.token
    token = client.rotate_token()
    if (record.address, record.token) == (client.address, before):
        write_record(replace(record, token=token))
    tell(
        "The token is another one now. What else knew the old one needs it: other machines, scrapers, webhooks, browsers."
    )


def dashboard(
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser of this machine.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print an address that signs a browser in to the dashboard; it works once, within five minutes."""
    from serveconf.launch import find

    with errors_shown(output):
        address = find(chosen.address, chosen.token).invite()
    if output is Output.JSON:
        print_json({"address": address})
    else:
        typer.echo(address)
    if open_it:
        webbrowser.open(address)
