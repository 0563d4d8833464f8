"""Who looks at the dashboard: signed in by a one-time address, known by a cookie and a key, both of which it needs.

Browsers send a cookie to every port of its host, so apps that are served beside the control API see it. The key is for
this origin alone: the page keeps it and sends it with each call, which is the guard against forged calls too.
Neither is stored here: both are signed with what is derived from the token, and hold for the next controller as well.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.requests import cookie_parser

from serveconf.admin.keys import Keys
from serveconf.credentials import Role, fingerprint

INVITATION_S = 300.0
SESSION_S = 12 * 3600.0
LONGEST_S = (
    2 * SESSION_S
)  # that one may seem to have left: the clock may have been put back, but no session ends years from now
MOST_INVITATIONS = 100
KEY_HEADER = "x-serveconf-key"


class Sessions:
    """The sessions of one control API. ``name`` of the cookie: two control APIs on one machine have two."""

    def __init__(
        self,
        keys: Keys,
        *,
        name: str = "serveconf",
        wall: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._keys = keys
        self._wall = wall
        self._now = now
        self._invitations: OrderedDict[str, tuple[Role, float, str]] = OrderedDict()

    def invite(self, role: Role) -> str:
        """A code that signs one browser in, soon."""
        code = secrets.token_urlsafe(24)
        self._invitations[code] = (role, self._now() + INVITATION_S, self._keys.token)
        while len(self._invitations) > MOST_INVITATIONS:
            self._invitations.popitem(last=False)
        return code

    def sign_in(self, code: str) -> str | None:
        """The cookie's value; None for a code that was used, is too old, or never was."""
        role, until, token = self._invitations.pop(code, (Role.READ, 0.0, ""))
        if self._now() >= until or token != self._keys.token:
            return None
        ends = int(self._wall() + SESSION_S)
        said = f"{role.value}.{ends}.{secrets.token_urlsafe(12)}"
        return f"{said}.{self._sign('session', said)}"

    def key(self, session: str) -> str:
        """What the page of that session sends with each call."""
        return self._sign("key", session)

    def role(self, cookies: str, key: str) -> Role | None:
        """Of whoever sends this Cookie header and this key; None where they do not belong together, or are no more."""
        session = cookie_parser(cookies).get(self.name, "")
        said, _, signature = session.rpartition(".")
        if not _same(signature, self._sign("session", said)) or not _same(key, self.key(session)):
            return None
        role, ends, _ = said.split(".")
        return Role(role) if 0 < int(ends) - self._wall() <= LONGEST_S else None

    def named(self, cookies: str) -> str:
        """The session that this Cookie header is of, as events name it."""
        return called(cookie_parser(cookies).get(self.name, ""))

    def _sign(self, purpose: str, text: str) -> str:
        secret = hmac.digest(self._keys.token.encode(), b"serveconf dashboard sessions", hashlib.sha256)
        return hmac.new(secret, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def called(session: str) -> str:
    """Its name in events and history."""
    return f"browser:{fingerprint(session)}"


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode(), right.encode())
