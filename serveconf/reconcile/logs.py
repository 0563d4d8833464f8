"""The lines that replicas, proxies and the controller write, as they come, merged by time, each with who wrote it."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from serveconf.errors import NotFound, OperatorError
from serveconf.plan.state import ReplicaPhase
from serveconf.reconcile.events import EventLog
from serveconf.reconcile.log_lines import Line, merged, timed
from serveconf.reconcile.ports import CONTROLLER_LOG, Clock, Cluster, LogPart
from serveconf.reconcile.records import Ledger

LOOK_S = 0.5

READABLE = (ReplicaPhase.STARTING, ReplicaPhase.READY, ReplicaPhase.UNHEALTHY, ReplicaPhase.DRAINING)
Row = dict[str, Any]  # {"replica" or "process", "time", "line"}


def check_deployment(ledger: Ledger, stack: str, deployment: str) -> None:
    """Raises NotFound where the stack has no such deployment."""
    known = {d.name for found in (ledger.current(stack), ledger.target(stack)) if found for d in found.deployments}
    if deployment not in known:
        hint = f"it has: {', '.join(sorted(known))}" if known else "'serveconf status' lists the stacks"
        raise NotFound(f"stack '{stack}' has no deployment '{deployment}'", hint=hint)


def read_logs(
    cluster: Cluster, clock: Clock, stack: str, deployment: str, *, tail: int, follow: bool
) -> AsyncIterator[Row]:
    """The last ``tail`` lines of each replica of a deployment, then, where asked, what comes after them."""

    def replicas() -> list[str]:
        return [r.id for r in cluster.observe().of(stack, deployment) if r.phase in READABLE]

    return _read(cluster, clock, replicas, "replica", tail=tail, follow=follow)


def read_proxy_logs(cluster: Cluster, clock: Clock, *, tail: int, follow: bool) -> AsyncIterator[Row]:
    """The same of the proxies: their own lines, and the access log."""
    return _read(cluster, clock, lambda: [p.id for p in cluster.observe().proxies], "process", tail=tail, follow=follow)


def read_controller_log(cluster: Cluster, clock: Clock, *, tail: int, follow: bool) -> AsyncIterator[Row]:
    """The same of the controller."""
    return _read(cluster, clock, lambda: [CONTROLLER_LOG], "process", tail=tail, follow=follow)


async def read_previous(
    cluster: Cluster, events: EventLog | None, stack: str, deployment: str, *, tail: int
) -> AsyncIterator[Row]:
    """What the replica of a deployment that died last has left. Raises NotFound where none has, or it is lost."""
    ended = [
        event.data
        for event in (events.recent(stack=stack) if events is not None else ())
        if event.deployment == deployment and event.data.get("ended") and event.data.get("pid")
    ]
    if not ended:
        raise NotFound(
            f"no replica of deployment '{deployment}' has died that anybody knows of",
            hint="'serveconf events' tells what has happened",
        )
    last = ended[-1]
    part = await cluster.read_ended_log(last["node"], last["pid"], tail)
    for line in timed(last["replica"], part.lines):
        yield _row("replica", line)


async def _read(
    cluster: Cluster, clock: Clock, sources: Callable[[], Iterable[str]], kind: str, *, tail: int, follow: bool
) -> AsyncIterator[Row]:
    positions: dict[str, dict[str, int]] = {}
    times: dict[str, float | None] = {}
    first = True
    while first or follow:
        there = list(sources())
        parts = await asyncio.gather(
            *(_look(cluster, one, positions.get(one, None if first else {}), tail) for one in there)
        )
        logs = []
        for source, part in zip(there, parts, strict=True):
            if part is not None:
                positions[source] = part.position
                logs.append(list(timed(source, part.lines, times.get(source))))
        for line in merged(logs):
            times[line.source] = line.time
            yield _row(kind, line)
        first = False
        if follow:
            await clock.sleep(LOOK_S)


async def _look(cluster: Cluster, source: str, position: dict[str, int] | None, tail: int) -> LogPart | None:
    try:
        return await cluster.read_log(source, position, tail)
    except OperatorError:  # it has just ended
        return None


def _row(kind: str, line: Line) -> Row:
    time = datetime.datetime.fromtimestamp(line.time, datetime.UTC).isoformat() if line.time is not None else None
    return {kind: line.source, "time": time, "line": line.text}
