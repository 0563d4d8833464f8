"""What a process counts, as plain data: filled on the request path, sent to the controller, added up, kept.

``proxy/tally`` fills ``ProxyFigures``, a replica ``ReplicaFigures``; ``reconcile/kept_figures`` remembers those of processes
that have ended; ``admin/metrics`` renders them. Everything only grows, but for what is said to be "now".
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from bisect import bisect_left
from collections.abc import Iterable

import msgspec

# OpenTelemetry's for http.server.request.duration, and three below them: our answers take less than its first one
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
LONG_BOUNDS = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)  # starts of replicas, applies
_BEGAN = time.time()
METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
OTHER = "_OTHER"  # OpenTelemetry's name: a client that makes up methods must not make up series
UNROUTED = "/"  # the key of what no deployment took; others are "stack/deployment"


class Histogram(msgspec.Struct):
    """``buckets[i]``: how many were at most ``bounds[i]`` and more than the bound before it; the last: more than all."""

    buckets: list[int]
    sum: float = 0.0

    @property
    def count(self) -> int:
        """How many were observed."""
        return sum(self.buckets)

    def observe(self, value: float, bounds: tuple[float, ...] = BOUNDS) -> None:
        """Count one."""
        self.buckets[bisect_left(bounds, value)] += 1
        self.sum += value


def new_histogram(bounds: tuple[float, ...] = BOUNDS) -> Histogram:
    """With nothing in it."""
    return Histogram([0] * (len(bounds) + 1))


class DeploymentFigures(msgspec.Struct, kw_only=True):
    """What one proxy has counted of one deployment. ``durations``: by method, by status, of answers that are over."""

    durations: dict[str, dict[int, Histogram]] = {}
    bytes_in: int = 0
    bytes_out: int = 0
    waits: Histogram = msgspec.field(default_factory=new_histogram)  # of those that waited at all for a replica
    active: int = 0  # now
    queued: int = 0  # now

    def duration(self, method: str, status: int) -> Histogram:
        """The histogram of such answers; methods that nobody knows share one."""
        statuses = self.durations.setdefault(method if method in METHODS else OTHER, {})
        found = statuses.get(status)
        if found is None:
            found = statuses[status] = new_histogram()
        return found


class ProcessFigures(msgspec.Struct, kw_only=True):
    """What any process of ours uses. ``began`` (seconds since the epoch) tells it from the one before it."""

    began: float = 0.0
    resident_bytes: int = 0  # now
    cpu_s: float = 0.0


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What one version has answered in some time. ``slowness``: how many began within each of ``plan.canary``'s bounds."""

    given: int = 0
    failed: int = 0
    slowness: tuple[int, ...] = ()

    @property
    def error_rate(self) -> float:
        """The share of 5xx and cut answers."""
        return self.failed / self.given if self.given else 0.0


class ProxyFigures(msgspec.Struct, kw_only=True):
    """What one proxy process has counted. ``deployments``: by ``stack/deployment``, or ``UNROUTED``.

    ``sides``: of deployments with a canary, while it runs, by ``stack/deployment@version``.
    """

    deployments: dict[str, DeploymentFigures] = {}
    sides: dict[str, Side] = {}
    refused: dict[str, int] = {}  # answers that the proxy made itself, or could not give, by reason
    retries: int = 0
    log_dropped: int = 0  # lines of the access log that could not be written in time
    connections: int = 0  # now
    certificate_ends_at: float | None = None  # of the one that it shows now, in seconds since the epoch
    process: ProcessFigures = msgspec.field(default_factory=ProcessFigures)


class Family(msgspec.Struct, kw_only=True):
    """One metric of the user's own. ``samples``: values of the labels → the value, or a histogram's buckets and sum."""

    name: str
    kind: str  # counter, gauge, histogram
    description: str = ""
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    samples: dict[tuple[str, ...], list[float]] = {}


class ReplicaFigures(msgspec.Struct, kw_only=True):
    """What one replica's process has counted. ``calls``: by handle, by ``stack/deployment`` that was called."""

    calls: dict[str, Histogram] = {}
    families: list[Family] = []
    process: ProcessFigures = msgspec.field(default_factory=ProcessFigures)


class ControllerFigures(msgspec.Struct, kw_only=True):
    """What the controllers of a cluster have counted, one after the other."""

    applies: dict[str, dict[str, Histogram]] = {}  # how long they took, by stack, by outcome
    failed_requests: dict[str, dict[str, int]] = {}  # while they ran
    starts: dict[
        str, dict[str, Histogram]
    ] = {}  # of replicas, by stack/deployment, by "true" where a standby was there
    process: ProcessFigures = msgspec.field(default_factory=ProcessFigures)


def add_histograms(parts: Iterable[Histogram]) -> Histogram:
    """All of them as one; they have the same bounds."""
    found = list(parts)
    buckets = [sum(column) for column in zip(*(part.buckets for part in found), strict=True)]
    return Histogram(buckets or new_histogram().buckets, sum(part.sum for part in found))


def add_deployments(parts: Iterable[DeploymentFigures]) -> DeploymentFigures:
    """What several processes have counted of one deployment."""
    found = list(parts)
    total = DeploymentFigures(waits=add_histograms(part.waits for part in found))
    grouped: dict[tuple[str, int], list[Histogram]] = {}
    for part in found:
        total.bytes_in += part.bytes_in
        total.bytes_out += part.bytes_out
        total.active += part.active
        total.queued += part.queued
        for method, statuses in part.durations.items():
            for status, histogram in statuses.items():
                grouped.setdefault((method, status), []).append(histogram)
    for (method, status), histograms in grouped.items():
        total.durations.setdefault(method, {})[status] = add_histograms(histograms)
    return total


def add_proxies(parts: Iterable[ProxyFigures]) -> ProxyFigures:
    """What several proxy processes have counted, as one."""
    found = list(parts)
    grouped: dict[str, list[DeploymentFigures]] = {}
    total = ProxyFigures()
    for part in found:
        total.retries += part.retries
        total.log_dropped += part.log_dropped
        total.connections += part.connections
        total.certificate_ends_at = part.certificate_ends_at or total.certificate_ends_at
        total.process.resident_bytes += part.process.resident_bytes
        total.process.cpu_s += part.process.cpu_s
        for reason, count in part.refused.items():
            total.refused[reason] = total.refused.get(reason, 0) + count
        for name, side in part.sides.items():
            total.sides[name] = add_sides(total.sides.get(name, Side()), side)
        for key, figures in part.deployments.items():
            grouped.setdefault(key, []).append(figures)
    total.deployments = {key: add_deployments(figures) for key, figures in grouped.items()}
    return total


def add_sides(one: Side, other: Side) -> Side:
    """Both as one."""
    longest = max(len(one.slowness), len(other.slowness))
    parts = [(*side.slowness, *(0,) * (longest - len(side.slowness))) for side in (one, other)]
    return Side(
        given=one.given + other.given,
        failed=one.failed + other.failed,
        slowness=tuple(a + b for a, b in zip(*parts, strict=True)),
    )


def add_replicas(parts: Iterable[ReplicaFigures]) -> ReplicaFigures:
    """What several replicas of one deployment have counted, as one; of a gauge the sum."""
    total = ReplicaFigures()
    families: dict[tuple[str, str, tuple[str, ...], tuple[float, ...]], Family] = {}
    for part in parts:
        total.process.resident_bytes += part.process.resident_bytes
        total.process.cpu_s += part.process.cpu_s
        for key, histogram in part.calls.items():
            before = total.calls.get(key)
            total.calls[key] = add_histograms([histogram] if before is None else [before, histogram])
        for family in part.families:
            known = families.setdefault(
                (family.name, family.kind, family.labels, family.bounds),
                msgspec.structs.replace(family, samples={}),
            )
            for labels, values in family.samples.items():
                sums = known.samples.get(labels, [0.0] * len(values))
                known.samples[labels] = [one + other for one, other in zip(sums, values, strict=True)]
    total.families = list(families.values())
    return total


def without_gauges(figures: ReplicaFigures) -> ReplicaFigures:
    """What remains of a replica that has ended: what only grows."""
    return ReplicaFigures(calls=figures.calls, families=[f for f in figures.families if f.kind != "gauge"])


def without_now(figures: ProxyFigures) -> ProxyFigures:
    """What remains of a proxy that has ended: what only grows."""
    return ProxyFigures(
        deployments={key: msgspec.structs.replace(one, active=0, queued=0) for key, one in figures.deployments.items()},
        sides={key: Side(given=side.given, failed=side.failed) for key, side in figures.sides.items()},
        refused=figures.refused,
        retries=figures.retries,
        log_dropped=figures.log_dropped,
        process=ProcessFigures(cpu_s=figures.process.cpu_s),
    )


def use_of_this_process() -> ProcessFigures:
    """Its memory and CPU time, from /proc where there is one."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    resident = usage.ru_maxrss * 1024  # at its height: better than nothing where the system tells no more
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return ProcessFigures(began=_BEGAN, resident_bytes=resident, cpu_s=usage.ru_utime + usage.ru_stime)


class DeploymentLoad(msgspec.Struct, frozen=True, array_like=True):
    """Of one deployment, since this process began; ``ongoing`` and ``waiting`` are those of the report's moment.

    ``ongoing`` requests are running or waiting. ``ongoing_s`` and ``waiting_s`` are their time integrals (request-seconds);
    ``served_s`` is what the ``completions`` took on their replicas, without their waits.
    """

    arrivals: int = 0
    completions: int = 0
    served_s: float = 0.0
    ongoing: int = 0
    waiting: int = 0
    ongoing_s: float = 0.0
    waiting_s: float = 0.0
    oldest_wait_s: float = 0.0


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What has changed since the report before. ``time`` is the process's own clock; ``number`` counts its reports."""

    number: int = 0
    time: float = 0.0
    loads: dict[str, DeploymentLoad] = {}  # by ``stack/deployment``
