"""What the control API is asked for, and how an apply is followed. Plain data, shared by server and client."""

from __future__ import annotations

from typing import Any

import msgspec


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks: as he says himself, and what let him in."""

    author: str = ""  # user@host
    token: str = ""  # its kind and its fingerprint: ``write:1a2b3c4d``, ``browser:…``

    def __str__(self) -> str:
        """At the end of a sentence: `` by ada@host (write:1a2b3c4d)``."""
        if not self.token:
            return f" by {self.author}" if self.author else ""
        return f" by {self.author} ({self.token})" if self.author else f" by {self.token}"

    def told(self) -> dict[str, Any]:
        """For an event's data."""
        return {"author": self.author, "token": self.token}


NOBODY = Caller()


class ApplyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One spec to plan or apply.

    ``spec`` holds only the keys that its file sets, values filled in; ``masks`` says which of them came from variables.
    ``code`` is the digest of the code package, ``files`` its content by path.
    """

    spec: dict[str, Any]
    masks: dict[str, str] = {}
    code: str = ""
    files: dict[str, str] = {}
    app_dir: str | None = None
    source: str = ""
    author: str = ""
    token: str = ""  # what let its author in: its kind and its fingerprint
    commit: str | None = None
    base_revision: int | None = None  # refused when the stack is at another one
    automatic: bool = False  # from a watcher: it respects a pin
    merge: bool = False  # what the spec names joins what the stack has, instead of being all of it
    alone: bool = False  # with ``merge``: its other deployments go, its http_options stay
    timeout_s: float | None = None
    max_failed: int | None = None

    @property
    def caller(self) -> Caller:
        """Who asks."""
        return Caller(author=self.author, token=self.token)


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request to stop an apply: whether it was still time."""

    undone: bool
    message: str
