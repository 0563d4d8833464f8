"""Who calls, for the records: what the guard has let him in by, and whom he says to be. Nobody is let in by this."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, Header, Request

from serveconf.admin.guard import CREDENTIAL
from serveconf.credentials import AUTHOR_HEADER
from serveconf.reconcile.requests import Caller

LONGEST = 200

Author = Annotated[str, Header(alias=AUTHOR_HEADER, description="Who calls, for events and history: user@host.")]


def _calling(request: Request, author: Author = "") -> Caller:
    return Caller(author=unquote(author)[:LONGEST], token=request.scope.get(CREDENTIAL, ""))


Calling = Annotated[Caller, Depends(_calling)]
