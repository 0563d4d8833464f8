"""``BusyPoll``: a replica that is asked one thing after another, in quick succession, does not fall asleep in between.

To wake a sleeping process on another core takes longer than most of what is then done. So when all is answered the event
loop goes on polling its sockets for a moment, as network stacks and hypervisors do, where what came before has shown that
the next thing comes within that moment. Where requests come more slowly nothing is polled, and a wrong guess costs
``POLL_S`` of one core once. On each turn it yields its core to whoever wants it, and where somebody has wanted most of it, it
leaves it alone for a while. ``SERVECONF_POLLING=0`` in a replica's environment is its switch.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from time import monotonic

POLL_S = 500e-6
STREAK = 16  # so many requests in a row that came in time, before it polls for the next one
LOOK_S = 0.02  # how long it polls before it sees whether others want this core
MOST_WAITED = 0.5  # the part of that time for which it may have waited for the core; its own proxy and client take 0.35
FIRST_REST_S = 0.25  # and how long it does not poll where it was more; each time in a row twice as long
LONGEST_REST_S = 8.0


class BusyPoll:
    """One per replica; its event loop calls everything here. ``waited_s``: how long this thread has waited for a core."""

    __slots__ = (
        "_answered_at",
        "_is_polling",
        "_looked_at",
        "_rest_s",
        "_rests_until",
        "_streak",
        "_until",
        "_waited",
        "_waited_s",
    )

    def __init__(self, waited_s: Callable[[], float] | None) -> None:
        """Without ``waited_s`` nothing is polled."""
        self._waited_s = waited_s
        self._answered_at = 0.0
        self._is_polling = False
        self._streak = 0
        self._until = 0.0
        self._looked_at = 0.0
        self._waited = 0.0
        self._rest_s = FIRST_REST_S
        self._rests_until = 0.0 if waited_s is not None else float("inf")

    def asked(self) -> None:
        """Something came in."""
        self._streak = self._streak + 1 if monotonic() - self._answered_at < POLL_S else 0
        self._until = 0.0

    def answered(self, loop: asyncio.AbstractEventLoop) -> None:
        """All that came in is answered."""
        self._answered_at = now = monotonic()
        if self._streak >= STREAK and now >= self._rests_until:
            self._until = now + POLL_S
            if not self._is_polling:
                self._is_polling = True
                loop.call_soon(self._poll, loop)

    def _poll(self, loop: asyncio.AbstractEventLoop) -> None:
        now = monotonic()
        if now < self._until and self._has_core(now):
            os.sched_yield()  # to whoever else wants this core
            loop.call_soon(self._poll, loop)
        else:
            self._is_polling = False
            if self._until:  # it is past, and nobody has asked: a wrong guess
                self._streak = 0

    def _has_core(self, now: float) -> bool:
        """Whether nobody else wants the core, as far as it was looked at."""
        past = now - self._looked_at
        if past < LOOK_S:
            return True
        assert self._waited_s is not None
        before, self._waited, self._looked_at = self._waited, self._waited_s(), now
        if past > 2 * LOOK_S or self._waited - before <= MOST_WAITED * past:
            if past <= 2 * LOOK_S:
                self._rest_s = FIRST_REST_S
            return True
        self._rests_until = now + self._rest_s
        self._rest_s = min(2 * self._rest_s, LONGEST_REST_S)
        return False


def own_wait_s() -> float:
    """How long this thread has waited for a core since it began. OSError where the system does not tell."""
    with open("/proc/thread-self/schedstat", "rb", buffering=0) as file:
        return int(file.read(64).split()[1]) / 1e9


def make_poll() -> BusyPoll:
    """As the environment wants it, where this system can tell how long a thread has waited."""
    if os.environ.get("SERVECONF_POLLING", "1") == "0":
        return BusyPoll(None)
    try:
        own_wait_s()
    except OSError:
        return BusyPoll(None)
    return BusyPoll(own_wait_s)
