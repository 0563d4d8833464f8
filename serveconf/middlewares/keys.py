"""``ApiKey`` and ``BasicAuth``: who may come in, by what only they know. Only hashes are kept, and compared in constant time.

``python -m serveconf.middlewares.keys`` reads a key or password from the terminal and prints what to write down.
Hashes come from the arguments (``${VAR}`` in YAML, masked wherever it is shown) or from a file, a ``name:hash`` a line.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from serveconf.middlewares.answers import KINDS, answer, header, token, without

_MEMORY = 1024  # verified passwords that are remembered, as keyed hashes
_SCRYPT = {"n": 2**14, "r": 8, "p": 1}


class ApiKey:
    """401 without a known key. Keys are long and random, so one round of SHA-256 keeps them: ``sha256:HEX``.

    ``keys``: name → hash (or one hash, or a list of them); ``file``: more of them; ``header``: where the key stands
    (``authorization`` means ``Bearer KEY``); ``name_header``: tells the app the name of the key that was used.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Mapping[str, str] | Iterable[str] | str = (),
        *,
        file: str | None = None,
        header: str = "x-api-key",
        name_header: str = "x-api-key-name",
    ) -> None:
        self.app = app
        if isinstance(keys, str):
            keys = [keys]
        named = dict(keys) if isinstance(keys, Mapping) else {str(number): key for number, key in enumerate(keys, 1)}
        named |= _read(file) if file else {}
        if not named:
            raise ValueError("there are no keys: give keys or file")
        self._names = {_digest(name, text): name.encode() for name, text in named.items()}
        self._header = token(header)
        self._is_bearer = self._header == b"authorization"
        self._name_header = token(name_header)
        self._dropped = frozenset((self._header, self._name_header))
        self._challenge = ((b"www-authenticate", b"Bearer" if self._is_bearer else b"ApiKey"),)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in KINDS:
            await self.app(scope, receive, send)
            return
        key = header(scope, self._header) or b""
        if self._is_bearer:
            kind, _, key = key.partition(b" ")
            key = key if kind.lower() == b"bearer" else b""
        name = self._name_of(key) if key else None
        if name is None:
            await answer(scope, receive, send, 401, "An API key is needed", self._challenge)
            return
        headers = [*without(scope["headers"], self._dropped), (self._name_header, name)]
        await self.app({**scope, "headers": headers}, receive, send)

    def _name_of(self, key: bytes) -> bytes | None:
        """All of them are compared, whichever fits: how long it takes tells nothing."""
        digest = hashlib.sha256(key).digest()
        found = None
        for known, name in self._names.items():
            if hmac.compare_digest(known, digest):
                found = name
        return found


class BasicAuth:
    """401 without a name and its password (RFC 7617). Passwords are kept as ``scrypt:SALT:HEX``.

    A password is hashed once, in a thread; from then on the process remembers that it was right.
    ``user_header`` tells the app the name.
    """

    def __init__(
        self,
        app: ASGIApp,
        users: Mapping[str, str] | None = None,
        *,
        file: str | None = None,
        realm: str = "serveconf",
        user_header: str = "x-user",
    ) -> None:
        self.app = app
        self._users = {**(users or {}), **(_read(file) if file else {})}
        if not self._users:
            raise ValueError("there are no users: give users or file")
        for name, text in self._users.items():
            if text.count(":") != 2 or not text.startswith("scrypt:"):
                raise ValueError(f"the hash of {name!r} is no scrypt:SALT:HEX; serveconf.middlewares.keys makes one")
        if '"' in realm or "\\" in realm or not realm.isprintable():
            raise ValueError("realm must be plain text without quotes")
        self._nobody = hash_password(secrets.token_hex(8))  # an unknown name takes as long as a known one
        self._secret = secrets.token_bytes(32)
        self._right: dict[bytes, str] = {}
        self._user_header = token(user_header)
        self._dropped = frozenset((b"authorization", self._user_header))
        self._challenge = ((b"www-authenticate", f'Basic realm="{realm}", charset="UTF-8"'.encode()),)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in KINDS:
            await self.app(scope, receive, send)
            return
        name = await self._user_of(header(scope, b"authorization") or b"")
        if name is None:
            await answer(scope, receive, send, 401, "A name and a password are needed", self._challenge)
            return
        headers = [*without(scope["headers"], self._dropped), (self._user_header, name.encode())]
        await self.app({**scope, "headers": headers}, receive, send)

    async def _user_of(self, credentials: bytes) -> str | None:
        mark = hmac.digest(self._secret, credentials, "sha256")
        if mark in self._right:
            return self._right[mark]
        kind, _, text = credentials.partition(b" ")
        try:
            name, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        if kind.lower() != b"basic" or not colon or len(password) > 1024:
            return None
        known = self._users.get(name)
        is_right = await run_in_threadpool(check_password, password, known or self._nobody)
        if known is None or not is_right:
            return None
        if len(self._right) >= _MEMORY:
            self._right.clear()
        self._right[mark] = name
        return name


def hash_key(key: str) -> str:
    """What to write down for an API key."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def hash_password(password: str, salt: str | None = None) -> str:
    """What to write down for a password; 16 MiB and some tens of milliseconds for whoever guesses."""
    salt = salt or secrets.token_hex(16)
    return f"scrypt:{salt}:{hashlib.scrypt(password.encode(), salt=salt.encode(), **_SCRYPT).hex()}"


def check_password(password: str, text: str) -> bool:
    """Whether it is the password that ``hash_password`` was given."""
    return hmac.compare_digest(hash_password(password, text.split(":")[1]), text)


def _digest(name: str, text: str) -> bytes:
    kind, _, digits = text.partition(":")
    try:
        digest = bytes.fromhex(digits) if kind == "sha256" else b""
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise ValueError(f"the hash of key {name!r} is no sha256:HEX; serveconf.middlewares.keys makes one")
    return digest


def _read(file: str) -> dict[str, str]:
    """``name:hash`` lines; blank ones and those that begin with # are passed over."""
    found = {}
    for number, line in enumerate(Path(os.path.expanduser(file)).read_text("utf-8").splitlines(), 1):
        name, colon, text = line.strip().partition(":")
        if not name or name.startswith("#"):
            continue
        if not colon:
            raise ValueError(f"{file}:{number}: must read name:hash")
        found[name] = text
    return found


if __name__ == "__main__":
    from getpass import getpass

    given = getpass("Key or password: ")
    print(f"an API key:  {hash_key(given)}\na password:  {hash_password(given)}")
