"""Six loads: how many requests run at a time where nothing waits, and the requests that come to that by chance."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from autoscaling_world import SERVICE_S, Request

Rate = Callable[[float], float]


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
