"""``POST /api/v1/sync/NAME``: a git host says that a branch has moved; the ``sync`` of that name asks here whether one has.

Who calls needs no token of the control API but the webhook's own secret, and can do nothing with it but make ``sync`` look.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request
from starlette.exceptions import HTTPException

from serveconf.admin.keys import Keys
from serveconf.admin.models import CallsModel
from serveconf.credentials import WEBHOOK_NAME, fingerprint, is_from_webhook, webhook_secret
from serveconf.reconcile.journal import EventKind, Note, unheard

MOST = 1_000  # names that are remembered

Name = Annotated[str, Path(pattern=WEBHOOK_NAME, description="What sync was given as --webhook.")]
Signature = Annotated[str, Header(alias="X-Hub-Signature-256", description="GitHub: sha256=HMAC of the body.")]
Token = Annotated[str, Header(alias="X-Gitlab-Token", description="GitLab: the secret itself.")]


def webhooks_router(keys: Keys, note: Note = unheard) -> APIRouter:
    """Its two routes. ``keys``: the control API's, which the secrets follow from. Each call is noted."""
    router = APIRouter(tags=["sync"])
    calls: OrderedDict[str, int] = OrderedDict()

    @router.post("/sync/{name}", status_code=202)
    async def call(name: Name, request: Request, signature: Signature = "", plain: Token = "") -> CallsModel:
        """Have the sync of that name look at its branch at once. Needs the webhook's secret, and no token."""
        if not is_from_webhook(keys.token, name, await request.body(), signature=signature, plain=plain):
            raise HTTPException(401, f"that is not signed with the secret of webhook {name}")
        calls[name] = calls.pop(name, 0) + 1
        secret = f"webhook:{fingerprint(webhook_secret(keys.token, name))}"
        note(
            kind=EventKind.TOKEN,
            message=f"webhook {name} was called ({secret})",
            data={"token": secret, "webhook": name},
        )
        while len(calls) > MOST:
            calls.popitem(last=False)
        return CallsModel(calls=calls[name])

    @router.get("/sync/{name}")
    async def called(name: Name) -> CallsModel:
        """How often the webhook was called since this controller began: a sync looks when that is another number."""
        return CallsModel(calls=calls.get(name, 0))

    return router
