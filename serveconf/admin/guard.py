"""Who may talk to the control API: a bearer token or a browser's session, no foreign Host, no call from another page.

Open to everyone are health, webhooks, which ask for a secret of their own, and the dashboard's page, which holds nothing until its
reader has signed in. Who calls is told to the records; nobody is let in by that.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from typing import Annotated
from urllib.parse import unquote, urlsplit

from fastapi import Depends, Header, Request
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serveconf.admin.keys import Keys
from serveconf.admin.sessions import KEY_HEADER, Sessions
from serveconf.credentials import AUTHOR_HEADER, Role, fingerprint
from serveconf.reconcile.requests import Caller

OPEN_PATHS = frozenset({"/", "/sign-in", "/api/v1/health"})
WEBHOOK = re.compile(r"/api/v1/sync/[^/]+")  # a POST there brings a secret of its own
OPEN_FOLDER = "/assets/"
LOOKS = re.compile(r"/api/v1/(?:stacks/[^/]+/plan|sign-in|sign-out)")  # what changes nothing although it is no GET
ROLE = "serveconf.role"  # the scope key of what the caller may do
CREDENTIAL = "serveconf.credential"  # ... and of what let him in: its kind and its fingerprint
CODE_PATH = "/api/v1/code/"
MAX_BODY_BYTES = 16_000_000  # of a spec with its file list; code packages have a limit of their own
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
LONGEST = 200
Author = Annotated[str, Header(alias=AUTHOR_HEADER, description="Who calls, for events and history: user@host.")]


class Guard:
    """ASGI middleware in front of the control API. ``hosts``: names by which it may be addressed; empty: any."""

    def __init__(self, app: ASGIApp, *, keys: Keys, hosts: frozenset[str], sessions: Sessions) -> None:
        self._app = app
        self._keys = keys
        self._hosts = hosts
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 or 401, or pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._refuse(scope, Headers(scope=scope))
        if refused is not None:
            await refused(scope, receive, send)
        elif scope["path"].startswith(CODE_PATH):
            await self._app(scope, receive, send)
        else:
            await _within_limit(self._app, scope, receive, send)

    def _refuse(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        path = scope["path"]
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if self._hosts and host not in self._hosts:
            return _error(403, "foreign_host", f"this API does not answer for the host '{host}'")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return _error(403, "cross_origin", f"calls from pages of {origin} are refused")
        if (
            path in OPEN_PATHS
            or path.startswith(OPEN_FOLDER)
            or (scope["method"] == "POST" and WEBHOOK.fullmatch(path))
        ):
            return None
        role, scope[CREDENTIAL] = self._let_in(headers)
        scope[ROLE] = role
        if role is None:
            hint = "give --token or SERVECONF_TOKEN; on the machine that started it the commands find it by themselves"
            return _error(401, "unauthorized", "the control API needs its token", hint)
        if role is Role.READ and scope["method"] not in ("GET", "HEAD") and not LOOKS.fullmatch(path):
            return _error(403, "read_only", "this token may look, and change nothing", "use the token that may write")
        return None

    def _let_in(self, headers: Headers) -> tuple[Role | None, str]:
        """What the caller may do, by its token or by its session, and the name of that."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            for role, token in self._keys.by_role().items():
                if secrets.compare_digest(given.strip().encode(), token):
                    return role, f"{role.value}:{fingerprint(token.decode())}"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return None, ""  # an app on another port of this host is the same site, and has the cookie
        cookies = headers.get("cookie", "")
        return self._sessions.role(cookies, headers.get(KEY_HEADER, "")), self._sessions.named(cookies)


class _TooLarge(Exception):
    """The body is longer than any request of this API."""


async def _within_limit(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 413 as soon as a body is too long, however it is framed."""
    taken, begun = 0, False

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MAX_BODY_BYTES:
            raise _TooLarge
        return message

    async def noted(message: Message) -> None:
        nonlocal begun
        if taken > MAX_BODY_BYTES:  # what the framework makes of the interruption
            return
        begun = True
        await send(message)

    with suppress(_TooLarge):
        await app(scope, counted, noted)
    if taken > MAX_BODY_BYTES and not begun:
        message = f"the body is larger than {MAX_BODY_BYTES} bytes"
        await _error(413, "too_large", message)(scope, receive, send)


def _error(status: int, code: str, message: str, hint: str | None = None) -> JSONResponse:
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"error": {"code": code, "message": message, "hint": hint}}, status, headers)


def _calling(request: Request, author: Author = "") -> Caller:
    return Caller(author=unquote(author)[:LONGEST], token=request.scope.get(CREDENTIAL, ""))


Calling = Annotated[Caller, Depends(_calling)]
