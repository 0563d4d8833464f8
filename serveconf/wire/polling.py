"""``BusyPoll``: a replica that is asked one thing after another, in quick succession, does not fall asleep in between.

To wake a sleeping process on another core takes longer than most of what is then done. So when all is answered the event
loop goes on polling its sockets for a moment, as network stacks and hypervisors do, where what came before has shown that
the next thing comes within that moment. Where requests come more slowly nothing is polled, and a wrong guess costs
``POLL_S`` of one core once.
"""

from __future__ import annotations

import asyncio
import os
from time import monotonic

POLL_S = 500e-6
STREAK = 16  # so many requests in a row that came in time, before it polls for the next one


class BusyPoll:
    """One per replica; its event loop calls everything here."""

    __slots__ = ("_answered_at", "_is_polling", "_streak", "_until")

    def __init__(self) -> None:
        self._answered_at = 0.0
        self._is_polling = False
        self._streak = 0
        self._until = 0.0

    def asked(self) -> None:
        """Something came in."""
        self._streak = self._streak + 1 if monotonic() - self._answered_at < POLL_S else 0
        self._until = 0.0

    def answered(self, loop: asyncio.AbstractEventLoop) -> None:
        """All that came in is answered."""
        self._answered_at = monotonic()
        if self._streak >= STREAK:
            self._until = self._answered_at + POLL_S
            if not self._is_polling:
                self._is_polling = True
                loop.call_soon(self._poll, loop)

    def _poll(self, loop: asyncio.AbstractEventLoop) -> None:
        if monotonic() < self._until:
            os.sched_yield()  # to whoever else wants this core
            loop.call_soon(self._poll, loop)
        else:
            self._is_polling = False
            if self._until:  # it is past, and nobody has asked: a wrong guess
                self._streak = 0
