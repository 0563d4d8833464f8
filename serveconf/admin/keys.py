"""The control API's token, which may be replaced while it serves; everything that follows from a token follows the newest one."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

from serveconf.credentials import Role, read_only

Keep = Callable[[str], Awaitable[None]]


class Keys:
    """The token that counts. ``keep`` writes another one where the next controller finds it."""

    def __init__(self, token: str, keep: Keep | None = None) -> None:
        self.token = token
        self._keep = keep

    def by_role(self) -> dict[Role, bytes]:
        """What a caller of each role brings."""
        return {Role.WRITE: self.token.encode(), Role.READ: read_only(self.token).encode()}

    async def replace(self) -> str:
        """A new token; from now on the old one, and all that followed from it, opens nothing. It is kept before it counts."""
        token = secrets.token_urlsafe(32)
        if self._keep is not None:
            await self._keep(token)
        self.token = token
        return token
