"""What the processes that take requests say of each deployment's load, added up over all of them.

``Scaling`` hands in each report as it comes and asks for a ``Sample``. A process that has ended takes what it had running
with it; one that is silent makes the sample say so.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import msgspec

from serveconf.figures import DeploymentLoad, LoadReport
from serveconf.plan.demand import Sample

SILENT_S = 3.0  # a process that has requests reports four times a second
QUIET_S = 40.0  # ... one that has none four times a minute
NOTHING = DeploymentLoad()


class _Sums(msgspec.Struct):
    """What was counted since this controller began."""

    arrivals: int = 0
    completions: int = 0
    ongoing_s: float = 0.0
    waiting_s: float = 0.0


@dataclass
class _Source:
    """One process: when it was heard last, and what it said."""

    heard: float = float("-inf")  # never yet
    slower: float = 1.0
    loads: dict[str, DeploymentLoad] = field(default_factory=dict)


class Loads:
    """By ``stack/deployment``, as the reports are."""

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}
        self._sums: defaultdict[str, _Sums] = defaultdict(_Sums)
        self._now: dict[
            str, str
        ] = {}  # the name that a deployment is still reported under → the one that it is to have
        self._busy: defaultdict[str, set[str]] = defaultdict(set)  # deployment -> processes that have requests for it

    def expect(self, source: str) -> None:
        """A process will report; until it has it is silent."""
        self._sources.setdefault(source, _Source())

    def take(self, source: str, report: LoadReport, now: float, *, slower: float = 1.0) -> list[str]:
        """A process has reported; the deployments that it has something new of.

        The first report of a process tells where its sums stand, not what happened: this controller may be younger.
        """
        its = self._sources.setdefault(source, _Source())
        first = its.heard < 0
        loads = {self._now.get(name, name): load for name, load in report.loads.items()}
        for name, load in loads.items():
            before = its.loads.get(name, load if first else NOTHING)
            if load.arrivals < before.arrivals:  # it counts anew
                before = NOTHING
            sums = self._sums[name]
            sums.arrivals += load.arrivals - before.arrivals
            sums.completions += load.completions - before.completions
            sums.ongoing_s += load.ongoing_s - before.ongoing_s
            sums.waiting_s += load.waiting_s - before.waiting_s
            its.loads[name] = load
            busy = self._busy[name]
            (busy.add if load.ongoing else busy.discard)(source)
        its.heard, its.slower = now, slower
        return list(loads)

    def move(self, old: str, new: str) -> None:
        """A deployment gets another name: what is reported under the old one is of the new one from now on."""
        former = {reported: new if name == old else name for reported, name in self._now.items() if reported != new}
        self._now = former | {old: new}
        if old in self._sums:
            self._sums[new] = self._sums.pop(old)
        if old in self._busy:
            self._busy[new] = self._busy.pop(old)
        for source in self._sources.values():
            if old in source.loads:
                source.loads[new] = source.loads.pop(old)

    def own(self, name: str) -> None:
        """A deployment of this name is there: what is reported under it is its own."""
        self._now.pop(name, None)

    def lose(self, source: str) -> list[str]:
        """A process has ended; the deployments that it had requests for."""
        its = self._sources.pop(source, None)
        busy = [name for name, load in its.loads.items() if load.ongoing] if its else []
        for name in busy:
            self._busy[name].discard(source)
        return busy

    def forget(self, name: str) -> None:
        """The deployment is gone."""
        self._now = {old: new for old, new in self._now.items() if new != name}
        self._sums.pop(name, None)
        self._busy.pop(name, None)
        for source in self._sources.values():
            source.loads.pop(name, None)

    def sample(self, name: str, now: float) -> Sample:
        """All of it as of now; what was there at each process's last report is taken to be there still."""
        sums = self._sums[name]
        ongoing = waiting = 0
        ongoing_s, waiting_s, oldest_s = sums.ongoing_s, sums.waiting_s, 0.0
        for source in self._busy[name]:
            its = self._sources[source]
            load, since = its.loads[name], now - its.heard
            ongoing += load.ongoing
            waiting += load.waiting
            ongoing_s += load.ongoing * since
            waiting_s += load.waiting * since
            if load.waiting:
                oldest_s = max(oldest_s, load.oldest_wait_s + since)
        return Sample(
            time=now,
            arrivals=sums.arrivals,
            completions=sums.completions,
            ongoing_s=ongoing_s,
            waiting_s=waiting_s,
            ongoing=ongoing,
            waiting=waiting,
            oldest_wait_s=oldest_s,
            silent=self._silent(name, now),
        )

    def _silent(self, name: str, now: float) -> bool:
        busy = self._busy[name]
        return any(
            now - its.heard > its.slower * (SILENT_S if source in busy else QUIET_S)
            for source, its in self._sources.items()
        )
