"""Who is listened to for the load. A pending call at each process that takes requests is answered when it has something to report;
scripts, which nobody can ask, say with each look at the routing table what they have asked for so far.

``Scaling`` says who is to be listened to, and hears what is reported, and of whom nothing more can be heard.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Set
from typing import Protocol

from serveconf.background import Tasks
from serveconf.errors import ServeconfError
from serveconf.figures import DeploymentLoad, LoadReport
from serveconf.reconcile.ports import Clock

log = logging.getLogger("serveconf.scaling")

SOURCES = 100  # processes that report as often as they would; more report as much less often
AGAIN_S = 1.0  # after a call that failed
Take = Callable[[str, LoadReport, float], None]  # (source, report, how much slower it reports)
GONE_S = 3.0  # a script looks at the table four times a second


class Reporting(Protocol):
    """What of the cluster this needs."""

    async def load_report(self, source: str, seen: int, *, slower: float) -> LoadReport:
        """What a process has to say after its report ``seen``, when there is something. Raises OperatorError where it can't."""


class Listening:
    """To all of them. ``expect``: a process is listened to from now on; ``lose``: nothing more comes from it."""

    def __init__(
        self,
        reporting: Reporting,
        clock: Clock,
        tasks: Tasks,
        *,
        take: Take,
        expect: Callable[[str], None],
        lose: Callable[[str], None],
    ) -> None:
        self._reporting, self._clock, self._tasks = reporting, clock, tasks
        self._take, self._expect, self._lose = take, expect, lose
        self._listeners: dict[str, asyncio.Task[None]] = {}

    def turn_to(self, sources: Set[str]) -> None:
        """Listen to these, and to nobody else."""
        heard = {source for source, listener in self._listeners.items() if not listener.done()}
        for source in self._listeners.keys() - heard:  # one that a fault has ended begins anew
            del self._listeners[source]
            self._lose(source)
        for source in sources - heard:
            self._expect(source)
            self._listeners[source] = self._tasks.start(self._hear(source), name=f"load of {source}")
        for source in self._listeners.keys() - sources:
            self._listeners.pop(source).cancel()
            self._lose(source)

    async def _hear(self, source: str) -> None:
        seen = 0
        while True:
            slower = max(1.0, len(self._listeners) / SOURCES)
            try:
                report = await self._reporting.load_report(source, seen, slower=slower)
            except ServeconfError as error:
                if seen:  # it has ended, and may come back, or it does not answer: then its sums are what they were
                    log.warning("a process does not report its load", extra={"of": source, "reason": error.message})
                seen = 0
                await self._clock.sleep(AGAIN_S)
                continue
            seen = report.number
            self._take(source, report, slower)


class Scripts:
    """Those that were heard lately. ``take``: it has reported; ``lose``: nothing more comes from it."""

    def __init__(self, clock: Clock, *, take: Callable[[str, LoadReport], None], lose: Callable[[str], None]) -> None:
        self._clock, self._take, self._lose = clock, take, lose
        self._heard: dict[str, float] = {}

    def hear(self, script: str, loads: Mapping[str, DeploymentLoad]) -> None:
        """What the script of this name asks of each deployment, since it began."""
        source = f"script {script}"
        self._heard[source] = self._clock.now()
        self._take(source, LoadReport(loads=dict(loads)))

    def let_go(self) -> None:
        """Of those that have ended."""
        now = self._clock.now()
        for source in [one for one, heard in self._heard.items() if now - heard > GONE_S]:
            del self._heard[source]
            self._lose(source)
