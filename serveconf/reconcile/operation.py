"""One running apply: where it stands, the events that it tells as it goes, and its result at the end.

queued --> preparing --> applying --> done
   `----------'-- cancelled: nothing touched
                        `-- cancelled before the switch: taken back
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Any

Event = dict[str, Any]


class Standing(StrEnum):
    """How far an apply has come."""

    QUEUED = "queued"  # another apply of its stack runs
    PREPARING = "preparing"  # its code is looked at; nothing was touched yet
    APPLYING = "applying"  # its revision is the stack's target, or just becomes it
    DONE = "done"


class Operation:
    """Whoever follows gets every event from the first on, however late he comes."""

    def __init__(self, stack: str, operation_id: str | None = None) -> None:
        self.id = operation_id or secrets.token_hex(6)
        self.stack = stack
        self.standing = Standing.QUEUED
        self.revision: int | None = None  # from APPLYING on
        self.result: Event | None = None
        self.task: asyncio.Task[None] | None = None
        self.hurried = False  # somebody waits for its end: once it serves it waits for nothing else
        self._events: list[Event] = []
        self._news = asyncio.Event()

    def tell(self, event: Event) -> None:
        """Add an event; after the result there are none."""
        if self.result is None or event["event"] == "result":
            self._events.append(event)
            news, self._news = self._news, asyncio.Event()
            news.set()

    def finish(self, result: Event) -> None:
        """Add the last event: the contract's apply JSON."""
        self.standing = Standing.DONE
        self.result = result
        self.tell({"event": "result", **result})

    async def follow(self) -> AsyncIterator[Event]:
        """Every event, past and to come, until the result."""
        position = 0
        while True:
            news = self._news
            while position < len(self._events):
                event = self._events[position]
                position += 1
                yield event
                if event["event"] == "result":
                    return
            await news.wait()
