"""Who decides on the number of replicas: serveconf's own decision, and models of Ray Serve's and Knative's.

The models are written from the public documentation of the two; everything else about them is left out, in their favour.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from autoscaling_world import INF, MOST, START_S, TARGET, Scaler, World

from serveconf.plan.scaling import Fleet, Past, Rule, decide


@dataclass
class Serveconf:
    """``plan.scaling`` with its defaults, fed as proxies report: four times a second, and at once."""

    rule: Rule = field(default_factory=lambda: Rule(max_replicas=MOST, target_ongoing_requests=TARGET))
    past: Past = field(default_factory=Past)
    looked: float = -INF

    def look(self, world: World) -> int:
        self.looked = world.now
        fleet = Fleet(number=world.wanted, ready=world.ready, starting=len(world.starting), start_s=START_S)
        verdict, self.past = decide(self.rule, self.past, world.sample(), fleet, wall=world.now)
        return verdict.number

    def next(self, now: float) -> float:
        return now + 0.25

    def at_once(self, now: float) -> float:
        return max(now, self.looked + 0.1)


@dataclass
class Knative:
    """Its pod autoscaler's defaults (knative.dev, "KPA-specific autoscaling"): every 2 s, a stable window of 60 s and a
    panic window of 6 s, panic at twice the load, in which it never scales down and which ends 60 s after its last cause;
    at most 1,000 times more, at most half fewer at once. Averages of each second, as its queue proxies report them. Its
    target is ours although its default is 70 % of the limit of 3, which is 2.1."""

    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=60))
    sums: float = 0.0
    ticks: int = 0
    panics_since: float | None = None
    most_in_panic: int = 0

    def look(self, world: World) -> int:
        self.seconds.append(world.ongoing_s - self.sums)
        self.sums = world.ongoing_s
        self.ticks += 1
        if self.ticks % 2:
            return world.wanted
        recent = list(self.seconds)[-6:]
        stable = math.ceil(sum(self.seconds) / len(self.seconds) / TARGET)
        panic = math.ceil(sum(recent) / len(recent) / TARGET)
        ready = max(world.ready, 1)
        if panic / ready >= 2:
            self.most_in_panic = self.most_in_panic if self.panics_since is not None else 0
            self.panics_since = world.now
        elif self.panics_since is not None and self.panics_since + 60 < world.now:
            self.panics_since = None
        least, most = ready // 2, ready * 1000
        stable, panic = min(max(stable, least), most), min(max(panic, least), most)
        if self.panics_since is None:
            return stable
        self.most_in_panic = max(self.most_in_panic, stable, panic)
        return self.most_in_panic

    def next(self, now: float) -> float:
        return now + 1.0

    def at_once(self, now: float) -> float:
        return INF


@dataclass
class RayServe:
    """Its autoscaler (docs.ray.io, "Advanced Ray Serve Autoscaling"): the mean of ongoing requests over ``look_back_s``,
    reported every ``interval_s``; the number moves to mean / target when that has been above it for ``up_s`` without a
    break, or below it for ``down_s``."""

    interval_s: float = 10.0
    look_back_s: float = 30.0
    up_s: float = 30.0
    down_s: float = 600.0
    sums: deque[tuple[float, float]] = field(default_factory=lambda: deque([(0.0, 0.0)]))
    mean: float = 0.0
    reported: float = 0.0
    direction: int = 0
    since: float = 0.0

    def look(self, world: World) -> int:
        self.sums.append((world.now, world.ongoing_s))
        while self.sums[0][0] < world.now - self.look_back_s:
            self.sums.popleft()
        if world.now - self.reported >= self.interval_s - 1e-6:
            self.reported = world.now
            began, before = self.sums[0]
            self.mean = (world.ongoing_s - before) / max(world.now - began, 1e-9)
        wanted = min(max(math.ceil(self.mean / TARGET - 1e-9), 1), MOST)
        direction = (wanted > world.wanted) - (wanted < world.wanted)
        if direction != self.direction:
            self.direction, self.since = direction, world.now
        delay_s = self.up_s if direction > 0 else self.down_s
        if direction and world.now - self.since >= delay_s - 1e-6:
            self.direction = 0
            return wanted
        return world.wanted

    def next(self, now: float) -> float:
        return now + 0.5

    def at_once(self, now: float) -> float:
        return INF


SCALERS: dict[str, Callable[[], Scaler]] = {
    "serveconf": Serveconf,
    "Knative": Knative,
    "Ray Serve": RayServe,
    "Ray Serve, tuned": lambda: RayServe(interval_s=1.0, look_back_s=5.0, up_s=1.0, down_s=60.0),
}
