"""How well numbers of replicas follow six loads: serveconf's decision against models of Ray Serve's and Knative's, simulated.

    python benchmarks/autoscaling.py                 the table
    python benchmarks/autoscaling.py --plots DIR     ... and a plot of each load
    python benchmarks/autoscaling.py --signal        what reports and decisions cost the controller, up to 1,000 proxies

Requests come by chance at the load's rate and take a lognormal time. All three have the same target, the same limit of
requests per replica, one line of waiting requests, and replicas that take two seconds to start. The models are written
from the public documentation of the two; everything else about them is left out, in their favour.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import random
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from serveconf.figures import DeploymentLoad, LoadReport
from serveconf.plan.demand import Sample
from serveconf.plan.scaling import Fleet, Past, Rule, decide
from serveconf.reconcile.loads import Loads

TARGET, LIMIT, MOST, START_S, SERVICE_S = 2.0, 3, 100, 2.0, 0.2
INF = float("inf")

Request = tuple[float, float]  # when it comes, what it takes
Rate = Callable[[float], float]


# the world


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


# who decides


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


# the loads: how many requests run at a time where nothing waits


def step(now: float) -> float:
    return 32 if 120 <= now < 420 else 1


def ramp(now: float) -> float:
    return 1 + 31 * max(0.0, min(now - 60, 300, 660 - now)) / 300


def spikes(now: float) -> float:
    return 24 if 60 <= now % 120 < 70 else 4


def sine(now: float) -> float:
    return 18 + 14 * math.sin(2 * math.pi * now / 300)


def noise() -> Rate:
    """Another load every two seconds, from a tenth of the mean to five times it, each like the one before."""
    dice, state, loads = random.Random(5), 0.0, list[float]()
    for _ in range(600):
        state = 0.8 * state + 0.6 * dice.gauss(0, 1)
        loads.append(min(80.0, max(0.5, 16 * math.exp(0.5 * state - 0.125))))
    return lambda now: loads[int(now / 2) % 600]


def day() -> Rate:
    """A shop's day, noon and evening, a minute in ten seconds: its noise, and now and then a minute of twice as much."""
    dice, state, loads = random.Random(7), 0.0, list[float]()
    for minute in range(1440):
        hour = minute / 60
        usual = 3 + 14 * math.exp(-(((hour - 11) / 2.6) ** 2)) + 18 * math.exp(-(((hour - 20) / 2.2) ** 2))
        state = 0.9 * state + 0.44 * dice.gauss(0, 1)
        burst = dice.uniform(1.5, 2.5) if dice.random() < 0.01 else 1.0
        loads.append(min(90.0, usual * math.exp(0.12 * state) * burst))
    return lambda now: loads[int(now / 10) % 1440]


LOADS: dict[str, tuple[Callable[[], Rate], float, float]] = {  # the rate, its seconds, its largest load
    "step": (lambda: step, 720, 32),
    "ramp": (lambda: ramp, 720, 32),
    "spikes": (lambda: spikes, 1200, 24),
    "sine": (lambda: sine, 1200, 32),
    "noise": (noise, 1200, 80),
    "day": (day, 14400, 90),
}


def requests_of(name: str, seed: int) -> list[Request]:
    """They come independently of each other (thinned Poisson), and take 0.2 s on average."""
    make, seconds, largest = LOADS[name]
    rate, dice, now = make(), random.Random(f"{name} {seed}"), 0.0
    found = []
    while True:
        now += dice.expovariate(largest / SERVICE_S)
        if now >= seconds:
            return found
        if dice.random() * largest < rate(now):
            found.append((now, dice.lognormvariate(math.log(SERVICE_S) - 0.125, 0.5)))


# the table


@dataclass
class Row:
    load: str
    scaler: str
    waiting_s: float
    replica_s: float
    most: int
    changes: int
    curve: list[Point]


def run(load: str, scaler: str, seed: int = 1) -> Row:
    world, curve = simulate(requests_of(load, seed), LOADS[load][1], SCALERS[scaler]())
    changes = sum(one[2] != other[2] for one, other in itertools.pairwise(curve))
    return Row(load, scaler, world.waiting_s, world.replica_s, world.most, changes, curve)


def table(rows: list[Row]) -> None:
    print(f"{'load':<8}{'':<18}{'request-s waited':>17}{'replica-s':>11}{'most':>6}{'changes':>9}")
    for row in rows:
        name = row.load if row.scaler == "serveconf" else ""
        print(
            f"{name:<8}{row.scaler:<18}{row.waiting_s:>17,.0f}{row.replica_s:>11,.0f}{row.most:>6}{row.changes:>9}",
            flush=True,
        )


# plots


COLOURS = {"serveconf": "#0a7d4f", "Knative": "#c2571a", "Ray Serve": "#5b5bd6"}
WIDTH, HEIGHT, EDGE = 860, 260, 42


def plot(load: str, rows: list[Row], file: Path) -> None:
    """Replicas over time, above what the load would need at the target."""
    seconds = LOADS[load][1]
    shown = [row for row in rows if row.scaler in COLOURS]
    top = max(max(point[2] for point in row.curve) for row in shown) * 1.05
    rate = LOADS[load][0]()

    def at(now: float, value: float) -> str:
        x = EDGE + now / seconds * (WIDTH - EDGE - 10)
        y = HEIGHT - 24 - value / top * (HEIGHT - 50)
        return f"{x:.1f},{y:.1f}"

    needed = [at(now, rate(now) / TARGET) for now in range(0, int(seconds), max(1, int(seconds / 600)))]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<polygon points="{at(0, 0)} {" ".join(needed)} {at(seconds, 0)}" fill="#e3e3e3"/>',
    ]
    for value in range(0, int(top) + 1, 10 if top < 70 else 20):
        x, y = at(0, value).split(",")
        parts.append(
            f'<text x="{float(x) - 6:.0f}" y="{float(y) + 4:.0f}" text-anchor="end" fill="#555">{value}</text>'
        )
    for index, row in enumerate(shown):
        points, before = [], -1
        for now, _, number, _ in row.curve:
            if number != before:
                points += [at(now, max(before, 0) if before >= 0 else number), at(now, number)]
                before = number
        points.append(at(seconds, before))
        colour = COLOURS[row.scaler]
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        said = f"{row.scaler}: {row.waiting_s:,.0f} request-s waited, {row.replica_s:,.0f} replica-s"
        parts.append(f'<text x="{EDGE + index * 270}" y="14" fill="{colour}">{said}</text>')
    parts.append(f'<text x="{WIDTH - 10}" y="{HEIGHT - 8}" text-anchor="end" fill="#555">{seconds:.0f} s</text></svg>')
    file.write_text("\n".join(parts) + "\n")


# what it costs the controller


def signal() -> None:
    """Reports of so many proxies, a tenth of the deployments busy, each at up to ten of the proxies; one simulated minute."""
    print(f"{'proxies':>8}{'deployments':>13}{'reports/s':>11}{'kB/s':>8}{'decisions/s':>13}{'of one core':>13}")
    for proxies, deployments in ((1, 10), (10, 100), (100, 1000), (1000, 10000)):
        slower = max(1.0, proxies / 100)
        busy = [f"shop/d{n}" for n in range(max(1, deployments // 10))]
        at = {
            p: [busy[n] for n in range(len(busy)) if p in {(n * 7 + k * 13) % proxies for k in range(10)}]
            for p in range(proxies)
        }
        loads, rule = Loads(), Rule(max_replicas=50)
        past = dict.fromkeys(busy, Past())
        seconds, size, reports, decisions, spent = 20, 0, 0, 0, 0.0
        every, decided = 0.25 * slower, dict.fromkeys(busy, -1.0)
        for tick in range(int(seconds / every)):
            now = 100 + tick * every
            for proxy, names in at.items():
                said = {name: DeploymentLoad(5 * tick, 5 * tick, tick * 1.0, 4, 0, 4 * now, 0.0, 0.0) for name in names}
                data = msgspec.msgpack.encode(LoadReport(number=tick + 1, time=now, loads=said))
                size += len(data)
                reports += 1
                began = time.perf_counter()
                report = msgspec.msgpack.decode(data, type=LoadReport)
                for name in loads.take(f"p{proxy}", report, now, slower=slower):
                    if now - decided[name] >= 0.25:
                        decided[name] = now
                        decisions += 1
                        fleet = Fleet(number=4, ready=4)
                        _, past[name] = decide(rule, past[name], loads.sample(name, now), fleet, wall=now)
                spent += time.perf_counter() - began
        print(
            f"{proxies:>8}{deployments:>13}{reports / seconds:>11,.0f}{size / seconds / 1000:>8,.0f}"
            f"{decisions / seconds:>13,.0f}{spent / seconds:>12.1%}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--plots", type=Path)
    parser.add_argument("--signal", action="store_true")
    parser.add_argument("--loads", nargs="*", default=list(LOADS))
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if asked.signal:
        signal()
        return
    with ProcessPoolExecutor(2) as pool:
        found = {
            (load, scaler): pool.submit(run, load, scaler, asked.seed) for load in asked.loads for scaler in SCALERS
        }
        rows = [one.result() for one in found.values()]
    table(rows)
    if asked.plots:
        asked.plots.mkdir(parents=True, exist_ok=True)
        for load in asked.loads:
            plot(load, [row for row in rows if row.load == load], asked.plots / f"{load}.svg")


if __name__ == "__main__":
    main()
