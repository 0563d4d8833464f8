"""``Redirect`` and ``StripPrefix``: where a path belongs elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from serveconf.middlewares.answers import KINDS, answer, header

_PORT = re.compile(rb":[0-9]*\Z")  # of a Host; the colons of an IPv6 address are in brackets (RFC 3986 §3.2.2)


class Redirect:
    """Sends clients elsewhere: ``https: true`` from HTTP to HTTPS, ``host`` to the one name, ``paths`` from prefix to prefix.

    ``status``: 308 keeps method and body and is remembered by clients; 307 is not remembered; 301 and 302 are the old ones.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        https: bool = False,
        host: str | None = None,
        paths: Mapping[str, str] | None = None,
        status: int = 308,
    ) -> None:
        self.app = app
        if status not in (301, 302, 303, 307, 308):
            raise ValueError(f"{status} is no redirect")
        if not (https or host or paths):
            raise ValueError("give https, host or paths")
        self._https = https
        self._host = host.encode("ascii") if host else None
        longest_first = sorted((paths or {}).items(), key=lambda pair: -len(pair[0]))
        self._paths = [(start.rstrip("/").encode(), to.rstrip("/").encode()) for start, to in longest_first]
        self._status = status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        location = self._location(scope) if scope["type"] == "http" else None
        if location is None:
            await self.app(scope, receive, send)
            return
        await answer(scope, receive, send, self._status, "It is elsewhere", ((b"location", location),))

    def _location(self, scope: Scope) -> bytes | None:
        """Where the client should go; None where it is right already."""
        asked = header(scope, b"host") or b""
        scheme = b"https" if self._https else scope["scheme"].encode()
        host = self._host or (_PORT.sub(b"", asked) if self._https and scope["scheme"] == "http" else asked)
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        target = self._moved(path)
        if scheme == scope["scheme"].encode() and host == asked and target == path:
            return None
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        if target.startswith((b"http://", b"https://")):
            return target + query
        # "//evil.example" is a host to a browser: one slash, whatever the client wrote
        local = b"/" + target.lstrip(b"/")
        if not host:
            return local + query
        return b"%b://%b%b%b" % (scheme, host, local, query)

    def _moved(self, path: bytes) -> bytes:
        for start, to in self._paths:
            if path == start or path.startswith(start + b"/"):
                return (to + path[len(start) :]) or b"/"
        return path


class StripPrefix:
    """Takes ``prefix`` off the path below the route's own mount point; the app hears of it in ``X-Forwarded-Prefix``."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app = app
        if not prefix.startswith("/") or len(prefix) < 2:
            raise ValueError("prefix must start with '/' and name something")
        self._prefix = prefix.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in KINDS:
            root = scope.get("root_path", "")
            rest = scope["path"].removeprefix(root)
            if rest == self._prefix or rest.startswith(f"{self._prefix}/"):
                scope = {**scope, "path": root + (rest[len(self._prefix) :] or "/")}
                raw, start = scope.get("raw_path"), (root + self._prefix).encode()
                if raw is not None and (raw == start or raw.startswith(start + b"/")):
                    scope["raw_path"] = root.encode() + (raw[len(start) :] or b"/")
                scope["headers"] = [*scope["headers"], (b"x-forwarded-prefix", self._prefix.encode())]
        await self.app(scope, receive, send)
