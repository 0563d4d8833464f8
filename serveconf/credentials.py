"""The two tokens of a control API, the secrets of its webhooks, and how each end proves that it knows a token without saying it.
Pure; both ends call it.

The second token, which may look and change nothing, follows from the first: who may write can tell it without asking anyone.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import StrEnum

_READ = "ro_"
WEBHOOK_NAME = "^[A-Za-z0-9._-]{1,100}$"  # one part of the path that a git host calls
AUTHOR_HEADER = "x-serveconf-author"  # user@host, percent-encoded: who calls, as he says himself


class Role(StrEnum):
    """What a caller of the control API may do."""

    READ = "read"
    WRITE = "write"


def read_only(token: str) -> str:
    """The read-only token that belongs to a token; of a read-only one it is that itself."""
    if role_of(token) is Role.READ:
        return token
    return _READ + hmac.digest(token.encode(), b"serveconf read-only token", hashlib.sha256).hex()


def role_of(token: str) -> Role:
    """What its owner may do."""
    return Role.READ if token.startswith(_READ) else Role.WRITE


def fingerprint(secret: str) -> str:
    """Names a token or a session to whoever reads what was done with it, and says nothing of it."""
    return hmac.digest(secret.encode(), b"serveconf fingerprint", hashlib.sha256).hex()[:8]


def prove(token: str, challenge: str) -> str:
    """The answer to a challenge that only who knows the token can give."""
    return hmac.digest(token.encode(), b"serveconf control API\0" + challenge.encode(), hashlib.sha256).hex()


def is_proof(given: str, token: str, challenge: str) -> bool:
    """Whether it is that answer."""
    return hmac.compare_digest(given.encode(), prove(token, challenge).encode())


def webhook_secret(token: str, name: str) -> str:
    """The secret of a webhook: it follows from the token that may write, and says nothing of it."""
    return "wh_" + hmac.digest(token.encode(), b"serveconf webhook\0" + name.encode(), hashlib.sha256).hex()


def is_from_webhook(token: str, name: str, body: bytes, *, signature: str, plain: str) -> bool:
    """Whether a call is signed with the webhook's secret, as GitHub does (``sha256=HMAC``), or brings it, as GitLab does."""
    secret = webhook_secret(token, name).encode()
    if signature:
        right = "sha256=" + hmac.digest(secret, body, hashlib.sha256).hex()
        return hmac.compare_digest(signature.encode(), right.encode())
    return hmac.compare_digest(plain.encode(), secret)
