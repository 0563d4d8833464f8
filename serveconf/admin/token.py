"""``POST /api/v1/token``: another token in place of the one that is known to somebody who should not know it."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.exceptions import HTTPException

from serveconf.admin.callers import Calling
from serveconf.admin.keys import Keys
from serveconf.admin.models import TokenModel
from serveconf.credentials import Role, fingerprint
from serveconf.reconcile.journal import EventKind, Note, unheard


def token_router(keys: Keys, note: Note = unheard) -> APIRouter:
    """Its one route. It is noted who has asked."""
    router = APIRouter(tags=["change"])

    @router.post("/token")
    async def rotate(caller: Calling) -> TokenModel:
        """Make a new token. The old one, the read-only one, the secrets of webhooks and the sessions of browsers end with it."""
        if not caller.token.startswith(
            f"{Role.WRITE}:"
        ):  # a browser may do what its session may, and is not told the token
            raise HTTPException(403, "the token is told to nobody but who has brought the one before")
        token = await keys.replace()
        name = f"{Role.WRITE}:{fingerprint(token)}"
        data = {**caller.told(), "new": name}
        note(kind=EventKind.TOKEN, message=f"the token was replaced{caller}: from now on it is {name}", data=data)
        return TokenModel(token=token)

    return router
