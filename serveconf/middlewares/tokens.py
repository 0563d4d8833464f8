"""``JWT``: a bearer token that an issuer has signed (RFC 7519, checked as RFC 8725 says: algorithms are ours to choose)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic, time
from typing import Any

import httpx
import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OctKey
from starlette.types import ASGIApp, Receive, Scope, Send

from serveconf.middlewares.answers import KINDS, answer, header, token, without

log = logging.getLogger(__name__)

_MEMORY = 1024  # verified tokens that are remembered until they expire
_RETRY_S = 10.0  # an unknown key has the set fetched again, but no more often than this
_MOST_BYTES = 16_384


class JWT:
    """401 without a valid token. One of ``jwks_url``, ``jwks_file`` and ``secret`` (HMAC) says whose signature counts.

    ``issuer`` and ``audience`` must be those of the token; ``leeway_s`` for clocks that differ. The app finds the claims
    in ``request.state.claims``, and the subject in ``subject_header``.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        issuer: str | None = None,
        audience: str | Sequence[str] | None = None,
        jwks_url: str | None = None,
        jwks_file: str | None = None,
        secret: str | None = None,
        algorithms: Sequence[str] | None = None,
        refresh_s: float = 300.0,
        leeway_s: int = 30,
        subject_header: str = "x-subject",
    ) -> None:
        self.app = app
        if sum(source is not None for source in (jwks_url, jwks_file, secret)) != 1:
            raise ValueError("give one of jwks_url, jwks_file and secret")
        default = ["HS256"] if secret is not None else ["RS256", "ES256", "Ed25519"]
        self._algorithms = list(algorithms or default)
        if "none" in map(str.lower, self._algorithms):
            raise ValueError("'none' signs nothing")
        self._leeway_s = leeway_s
        self._claims = jwt.JWTClaimsRegistry(leeway=leeway_s, **_wanted(issuer, audience))
        self._url, self._refresh_s = jwks_url, refresh_s
        self._keys: KeySet | OctKey | None = OctKey.import_key(secret) if secret is not None else None
        if jwks_file is not None:
            with open(jwks_file, "rb") as file:
                self._keys = KeySet.import_key_set(msgspec.json.decode(file.read()))
        self._fetched = -1e9
        self._tried = -1e9
        self._fetching: asyncio.Task[None] | None = None
        self._good: dict[bytes, dict[str, Any]] = {}
        self._subject_header = token(subject_header)
        self._dropped = frozenset((self._subject_header,))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in KINDS:
            await self.app(scope, receive, send)
            return
        claims = await self._check(header(scope, b"authorization") or b"")
        if isinstance(claims, str):
            challenge = b"Bearer" if not claims else b'Bearer error="invalid_token"'
            await answer(scope, receive, send, 401, claims or "A token is needed", ((b"www-authenticate", challenge),))
            return
        headers = without(scope["headers"], self._dropped)
        if isinstance(claims.get("sub"), str) and claims["sub"].isprintable():
            headers.append((self._subject_header, claims["sub"].encode()))
        state = {**scope.get("state", {}), "claims": claims}
        await self.app({**scope, "headers": headers, "state": state}, receive, send)

    async def _check(self, credentials: bytes) -> dict[str, Any] | str:
        """The claims, or why not (empty: there is no token)."""
        known = self._good.get(credentials)
        if known is not None:
            if time() < known["exp"] + self._leeway_s and not self._is_stale():
                return known
            del self._good[credentials]
        kind, _, text = credentials.partition(b" ")
        if kind.lower() != b"bearer" or not text:
            return ""
        if len(text) > _MOST_BYTES:
            return "The token is too large"
        if self._is_stale():
            await self._fetch()
        for again in (True, False):
            if self._keys is None:
                return "The issuer's keys are not known"
            try:
                found = jwt.decode(text.strip().decode("ascii"), self._keys, algorithms=self._algorithms)
                self._claims.validate(found.claims)
            except (JoseError, ValueError, TypeError) as error:  # TypeError: joserfc on a head such as {"crit": 1}
                if again and self._url and "key" in str(error).lower() and monotonic() - self._tried > _RETRY_S:
                    await self._fetch()  # it may have been signed with a key that is newer than the set
                    continue
                return "The token is not valid"
            self._remember(credentials, found.claims)
            return found.claims
        return "The token is not valid"

    def _remember(self, credentials: bytes, claims: dict[str, Any]) -> None:
        if isinstance(claims.get("exp"), int | float):
            if len(self._good) >= _MEMORY:
                self._good.clear()
            self._good[credentials] = claims

    def _is_stale(self) -> bool:
        return self._url is not None and monotonic() - self._fetched > self._refresh_s

    async def _fetch(self) -> None:
        """The key set anew: one request for all who wait. Where it fails the old one goes on."""
        if self._fetching is None or self._fetching.done():
            self._tried = monotonic()
            self._fetching = asyncio.create_task(self._fetch_once())
        await asyncio.shield(self._fetching)

    async def _fetch_once(self) -> None:
        assert self._url is not None
        try:
            async with httpx.AsyncClient(timeout=5.0) as client:
                response = await client.get(self._url)
            response.raise_for_status()
            self._keys = KeySet.import_key_set(response.json())
            self._fetched = monotonic()
            self._good.clear()
        # TypeError: what it sent may be no set of keys
        except (httpx.HTTPError, ValueError, KeyError, TypeError, JoseError) as error:
            log.warning("the issuer's keys could not be fetched", extra={"url": self._url, "why": str(error)})
            self._fetched = monotonic() - self._refresh_s + _RETRY_S  # and not at every request


def _wanted(issuer: str | None, audience: str | Sequence[str] | None) -> dict[str, Any]:
    wanted: dict[str, Any] = {"exp": {"essential": True}}
    if issuer is not None:
        wanted["iss"] = {"essential": True, "value": issuer}
    if audience is not None:
        values = [audience] if isinstance(audience, str) else list(audience)
        wanted["aud"] = {"essential": True, "values": values}
    return wanted
