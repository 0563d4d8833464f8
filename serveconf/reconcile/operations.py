"""The operations that run and the last of those that are done, with the room there is for requests that wait."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from serveconf.errors import NoRoom
from serveconf.reconcile.operation import Operation, Standing
from serveconf.reconcile.requests import ApplyRequest

KEPT_OPERATIONS = 100
QUEUED_BYTES = 64_000_000  # of all requests that were not brought to an end yet


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
