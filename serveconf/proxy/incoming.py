"""What comes from the client, kept for as long as a request may have to be sent to another replica.

``Backend`` wraps ASGI's ``receive`` in it once per request, and hands it to one replica after another.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Message

MESSAGE_COST = 256  # what an empty message counts for
KEEP_BYTES = 1 << 20  # a replica that does not take a request has been sent less than this of it
AHEAD_BYTES = 64 << 10  # of a request that waits in line no more is read than this: many may wait


class Incoming:
    """ASGI ``receive``, with a memory. ``left``: the client is gone."""

    __slots__ = ("_kept", "_next", "_receive", "_size", "left")

    def __init__(self, receive: Any) -> None:
        self.left = False
        self._receive = receive
        self._kept: list[Message] | None = []
        self._next = 0  # of what was kept, to be handed out
        self._size = 0

    async def __call__(self) -> Message:
        """The next message: first those that were kept and not handed out since."""
        kept = self._kept
        if kept is not None and self._next < len(kept):
            message = kept[self._next]
            self._next += 1
            return message
        self._next += 1
        return await self._pull()

    def begin_with(self, message: Message) -> None:
        """The first message was taken, and has been handed out."""
        self._keep(message)
        self._next = 1

    async def prefetch(self) -> bool:
        """Have the first message ready; False when the client has left instead."""
        if not self._kept:
            await self._pull()
        return not self.left

    def rewind(self) -> bool:
        """Begin again for another replica; False when too much has been handed out to be kept."""
        self._next = 0
        return self._kept is not None

    async def until_client_left(self) -> None:
        """Return when the client has left; what it sends meanwhile is kept."""
        while not self.left:
            if self._size >= AHEAD_BYTES:
                await asyncio.get_running_loop().create_future()  # no more is read; if it leaves, the edge cancels us
            await self._pull()

    async def _pull(self) -> Message:
        message: Message = await self._receive()
        self._keep(message)
        return message

    def _keep(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.disconnect" or kind == "websocket.disconnect":
            self.left = True
        kept = self._kept
        if kept is not None:
            kept.append(message)
            self._size += len(message.get("body", b"")) + MESSAGE_COST
            # a WebSocket's client sends its first message when a replica has accepted it
            if (self._size > KEEP_BYTES or kind == "websocket.receive") and self._next >= len(kept):
                self._kept = None
