"""After a switch: watch what the changed deployments answer for ``bake_s``, and say when it is enough, or too bad.

The loop asks at every pass. What the proxies count only grows, so a bake is a difference between two readings; a
controller that comes back during one takes a new first reading and goes on for the time that is left (``until``).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from serveconf.plan.moving import moves_of, with_names
from serveconf.plan.state import DesiredDeployment, DesiredStack
from serveconf.reconcile.ports import Answers, Clock, Cluster, Totals
from serveconf.reconcile.records import Failure, StackHead
from serveconf.reconcile.waits import Until

LOOK_S = 0.5  # between two readings
ENOUGH = 20  # answers from which on a bad rate ends a bake before its time

Reading = Mapping[tuple[str, int], Totals]  # (proxy, pid) -> what that process has counted


@dataclass(frozen=True, kw_only=True)
class Bake:
    """The deployments of a target that are watched: name -> the share of failed answers that is too much."""

    seconds: float
    limits: Mapping[str, float] = field(default_factory=dict)


def bake_of(current: DesiredStack | None, target: DesiredStack) -> Bake:
    """What has to be watched after the switch: every deployment that is new or differs and has a ``bake_s``.

    A stack's first revision is not: there is nothing to go back to.
    """
    if current is None:
        return Bake(seconds=0.0)
    seconds, limits = 0.0, {}
    current = with_names(current, moves_of(current, target)) or current
    known = {deployment.name: deployment for deployment in current.deployments}
    for deployment in target.deployments:
        rollout = deployment.spec.get("rollout", {})
        before = known.get(deployment.name)
        if rollout.get("bake_s") and (before is None or _differs(before, deployment)):
            limits[deployment.name] = float(rollout.get("max_error_rate", 0.05))
            seconds = max(seconds, float(rollout["bake_s"]))
    return Bake(seconds=seconds, limits=limits)


def _differs(one: DesiredDeployment, other: DesiredDeployment) -> bool:
    """Whether a request may be answered differently by the two."""
    return any(
        getattr(one, name) != getattr(other, name)
        for name in ("version", "config_hash", "prefix", "middlewares", "middleware_modules")
    )


class Baking:
    """The bakes of a stack: the first reading of the one that is going on, by stack and revision, and when it ends."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock
        self._first: dict[tuple[str, int | None], Reading] = {}
        self._looked: dict[str, float] = {}
        self._until = Until(clock)

    async def begin(self, head: StackHead) -> None:
        """Take the first reading: right before or after the switch."""
        self._first[head.name, head.target] = await self._read()

    async def look(self, head: StackHead, bake: Bake) -> Failure | None:
        """Why the target has to be taken back; None while nothing is known against it."""
        over = self.is_over(head, bake)
        first = self._first.get((head.name, head.target))
        if first is None:
            await self.begin(head)
            return None
        last = self._looked.get(head.name)
        if not over and last is not None and self._clock.now() - last < LOOK_S:
            return None
        self._looked[head.name] = self._clock.now()
        now = await self._read()
        for name, limit in sorted(bake.limits.items()):
            answers = since(first, now, f"{head.name}/{name}")
            if answers.failed > limit * answers.given and (over or answers.given >= ENOUGH):
                return _too_bad(name, answers, limit)
        return None

    def is_over(self, head: StackHead, bake: Bake) -> bool:
        """Whether the time is up."""
        return head.baking_until is not None and self._until.is_over(head.baking_until, bake.seconds)

    def end(self, head: StackHead) -> None:
        """Forget the readings of a bake that has ended, whichever way."""
        self._first = {key: reading for key, reading in self._first.items() if key[0] != head.name}
        self._looked.pop(head.name, None)

    async def _read(self) -> Reading:
        """What all proxies have counted; one that does not answer is left out."""
        proxies = self._cluster.observe().proxies
        read = await asyncio.gather(*(self._cluster.totals(p.id) for p in proxies), return_exceptions=True)
        return {(p.id, t.pid): t for p, t in zip(proxies, read, strict=True) if isinstance(t, Totals)}


def since(first: Reading, now: Reading, deployment: str) -> Answers:
    """What was answered between two readings; a process that is new began with nothing."""
    sums: Counter[str] = Counter()
    for process, totals in now.items():
        before = first.get(process, Totals()).deployments.get(deployment, Answers())
        after = totals.deployments.get(deployment, Answers())
        sums["given"] += after.given - before.given
        sums["failed"] += after.failed - before.failed
    return Answers(sums["given"], sums["failed"])


def _too_bad(deployment: str, answers: Answers, limit: float) -> Failure:
    return Failure(
        code="error_rate",
        message=(
            f"{answers.failed} of {answers.given} answers failed after the switch, more than max_error_rate {limit:.3g}"
        ),
        deployment=deployment,
        hint=f"'serveconf logs {deployment}' shows what it wrote",
    )
