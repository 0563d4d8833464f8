"""``GET /metrics``: what all processes have counted, under the contract's names, as Prometheus text.

``reconcile.kept_figures`` has the counts; here they get names, labels and units. Labels have bounds: the names of
deployments, the methods of HTTP, statuses, states, ids of what lives. Rendering is prometheus-client's, but for histograms.

Of a thousand routes nine tenths of the text are buckets, whose labels prometheus-client looks at anew for each line: 0.45 s for
what takes 0.1 s here (``benchmarks/metrics_scale.py``), while the controller has better to do.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serveconf.figures import (
    BOUNDS,
    LONG_BOUNDS,
    UNROUTED,
    DeploymentFigures,
    Family,
    Histogram,
    ProcessFigures,
    ProxyFigures,
    Side,
    add_proxies,
    use_of_this_process,
)
from serveconf.plan.state import Observed
from serveconf.reconcile.kept_figures import KeptFigures
from serveconf.reconcile.ports import Cluster
from serveconf.reconcile.pulse import look_at_proxies, look_at_replicas
from serveconf.reconcile.records import Ledger
from serveconf.routing import Generation

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4

OF_DEPLOYMENT = ("stack", "deployment")


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What there is now, beside what was counted. ``desired``: replicas by stack and deployment."""

    observed: Observed
    generation: int = 0
    desired: Mapping[tuple[str, str], int] = field(default_factory=dict)
    standbys: Mapping[str, int] = field(default_factory=dict)  # by state
    canaries: Mapping[tuple[str, str, str], float] = field(
        default_factory=dict
    )  # stack, deployment, version -> percent


async def read_metrics(cluster: Cluster, ledger: Ledger, kept: KeptFigures | None = None) -> bytes:
    """All metrics of this moment. Of a proxy that does not answer the last that it said."""
    kept = kept or KeptFigures()
    await asyncio.gather(look_at_proxies(cluster, kept), look_at_replicas(cluster, kept))
    desired = {
        (name, deployment.name): deployment.num_replicas
        for name in ledger.heads
        if (stack := ledger.target(name) or ledger.current(name)) is not None
        for deployment in stack.deployments
    }
    live = ledger.generation
    observed = cluster.observe()
    standbys = Counter(standby.phase.value for standby in observed.standbys)
    moment = Moment(
        observed=observed, generation=live.number, desired=desired, canaries=_shares(live), standbys=standbys
    )
    return await asyncio.to_thread(render, families(kept, moment))


def render(found: Iterable[Metric | Buckets]) -> bytes:
    """As text."""
    found = list(found)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Ready([one for one in found if isinstance(one, Metric)]))
    return generate_latest(registry) + "".join(one.text() for one in found if isinstance(one, Buckets)).encode()


class _Ready(Collector):
    def __init__(self, found: Iterable[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        """The families that are there."""
        return self._found


def families(kept: KeptFigures, moment: Moment) -> list[Metric | Buckets]:
    """Every metric. What is counted is read now, so that rendering may take its time elsewhere."""
    proxies = kept.proxies()
    total = add_proxies(proxies.values())
    return [
        *_requests(total),
        *_canaries(total, moment),
        *_replicas(kept, moment),
        *_proxies(proxies),
        *_applies(kept, moment),
        *_processes(kept),
        *_users_own(kept),
    ]


def _shares(live: Generation) -> dict[tuple[str, str, str], float]:
    """What each version of a deployment with a canary gets."""
    shares = {(r.stack, r.deployment): r.share for r in live.routes if r.share is not None}
    return {
        (r.stack, r.deployment, r.version): share if r.share is not None else 100 - share
        for r in live.routes
        if (share := shares.get((r.stack, r.deployment))) is not None
    }


def _canaries(total: ProxyFigures, moment: Moment) -> Iterator[Metric]:
    labels = (*OF_DEPLOYMENT, "version")
    percent = _gauge("serveconf_canary_percent", "What a version gets of the requests while a canary runs.", labels)
    given = _counter("serveconf_canary_answers", "Answers of a version while a canary runs.", labels)
    failed = _counter("serveconf_canary_failed_answers", "... of them those of 500 and above, or cut.", labels)
    for (stack, deployment, version), share in moment.canaries.items():
        side = total.sides.get(f"{stack}/{deployment}@{version}", Side())
        percent.add_metric((stack, deployment, version), share)
        given.add_metric((stack, deployment, version), side.given)
        failed.add_metric((stack, deployment, version), side.failed)
    yield from (percent, given, failed)


def _requests(total: ProxyFigures) -> Iterator[Metric | Buckets]:
    durations = Buckets(
        "http_server_request_duration_seconds",
        "From a request's head to the end of its answer; of a WebSocket to the answer to its handshake.",
        (*OF_DEPLOYMENT, "http_request_method", "http_response_status_code"),
    )
    waits = Buckets("serveconf_queue_wait_seconds", "How long requests waited for a replica.", OF_DEPLOYMENT)
    active = _gauge("http_server_active_requests", "Requests and WebSockets that are not over.", OF_DEPLOYMENT)
    queued = _gauge("serveconf_queued_requests", "Requests that wait for a replica.", OF_DEPLOYMENT)
    received = _counter("http_server_request_body_size_bytes", "Bytes of request bodies.", OF_DEPLOYMENT)
    sent = _counter("http_server_response_body_size_bytes", "Bytes of the answers' bodies.", OF_DEPLOYMENT)
    for key, figures in total.deployments.items():
        labels = _labels(key)
        for method, statuses in figures.durations.items():
            for status, histogram in statuses.items():
                durations.add((*labels, method, str(status)), histogram, BOUNDS)
        active.add_metric(labels, figures.active)
        received.add_metric(labels, figures.bytes_in)
        sent.add_metric(labels, figures.bytes_out)
        if key != UNROUTED:
            queued.add_metric(labels, figures.queued)
            waits.add(labels, _with_those_that_did_not_wait(figures), BOUNDS)
    yield from (durations, active, received, sent, queued, waits)


def _with_those_that_did_not_wait(figures: DeploymentFigures) -> Histogram:
    """Nothing is written down for a request that finds a replica at once; it waited for 0 s all the same."""
    answered = sum(h.count for statuses in figures.durations.values() for h in statuses.values())
    buckets = list(figures.waits.buckets)
    buckets[0] += max(0, answered - sum(buckets))
    return Histogram(buckets, figures.waits.sum)


def _replicas(kept: KeptFigures, moment: Moment) -> Iterator[Metric | Buckets]:
    states = _gauge("serveconf_replicas", "Replicas by state.", (*OF_DEPLOYMENT, "state"))
    phases = Counter((r.stack, r.deployment, r.phase.value) for r in moment.observed.replicas)
    for labels, count in sorted(phases.items()):
        states.add_metric(labels, count)
    yield states
    ongoing = _gauge("serveconf_replica_ongoing_requests", "Requests that replicas work on.", OF_DEPLOYMENT)
    sums: Counter[tuple[str, str]] = Counter()
    for replica in moment.observed.replicas:
        sums[replica.stack, replica.deployment] += replica.ongoing
    for name, count in sorted(sums.items()):
        ongoing.add_metric(name, count)
    yield ongoing
    desired = _gauge("serveconf_replicas_desired", "Replicas that there should be.", OF_DEPLOYMENT)
    for name, count in sorted(moment.desired.items()):
        desired.add_metric(name, count)
    yield desired
    standbys = _gauge("serveconf_standbys", "Processes that wait to become a replica.", ("state",))
    for state, count in sorted(moment.standbys.items()):
        standbys.add_metric((state,), count)
    yield standbys
    starts = Buckets(
        "serveconf_replica_start_seconds", "From the order to a ready replica.", (*OF_DEPLOYMENT, "standby")
    )
    for key, kinds in kept.controller.starts.items():
        for standby, histogram in kinds.items():
            starts.add((*_labels(key), standby), histogram, LONG_BOUNDS)
    yield starts


def _proxies(proxies: Mapping[str, ProxyFigures]) -> Iterator[Metric | Buckets]:
    connections = _gauge("serveconf_proxy_connections", "Connections of clients.", ("proxy",))
    retries = _counter("serveconf_proxy_retries", "Requests that were tried once more on a replica.", ("proxy",))
    refused = _counter(
        "serveconf_proxy_refused", "Answers that the proxy made by itself or could not finish.", ("proxy", "reason")
    )
    dropped = _counter("serveconf_proxy_access_log_dropped", "Lines of the access log that were lost.", ("proxy",))
    ends = _gauge(
        "serveconf_proxy_certificate_expiry_timestamp_seconds", "When the certificate that it shows ends.", ("proxy",)
    )
    for name, figures in proxies.items():
        if figures.certificate_ends_at is not None:
            ends.add_metric((name,), figures.certificate_ends_at)
        connections.add_metric((name,), figures.connections)
        retries.add_metric((name,), figures.retries)
        dropped.add_metric((name,), figures.log_dropped)
        for reason, count in sorted(figures.refused.items()):
            refused.add_metric((name, reason), count)
    yield from (connections, retries, refused, dropped, ends)


def _applies(kept: KeptFigures, moment: Moment) -> Iterator[Metric | Buckets]:
    generation = _gauge("serveconf_generation", "Number of the live routing table.", ())
    generation.add_metric((), moment.generation)
    labels = ("stack", "outcome")
    applies = _counter("serveconf_applies", "Applies, roll-backs and deletions that are over.", labels)
    durations = Buckets("serveconf_apply_duration_seconds", "How long they took.", labels)
    failed = _counter("serveconf_apply_failed_requests", "Requests that failed while they ran.", labels)
    for stack, outcomes in kept.controller.applies.items():
        for outcome, histogram in outcomes.items():
            applies.add_metric((stack, outcome), histogram.count)
            durations.add((stack, outcome), histogram, LONG_BOUNDS)
            failed.add_metric((stack, outcome), kept.controller.failed_requests.get(stack, {}).get(outcome, 0))
    yield from (generation, applies, durations, failed)


def _processes(kept: KeptFigures) -> Iterator[Metric | Buckets]:
    labels = ("role", "id")
    memory = _gauge("process_resident_memory_bytes", "Resident memory of our processes.", labels)
    cpu = _counter("process_cpu_seconds", "CPU time that our processes have used.", labels)
    used: dict[tuple[str, str], ProcessFigures] = {
        **kept.processes(),
        ("controller", "controller"): use_of_this_process(),
    }
    for key, process in sorted(used.items()):
        memory.add_metric(key, process.resident_bytes)
        cpu.add_metric(key, process.cpu_s)
    yield from (memory, cpu)


def _users_own(kept: KeptFigures) -> Iterator[Metric | Buckets]:
    """Calls by handle, and what apps measure with ``serve.metrics``: summed over a deployment's replicas."""
    calls = Buckets(
        "serveconf_handle_request_duration_seconds",
        "Calls by handle, as the caller sees them.",
        (*OF_DEPLOYMENT, "caller"),
    )
    own: dict[str, tuple[Metric | Buckets, Family]] = {}
    for key, figures in kept.replicas().items():
        for called, histogram in figures.calls.items():
            calls.add((*_labels(called), key), histogram, BOUNDS)
        for family in figures.families:
            metric, first = own.setdefault(family.name, (_own_metric(family), family))
            if (first.kind, first.labels, first.bounds) == (family.kind, family.labels, family.bounds):
                for values, sample in family.samples.items():
                    _add_own(metric, (*_labels(key), *values), sample, family)
    yield calls
    yield from (metric for metric, _ in own.values())


def _own_metric(family: Family) -> Metric | Buckets:
    kinds: dict[str, Callable[[str, str, tuple[str, ...]], Metric | Buckets]] = {
        "counter": _counter,
        "gauge": _gauge,
        "histogram": Buckets,
    }
    name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
    return kinds[family.kind](name, family.description or family.name, (*OF_DEPLOYMENT, *family.labels))


def _add_own(metric: Any, labels: tuple[str, ...], sample: list[float], family: Family) -> None:
    if family.kind == "histogram":
        metric.add(labels, Histogram([int(count) for count in sample[:-1]], sample[-1]), family.bounds)
    else:
        metric.add_metric(labels, sample[0])


# -- prometheus-client's families --------------------------------------------------------------------------------------


def _gauge(name: str, meaning: str, labels: tuple[str, ...]) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, labels=labels)


def _counter(name: str, meaning: str, labels: tuple[str, ...]) -> CounterMetricFamily:
    return CounterMetricFamily(name, meaning, labels=labels)


def _labels(key: str) -> tuple[str, str]:
    stack, _, deployment = key.partition("/")
    return stack, deployment


class Buckets:
    """One metric: a histogram for each combination of its labels' values."""

    def __init__(self, name: str, meaning: str, labels: tuple[str, ...]) -> None:
        self._name = name
        self._meaning = meaning
        self._labels = labels
        self._series: list[tuple[tuple[str, ...], Histogram, tuple[float, ...]]] = []

    def add(self, values: tuple[str, ...], histogram: Histogram, bounds: tuple[float, ...]) -> None:
        """The histogram of these values of the labels."""
        self._series.append((values, histogram, bounds))

    def text(self) -> str:
        """Help, type and samples. Prometheus' buckets hold all that is below their bound, ours what is between two."""
        lines = [f"# HELP {self._name} {_in_help(self._meaning)}", f"# TYPE {self._name} histogram"]
        for values, histogram, bounds in self._series:
            said = ",".join(f'{key}="{_escaped(value)}"' for key, value in zip(self._labels, values, strict=True))
            start = f"{self._name}_bucket{{{said}," if said else f"{self._name}_bucket{{"
            counts = list(accumulate(histogram.buckets))
            lines += [f'{start}le="{bound!r}"}} {count}.0' for bound, count in zip(bounds, counts, strict=False)]
            lines += [
                f'{start}le="+Inf"}} {counts[-1]}.0',
                f"{self._name}_count{{{said}}} {counts[-1]}.0",
                f"{self._name}_sum{{{said}}} {histogram.sum!r}",
            ]
        return "\n".join([*lines, ""])


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _in_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")
