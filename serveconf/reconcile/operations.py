"""The applies that run: where each stands, the events that it tells as it goes, its result; and the room for those that wait.

queued --> preparing --> applying --> done
   `----------'-- cancelled: nothing touched
                        `-- cancelled before the switch: taken back
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from serveconf.errors import NoRoom
from serveconf.reconcile.requests import ApplyRequest

KEPT_OPERATIONS = 100
QUEUED_BYTES = 64_000_000  # of all requests that were not brought to an end yet
Event = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Queued:
    """An apply that has not ended."""

    size: int  # bytes of its request
    code: str


class Operations:
    """By their ids."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Operation] = OrderedDict()
        self._queued: dict[str, _Queued] = {}  # by the id of its operation

    def find(self, operation_id: str) -> Operation | None:
        """A running or recent one."""
        return self._known.get(operation_id)

    def queue(self, operation: Operation, request: ApplyRequest) -> None:
        """Remember an operation with its request, until ``ended`` is told. Raises NoRoom where too many bytes wait."""
        size = len(msgspec.json.encode(request))
        if self._queued and sum(one.size for one in self._queued.values()) + size > QUEUED_BYTES:
            raise NoRoom(
                f"{len(self._queued)} applies wait or run, and there is no room for another one",
                hint="apply again when some of them are done; 'serveconf events --follow' shows it",
                code="applies_full",
            )
        self._queued[operation.id] = _Queued(size=size, code=request.code)
        self.remember(operation)

    def remember(self, operation: Operation) -> None:
        """With the others; the oldest that are done go."""
        self._known[operation.id] = operation
        done = [known.id for known in self._known.values() if known.standing is Standing.DONE]
        for operation_id in done[: max(0, len(self._known) - KEPT_OPERATIONS)]:
            del self._known[operation_id]

    def ended(self, operation: Operation) -> None:
        """Its request waits no more."""
        self._queued.pop(operation.id, None)

    def code_queued(self) -> set[str]:
        """The code packages that the waiting requests name."""
        return {one.code for one in self._queued.values() if one.code}


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
