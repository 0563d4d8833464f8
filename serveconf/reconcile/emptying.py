"""The end of everything: proxies and replicas finish what they are answering, then they are gone."""

from __future__ import annotations

from serveconf.reconcile.ports import Clock, Cluster

SHUTDOWN_DRAIN_S = 10.0  # for requests that are being answered
SHUTDOWN_GRACE_S = 10.0  # then whatever is left is stopped at once


async def empty(cluster: Cluster, clock: Clock) -> None:
    """Drain and stop every replica, standby and proxy; nobody starts any by now. Returns when they are gone."""
    deadline = clock.now() + SHUTDOWN_DRAIN_S + SHUTDOWN_GRACE_S
    while (observed := cluster.observe()).proxies or observed.replicas or observed.standbys:
        drain_s = SHUTDOWN_DRAIN_S if clock.now() < deadline else 0.0
        for standby in observed.standbys:
            await cluster.stop_standby(standby.id)
        for proxy in observed.proxies:
            await cluster.stop_proxy(proxy.id, drain_s=drain_s)
        for replica in observed.replicas if not observed.proxies or not drain_s else ():
            await cluster.stop_replica(replica.id, drain_s=drain_s)
        await clock.sleep(0.02)
