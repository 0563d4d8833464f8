"""What each deployment asks of this process, and the reports of it that the controller waits for.

``Backend`` notes on a ``Load`` each request that comes, waits and goes. A load is kept as time integrals, so that a burst
between two reports is in the second one in full. ``Reporter`` answers a call that waits until there is something to say.
"""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic
from weakref import WeakValueDictionary

from serveconf.figures import DeploymentLoad, LoadReport

EVERY_S = 0.25  # between two reports while there are requests
AT_ONCE_S = 0.1  # ... at least, also where something has to be known at once
QUIET_S = 15.0  # after which a report is made with nothing to say: so the controller knows that it is heard


class Load:
    """One deployment's, in this process. A request costs two additions at its begin and three at its end."""

    __slots__ = (
        "__weakref__",
        "_ongoing_s",
        "_reporter",
        "_waiting_s",
        "arrivals",
        "completions",
        "first_wait",
        "name",
        "ongoing",
        "served_s",
        "told",
        "waiting",
    )

    def __init__(self, name: str, reporter: Reporter) -> None:
        self.name = name
        self.arrivals = 0
        self.completions = 0
        self.served_s = 0.0
        self.ongoing = 0
        self.waiting = 0
        self.first_wait = 0.0  # when the one that has waited longest began to
        self.told = True  # the reporter has nothing more to say of it
        self._ongoing_s = 0.0  # the integral at time t is this + ongoing * t
        self._waiting_s = 0.0
        self._reporter = reporter

    def arrive(self, now: float) -> None:
        """A request came."""
        self.arrivals += 1
        self.ongoing += 1
        self._ongoing_s -= now
        if self.told:
            self._reporter.note(self, at_once=self.ongoing == 1)

    def leave(self, now: float) -> None:
        """A request has gone, however it ended."""
        self.ongoing -= 1
        self._ongoing_s += now

    def wait(self, now: float) -> None:
        """A request that came has to wait. That the first one does is news, for nothing has to be waited for."""
        self.waiting += 1
        self._waiting_s -= now
        if self.waiting == 1:
            self.first_wait = now
            self._reporter.note(self, at_once=True)

    def go_on(self, now: float) -> None:
        """A request waits no more."""
        self.waiting -= 1
        self._waiting_s += now

    def at(self, now: float) -> DeploymentLoad:
        """All of it, as of this moment."""
        return DeploymentLoad(
            self.arrivals,
            self.completions,
            self.served_s,
            self.ongoing,
            self.waiting,
            self._ongoing_s + self.ongoing * now,
            self._waiting_s + self.waiting * now,
            now - self.first_wait if self.waiting else 0.0,
        )


class Reporter:
    """The loads of one process, and who waits to hear of them: one caller, which says what it has heard."""

    def __init__(self) -> None:
        self._loads: WeakValueDictionary[str, Load] = WeakValueDictionary()
        self._changed: list[Load] = []  # to be told; those that have requests stay in it
        self._at_once = False
        self._wake = asyncio.Event()
        self._number = 0
        self._last = 0.0

    def load(self, name: str) -> Load:
        """The load of a deployment, for as long as anyone holds it."""
        found = self._loads.get(name)
        if found is None:
            found = self._loads[name] = Load(name, self)
        return found

    def rename(self, load: Load, name: str) -> None:
        """Its deployment has another name from now on; its sums go on."""
        self._loads.pop(load.name, None)
        load.name = name
        self._loads[name] = load

    def note(self, load: Load, *, at_once: bool) -> None:
        """There is something to say of it."""
        if load.told:
            load.told = False
            self._changed.append(load)
        self._at_once = self._at_once or at_once
        self._wake.set()

    async def report(self, seen: int, *, slower: float = 1.0) -> LoadReport:
        """What is new since report ``seen``, when it is due; all there is where that was not the last one.

        ``slower``: how much longer than usual it may take; so the controller bounds what many proxies send it.
        """
        if seen:
            await self._until_due(slower)
        now = self._last = monotonic()
        loads = self._changed if seen == self._number else list(self._loads.values())
        told = {load.name: load.at(now) for load in loads}
        self._changed = [load for load in self._changed if load.ongoing or load.name not in told]
        for load in loads:
            load.told = not load.ongoing
        self._at_once = False
        self._number += 1
        return LoadReport(number=self._number, time=now, loads=told)

    async def _until_due(self, slower: float) -> None:
        quiet_until = monotonic() + QUIET_S
        while True:
            if self._at_once:
                due = self._last + AT_ONCE_S * slower
            elif self._changed:
                due = self._last + EVERY_S * slower
            else:
                due = quiet_until
            pause_s = due - monotonic()
            if pause_s <= 0:
                return
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
