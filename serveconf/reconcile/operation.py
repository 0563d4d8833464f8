"""One running apply: the events that it tells as it goes, and its result at the end."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

Event = dict[str, Any]


class Operation:
    """Whoever follows gets every event from the first on, however late he comes."""

    def __init__(self, stack: str, operation_id: str | None = None) -> None:
        self.id = operation_id or secrets.token_hex(6)
        self.stack = stack
        self.result: Event | None = None
        self.resolved = asyncio.Event()  # the reconciler has settled the target, or given it up
        self.task: asyncio.Task[None] | None = None
        self._events: list[Event] = []
        self._news = asyncio.Event()

    def tell(self, event: Event) -> None:
        """Add an event."""
        if event["event"] == "resolved":
            self.resolved.set()
        else:
            self._events.append(event)
            self._news.set()

    def finish(self, result: Event) -> None:
        """Add the last event: the contract's apply JSON."""
        self.result = result
        self.tell({"event": "result", **result})

    async def follow(self) -> AsyncIterator[Event]:
        """Every event, past and to come, until the result."""
        position = 0
        while True:
            self._news.clear()
            while position < len(self._events):
                event = self._events[position]
                position += 1
                yield event
                if event["event"] == "result":
                    return
            await self._news.wait()
