"""What the proxies and the controller count, as Prometheus text (exposition format 0.0.4)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from serveconf.plan.state import Observed
from serveconf.reconcile.ports import Cluster, Totals
from serveconf.reconcile.records import Ledger

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]
Samples = Iterable[tuple[Labels, float]]
Count = Counter[tuple[str, ...]]


async def read_metrics(cluster: Cluster, ledger: Ledger) -> str:
    """All metrics of this moment. A proxy that does not answer is left out: its counters are missing, not 0."""
    observed = cluster.observe()
    read = await asyncio.gather(*(cluster.totals(p.id) for p in observed.proxies), return_exceptions=True)
    totals = {p.id: t for p, t in zip(observed.proxies, read, strict=True) if isinstance(t, Totals)}
    return "".join([*_proxies(totals), *_deployments(totals), *_controller(observed, ledger)])


def _proxies(totals: Mapping[str, Totals]) -> Iterator[str]:
    told = {
        "requests": ("counter", "Requests that got an answer."),
        "failed": ("counter", "Answers of 500 and above, and answers that were cut."),
        "retried": ("counter", "Requests that were tried once more on another replica."),
        "open_streams": ("gauge", "WebSockets and unfinished streamed answers."),
    }
    for name, (kind, meaning) in told.items():
        samples = [((("proxy", proxy),), float(getattr(t, name))) for proxy, t in totals.items()]
        suffix = "_total" if kind == "counter" else ""
        yield _metric(f"serveconf_proxy_{name}{suffix}", kind, meaning, samples)


def _deployments(totals: Mapping[str, Totals]) -> Iterator[str]:
    answers = [
        ((("proxy", proxy), *zip(("stack", "deployment"), key.split("/", 1), strict=True)), answered)
        for proxy, t in totals.items()
        for key, answered in t.deployments.items()
    ]
    given = [(labels, float(a.given)) for labels, a in answers]
    failed = [(labels, float(a.failed)) for labels, a in answers]
    yield _metric("serveconf_deployment_requests_total", "counter", "Requests that a deployment answered.", given)
    yield _metric("serveconf_deployment_failed_total", "counter", "Those of 500 and above, and those cut.", failed)


def _controller(observed: Observed, ledger: Ledger) -> Iterator[str]:
    yield _metric(
        "serveconf_generation", "gauge", "Number of the live routing table.", [((), ledger.generation.number)]
    )
    replicas: Count = Counter((r.stack, r.deployment, r.phase.value) for r in observed.replicas)
    yield _metric(
        "serveconf_replicas", "gauge", "Replicas by state.", _counted(("stack", "deployment", "state"), replicas)
    )
    proxies: Count = Counter((p.phase.value,) for p in observed.proxies)
    yield _metric("serveconf_proxies", "gauge", "Proxies by state.", _counted(("state",), proxies))
    outcomes: Count = Counter((stack, r.outcome) for stack, kept in ledger.revisions.items() for r in kept.values())
    yield _metric(
        "serveconf_revisions", "gauge", "Kept revisions by outcome.", _counted(("stack", "outcome"), outcomes)
    )
    numbers = [((("stack", name),), float(head.last)) for name, head in sorted(ledger.heads.items())]
    yield _metric("serveconf_applies_total", "counter", "Applies of a stack that changed something, or tried.", numbers)


def _counted(names: tuple[str, ...], counted: Mapping[tuple[str, ...], int]) -> Samples:
    return [(tuple(zip(names, key, strict=True)), float(count)) for key, count in sorted(counted.items())]


def _metric(name: str, kind: str, meaning: str, samples: Samples) -> str:
    lines = [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        said = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
        lines.append(f"{name}{{{said}}} {_number(value)}" if said else f"{name} {_number(value)}")
    return "\n".join([*lines, ""])


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    """Every digit: ``%g`` would round a counter from a million on."""
    return str(int(value)) if value == int(value) else repr(value)
