"""Once a second: every proxy is asked what it has counted, so that little is lost with it and the curves go on. Replicas
are asked every few seconds.

The controller runs ``Pulse.run`` as long as it lives; the dashboard waits on it, ``/metrics`` reads what it keeps.
"""

from __future__ import annotations

import asyncio
import logging

from serveconf.figures import ReplicaFigures
from serveconf.plan.state import ReplicaPhase
from serveconf.reconcile.curves import TICK_S, Curves
from serveconf.reconcile.kept_figures import KeptFigures
from serveconf.reconcile.ports import Clock, Cluster, Totals

log = logging.getLogger("serveconf.figures")

SERVING = (ReplicaPhase.READY, ReplicaPhase.UNHEALTHY, ReplicaPhase.DRAINING)
FLUSH_EVERY = 5  # ticks; as often the replicas are asked, which are many


class Pulse:
    """One beat after the other; ``kept`` and ``curves`` are what they leave."""

    def __init__(self, cluster: Cluster, kept: KeptFigures, clock: Clock) -> None:
        self.kept = kept
        self.curves = Curves()
        self._cluster = cluster
        self._clock = clock
        self._news = asyncio.Event()
        self._looked = 0.0

    async def run(self) -> None:
        """Beat until cancelled."""
        beats = 0
        while True:
            await self.beat()
            beats += 1
            if beats % FLUSH_EVERY == 0:
                await look_at_replicas(self._cluster, self.kept)
                await self.flush()
            await self._clock.sleep(TICK_S)

    async def beat(self) -> None:
        """Look once."""
        began = self._clock.now()
        await look_at_proxies(self._cluster, self.kept)
        seconds = began - self._looked if self._looked else TICK_S
        self._looked = began
        self.curves.tick(self.kept.live_proxies(), max(seconds, 0.001))
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def next_beat(self) -> None:
        """Return when there is a newer point."""
        await self._news.wait()

    async def flush(self) -> None:
        """Have the next controller go on from here."""
        try:
            await self.kept.flush()
        except Exception:  # counting goes on although the store does not answer
            log.exception("the figures could not be written")


async def look_at_proxies(cluster: Cluster, kept: KeptFigures) -> None:
    """Ask every proxy what it has counted. Of one that does not answer the last that it said stands."""
    proxies = cluster.observe().proxies
    read = await asyncio.gather(*(cluster.totals(p.id) for p in proxies), return_exceptions=True)
    observed = cluster.observe()
    there = {proxy.id for proxy in observed.proxies}  # who has gone meanwhile has had the last word
    for proxy, totals in zip(proxies, read, strict=True):
        if isinstance(totals, Totals) and proxy.id in there:
            kept.saw_proxy(proxy.id, totals.figures)
    kept.keep_only((p.id for p in observed.proxies), (r.id for r in observed.replicas))


async def look_at_replicas(cluster: Cluster, kept: KeptFigures) -> None:
    """Ask every replica that serves. One whose loop the user's code blocks says it the next time."""
    replicas = [replica for replica in cluster.observe().replicas if replica.phase in SERVING]
    read = await asyncio.gather(*(cluster.replica_figures(r.id) for r in replicas), return_exceptions=True)
    there = {replica.id for replica in cluster.observe().replicas}
    for replica, figures in zip(replicas, read, strict=True):
        if isinstance(figures, ReplicaFigures) and replica.id in there:
            kept.saw_replica(replica.id, f"{replica.stack}/{replica.deployment}", figures)
