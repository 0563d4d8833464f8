"""A deployment whose requests are a fluid: what ``decide`` says is done, and counted as proxies count."""

from __future__ import annotations

from collections.abc import Callable

from serveconf.plan.demand import Sample
from serveconf.plan.scaling import Cause, Fleet, Past, Rule, Verdict, decide

TICK_S = 0.25
STEPS = 25  # of the fluid in each tick


class Scaled:
    """Requests come at a rate, take ``service_s`` each, three at a time on each replica, and wait where there is no room."""

    def __init__(
        self,
        rule: Rule,
        *,
        number: int = 1,
        service_s: float = 0.2,
        start_s: float = 1.0,
        at_once: int = 1000,
        takes_s: Callable[[], float] | None = None,
    ) -> None:
        """``at_once``: so many replicas start at a time, the others after them; ``takes_s``: what the next start takes."""
        self.rule, self.number, self.service_s, self.start_s = rule, number, service_s, start_s
        self.at_once, self.takes_s = at_once, takes_s or (lambda: start_s)
        self.time = 0.0
        self.ready = number
        self.starts: list[float] = []  # when each of those that are starting is ready
        self.ordered = 0  # replicas that have not begun to start
        self.begun_at = 0.0  # when the last one began to
        self.turns: list[float] = []  # each fall: how long after the last start began, where one was under way
        self.past = Past()
        self.numbers: list[int] = []
        self.causes: list[Cause] = []
        self.verdict: Verdict | None = None
        self.arrivals = self.completions = self.ongoing = self.ongoing_s = self.waiting_s = 0.0
        self.waits_since: float | None = None
        self.silent = False
        self.blurred: Callable[[float], float] = lambda seen: seen

    @property
    def waiting(self) -> float:
        return max(0.0, self.ongoing - 3 * self.ready)

    def run(self, seconds: float, rate: Callable[[float], float] | float, *, wall: float = 0.0) -> Scaled:
        until = self.time + seconds
        while self.time < until - 1e-9:
            self._flow(rate(self.time) if callable(rate) else rate)
            self._decide(wall + self.time)
        return self

    def serve(self, seconds: float, clients: int, pause_s: Callable[[float], float] | float) -> Scaled:
        """Clients that ask again when they have had an answer, and then a pause."""
        until = self.time + seconds
        while self.time < until - 1e-9:
            paused = pause_s(self.time) if callable(pause_s) else pause_s
            self._flow(lambda: max(0.0, clients - self.ongoing) / max(paused, TICK_S / STEPS))  # noqa: B023
            self._decide(self.time)
        return self

    def _start(self) -> None:
        self.ready += sum(start <= self.time for start in self.starts)
        self.starts = [start for start in self.starts if start > self.time]
        while self.ordered and len(self.starts) < self.at_once:
            self.starts.append(self.time + self.takes_s())
            self.ordered, self.begun_at = self.ordered - 1, self.time

    def _flow(self, rate: Callable[[], float] | float) -> None:
        for _ in range(STEPS):
            dt = TICK_S / STEPS
            self.time += dt
            self._start()
            came = (rate() if callable(rate) else rate) * dt
            self.arrivals += came
            done = min(self.ongoing, 3 * self.ready) * dt / self.service_s
            self.completions += done
            self.ongoing = max(0.0, self.ongoing + came - done)
            self.ongoing = 0.0 if self.ongoing < 1e-3 else self.ongoing
            self.ongoing_s += self.ongoing * dt
            self.waiting_s += self.waiting * dt
            if self.waiting < 1e-6:
                self.waits_since = None
            elif self.waits_since is None:
                self.waits_since = self.time

    def sample(self) -> Sample:
        return Sample(
            time=self.time,
            arrivals=round(self.arrivals),
            completions=round(self.completions),
            ongoing_s=self.ongoing_s,
            waiting_s=self.waiting_s,
            ongoing=round(self.blurred(self.ongoing)),
            waiting=round(self.blurred(self.waiting)),
            oldest_wait_s=0.0 if self.waits_since is None else self.time - self.waits_since,
            silent=self.silent,
        )

    def fleet(self) -> Fleet:
        return Fleet(number=self.number, ready=self.ready, starting=len(self.starts), start_s=self.start_s)

    def _decide(self, wall: float) -> None:
        self.verdict, self.past = decide(self.rule, self.past, self.sample(), self.fleet(), wall=wall)
        number = self.verdict.number
        if number != self.number:
            self.causes.append(self.verdict.cause)
        if number < self.number and self.starts:
            self.turns.append(self.time - self.begun_at)
        self.ordered += max(0, number - self.number)
        self._start()
        for _ in range(self.number - number):
            if self.ordered:
                self.ordered -= 1
            elif self.starts:
                self.starts.pop()
            else:
                self.ready -= 1
        self.number = number
        self.numbers.append(number)
