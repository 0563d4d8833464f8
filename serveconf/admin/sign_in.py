"""Signing a browser in: a command asks for an address, the browser opens it once, and has a session from then on."""

from __future__ import annotations

import html
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse

from serveconf.admin import models
from serveconf.admin.guard import ROLE
from serveconf.admin.page import PAGE_HEADERS
from serveconf.admin.sessions import SESSION_S, Sessions, called
from serveconf.credentials import Role
from serveconf.reconcile.journal import EventKind, Note, unheard

API = "/api/v1"  # the cookie goes there only

_SIGNED_IN = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>serveconf</title>
<meta name="serveconf-key" content="{key}">
<script src="assets/sign-in.js"></script>
<p>Signed in. <a href=".">On to the dashboard</a></p>
"""
_TOO_LATE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>serveconf</title>
<link rel="stylesheet" href="assets/dashboard.css">
<main class="alone"><h1>This address has been used, or is too old</h1>
<p><code>serveconf dashboard</code> prints a new one.</p></main>
"""


def sign_in_router(sessions: Sessions, note: Note = unheard) -> APIRouter:
    """What the browser opens, and what command and page ask. Each sign-in is noted."""
    router = APIRouter(tags=["dashboard"])

    @router.get("/sign-in", response_class=HTMLResponse)
    async def sign_in(request: Request, code: Annotated[str, Query(description="From the address.")]) -> HTMLResponse:
        """Sign this browser in; works once. Needs no token."""
        session = sessions.sign_in(code)
        if session is None:
            return HTMLResponse(_TOO_LATE, 403, headers=PAGE_HEADERS)
        role = Role(session.partition(".")[0])
        may = "may change things" if role is Role.WRITE else "may only look"
        note(
            kind=EventKind.TOKEN,
            message=f"a browser was signed in to the dashboard, which {may}",
            data={"token": called(session)},
        )
        # No redirect: one that follows a link elsewhere would come without the cookie. The page goes on by itself.
        answer = HTMLResponse(_SIGNED_IN.format(key=html.escape(sessions.key(session))), headers=PAGE_HEADERS)
        answer.set_cookie(
            sessions.name,
            session,
            max_age=int(SESSION_S),
            path=API,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    @router.post(f"{API}/sign-in")
    async def invite(request: Request) -> models.Invitation:
        """An address that signs a browser in once, to do what the caller may do."""
        return models.Invitation(address=f"{request.base_url}sign-in?code={sessions.invite(request.scope[ROLE])}")

    @router.get(f"{API}/session")
    async def session(request: Request) -> models.SessionModel:
        """What the caller may do."""
        return models.SessionModel(role=request.scope[ROLE])

    @router.post(f"{API}/sign-out", status_code=204)
    async def sign_out() -> Response:
        """Have the browser forget its session."""
        answer = Response(status_code=204)
        answer.delete_cookie(sessions.name, path=API, httponly=True, samesite="strict")
        return answer

    return router
