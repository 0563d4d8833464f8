"""One deployment, simulated event by event: its requests, its replicas, and the sums that proxies would count.

``autoscaling.py`` has a ``Scaler`` (``autoscaling_models.py``) follow a load (``autoscaling_loads.py``) in it.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Protocol

from serveconf.plan.demand import Sample

TARGET, LIMIT, MOST, START_S, SERVICE_S = 2.0, 3, 100, 2.0, 0.2
INF = float("inf")

Request = tuple[float, float]  # when it comes, what it takes


class World:
    """One deployment: its requests, its replicas, and the sums that proxies would count."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ready = self.wanted = self.most = 1
        self.starting: deque[float] = deque()
        self.waiting: deque[Request] = deque()
        self.running = self.arrivals = self.completions = 0
        self.ongoing_s = self.waiting_s = self.replica_s = 0.0

    @property
    def ongoing(self) -> int:
        return self.running + len(self.waiting)

    def advance(self, to: float) -> None:
        passed = to - self.now
        self.ongoing_s += passed * self.ongoing
        self.waiting_s += passed * len(self.waiting)
        self.replica_s += passed * (self.ready + len(self.starting))
        self.now = to

    def scale(self, number: int) -> None:
        self.wanted = number = min(max(number, 1), MOST)
        self.most = max(self.most, number)
        while self.ready + len(self.starting) < number:
            self.starting.append(self.now + START_S)
        while self.ready + len(self.starting) > number:
            if self.starting:
                self.starting.pop()
            else:
                self.ready -= 1
                self.replica_s += SERVICE_S  # it drains

    def sample(self) -> Sample:
        return Sample(
            time=self.now,
            arrivals=self.arrivals,
            completions=self.completions,
            ongoing_s=self.ongoing_s,
            waiting_s=self.waiting_s,
            ongoing=self.ongoing,
            waiting=len(self.waiting),
            oldest_wait_s=self.now - self.waiting[0][0] if self.waiting else 0.0,
        )


class Scaler(Protocol):
    """Looks now and then, and says how many there should be."""

    def look(self, world: World) -> int:
        """The number from now on."""

    def next(self, now: float) -> float:
        """When it looks again."""

    def at_once(self, now: float) -> float:
        """When it looks after something that cannot wait: a first request, a queue that forms."""


Point = tuple[float, float, int, int]  # time, requests at a time, replicas that there should be, waiting


def simulate(requests: list[Request], seconds: float, scaler: Scaler) -> tuple[World, list[Point]]:
    """Let it run; the curve has a point for each second."""
    world, ends, curve = World(), list[Request](), list[Point]()
    coming, looks, shown, sums = 0, 0.0, 0.0, 0.0
    while True:
        arrives = requests[coming][0] if coming < len(requests) else INF
        ended = ends[0][0] if ends else INF
        starts = world.starting[0] if world.starting else INF
        world.advance(min(arrives, ended, starts, looks, seconds))
        if world.now >= shown + 1:
            curve.append((world.now, (world.ongoing_s - sums) / (world.now - shown), world.wanted, len(world.waiting)))
            shown, sums = world.now, world.ongoing_s
        if world.now >= seconds:
            return world, curve
        if world.now == ended:
            heapq.heappop(ends)
            world.running -= 1
            world.completions += 1
        elif world.now == starts:
            world.starting.popleft()
            world.ready += 1
        elif world.now == arrives:
            alone, nobody_waits = not world.ongoing, not world.waiting
            world.arrivals += 1
            world.waiting.append(requests[coming])
            coming += 1
            if alone or (nobody_waits and world.running >= world.ready * LIMIT):
                looks = min(looks, scaler.at_once(world.now))
        else:
            number = scaler.look(world)
            if number != world.wanted:
                world.scale(number)
            looks = scaler.next(world.now)
        while world.waiting and world.running < world.ready * LIMIT:
            _, takes = world.waiting.popleft()
            world.running += 1
            heapq.heappush(ends, (world.now + takes, takes))
