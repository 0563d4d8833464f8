"""Whose turn it is: one apply of a stack at a time, in the order in which they came.

Nobody waits for a canary that would be replaced anyway: what comes after it, and wants something else, takes its place.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from serveconf.reconcile.operations import Operation
from serveconf.reconcile.stacks import Stacks

Supersede = Callable[[], Awaitable[None]]  # ends the stack's canary, where the one who waits wants something else


class Turns:
    """Of all stacks. ``has_canary``: whether what is being applied to a stack is a canary."""

    def __init__(self, stacks: Stacks, has_canary: Callable[[str], bool]) -> None:
        self._stacks = stacks
        self._has_canary = has_canary
        self._lines: defaultdict[str, deque[Operation]] = defaultdict(deque)
        self._running: dict[str, Operation] = {}

    def running(self, stack: str) -> Operation | None:
        """Whose turn it is."""
        return self._running.get(stack)

    @asynccontextmanager
    async def taken(self, operation: Operation, supersede: Supersede | None) -> AsyncIterator[None]:
        """While its body runs it is the operation's turn. What ``supersede`` raises is raised before it comes."""
        stack = operation.stack
        line = self._lines[stack]
        line.append(operation)
        _hurry(line)
        try:
            await self._wait(operation, supersede)
            with self.seen_through(operation):
                yield
        finally:
            line.remove(operation)
            _hurry(line)
            self._stacks.tell(stack)

    @contextmanager
    def seen_through(self, operation: Operation) -> Iterator[None]:
        """While its body runs what the stack tells is told to the operation, unless it is another one's turn."""
        if self._running.setdefault(operation.stack, operation) is not operation:
            yield
            return
        try:
            yield
        finally:
            del self._running[operation.stack]

    async def _wait(self, operation: Operation, supersede: Supersede | None) -> None:
        stack, line = operation.stack, self._lines[operation.stack]
        looked_at: int | None = None
        said = False
        while (target := self._target(stack)) is not None or line[0] is not operation:
            if not said:
                operation.tell({"event": "wait", "message": f"another apply of stack '{stack}' is running"})
                said = True
            if supersede is not None and target != looked_at and self._has_canary(stack):
                looked_at = target
                await supersede()
            else:
                await self._stacks.news(stack)

    def _target(self, stack: str) -> int | None:
        head = self._stacks.head(stack)
        return head.target if head is not None else None


def _hurry(line: deque[Operation]) -> None:
    """The first in it does not wait for what it has replaced while others wait for it."""
    if len(line) > 1:
        line[0].hurried = True
