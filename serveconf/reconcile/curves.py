"""The last five minutes of every deployment, second by second: what the dashboard and the terminal draw.

Each tick compares what the proxies have counted with what they had counted a tick ago. A deployment that nobody asks for
costs a comparison and nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from serveconf.figures import BOUNDS, DeploymentFigures, ProxyFigures

TICK_S = 1.0
KEPT = 300  # points
QUANTILE_TICKS = 10  # a single second has too few requests to speak of its slowest hundredth


class Point(msgspec.Struct, frozen=True, array_like=True):
    """One tick of one deployment. A quantile of None: there was no request."""

    requests: float  # a second
    errors: float  # of 500 and above, a second
    p50_ms: float | None
    p99_ms: float | None
    active: int
    queued: int


IDLE = Point(0.0, 0.0, None, None, 0, 0)

Buckets = tuple[int, ...]
NOTHING: Buckets = (0,) * (len(BOUNDS) + 1)


class Curves:
    """By ``stack/deployment``. All calls from one loop."""

    def __init__(self) -> None:
        self._ticked = False
        self._before: dict[str, dict[str, DeploymentFigures]] = {}  # by proxy
        self._began: dict[str, float] = {}
        self._curves: dict[str, _Curve] = {}

    def tick(self, proxies: Mapping[str, ProxyFigures], seconds: float = TICK_S) -> None:
        """So much later the proxies that there are have counted this."""
        first, self._ticked = not self._ticked, True
        counted: dict[str, tuple[Sequence[int], int]] = {}
        now: dict[str, tuple[int, int]] = {}
        for proxy_id, figures in proxies.items():
            before = self._before.get(proxy_id, {})
            if self._began.get(proxy_id) != figures.process.began:
                before = figures.deployments if first else {}  # what was counted before we looked has no time
            for key, deployment in figures.deployments.items():
                _add(counted, now, key, deployment, before.get(key))
        self._began = {proxy_id: figures.process.began for proxy_id, figures in proxies.items()}
        self._before = {proxy_id: figures.deployments for proxy_id, figures in proxies.items()}
        for key in counted.keys() | now.keys() | self._curves.keys():
            curve = self._curves.setdefault(key, _Curve())
            curve.put(*counted.get(key, (NOTHING, 0)), *now.get(key, (0, 0)), seconds)
            if curve.idle_ticks >= KEPT:
                del self._curves[key]  # nothing to see, and perhaps it is no more

    def points(self) -> dict[str, list[Point]]:
        """Every deployment's points, the oldest first; of one that is not there nothing has happened."""
        return {key: list(curve.points) for key, curve in sorted(self._curves.items())}

    def newest(self) -> dict[str, Point]:
        """The last point of each deployment that is not idle."""
        return {key: curve.points[-1] for key, curve in self._curves.items() if curve.idle_ticks == 0}

    def buckets(self, key: str) -> Buckets:
        """How long the requests of the kept time have taken, by ``figures.BOUNDS``."""
        curve = self._curves.get(key)
        return _sum(curve.buckets) if curve is not None else NOTHING


class _Curve:
    """Of one deployment."""

    def __init__(self) -> None:
        self.points: deque[Point] = deque(maxlen=KEPT)
        self.buckets: deque[Buckets] = deque(maxlen=KEPT)
        self.idle_ticks = 0

    def put(self, buckets: Sequence[int], errors: int, active: int, queued: int, seconds: float) -> None:
        total = sum(buckets)
        self.buckets.append(tuple(buckets) if total else NOTHING)
        if not (total or active or queued):
            self.idle_ticks += 1
            self.points.append(IDLE)
            return
        self.idle_ticks = 0
        recent = _sum([self.buckets[-back] for back in range(1, min(QUANTILE_TICKS, len(self.buckets)) + 1)])
        p50, p99 = quantile_ms(recent, 0.5), quantile_ms(recent, 0.99)
        self.points.append(Point(round(total / seconds, 2), round(errors / seconds, 2), p50, p99, active, queued))


def quantile_ms(buckets: Buckets, share: float) -> float | None:
    """How long ``share`` of them took at most, in milliseconds, evenly spread within a bucket as Prometheus has it."""
    wanted, below, lower = sum(buckets) * share, 0, 0.0
    if not wanted:
        return None
    for count, upper in zip(buckets, BOUNDS, strict=False):
        if count and below + count >= wanted:
            return round((lower + (upper - lower) * (wanted - below) / count) * 1000, 3)
        below, lower = below + count, upper
    return BOUNDS[-1] * 1000  # past the last bound nothing is known but that


def _add(
    counted: dict[str, tuple[Sequence[int], int]],
    now: dict[str, tuple[int, int]],
    key: str,
    figures: DeploymentFigures,
    before: DeploymentFigures | None,
) -> None:
    if figures.active or figures.queued:
        active, queued = now.get(key, (0, 0))
        now[key] = (active + figures.active, queued + figures.queued)
    if before is not None and before.durations == figures.durations:
        return
    known, errors = counted.get(key, (NOTHING, 0))
    buckets = list(known)
    for sign, side in ((1, figures), (-1, before)):
        for statuses in side.durations.values() if side is not None else ():
            for status, histogram in statuses.items():
                if status >= 500:
                    errors += sign * histogram.count
                for index, count in enumerate(histogram.buckets):
                    buckets[index] += sign * count
    counted[key] = (buckets, errors)


def _sum(parts: Iterable[Buckets]) -> Buckets:
    found = [part for part in parts if part is not NOTHING]
    return tuple(map(sum, zip(*found, strict=True))) if found else NOTHING
