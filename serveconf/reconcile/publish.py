"""A generation reaches all proxies in two steps: staged everywhere and acknowledged by all, then committed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from serveconf.errors import ServeconfError
from serveconf.plan.state import ProxyState
from serveconf.reconcile.ports import Cluster
from serveconf.reconcile.records import Ledger
from serveconf.routing import Generation

log = logging.getLogger("serveconf.reconcile")


async def publish(cluster: Cluster, ledger: Ledger, generation: Generation, proxies: Sequence[ProxyState]) -> None:
    """Have all ``proxies`` serve ``generation``, or none of them.

    It is written to the store between the two steps, so that a proxy that dies in between comes back with it.
    Raises the first ServeconfError that staging met; then no proxy has changed.
    """
    staged = await asyncio.gather(*(cluster.stage(p.id, generation) for p in proxies), return_exceptions=True)
    errors = [result for result in staged if isinstance(result, BaseException)]
    if errors:
        aborts = (cluster.abort(p.id, generation.number) for p in proxies)
        await asyncio.gather(*aborts, return_exceptions=True)
        raise next((e for e in errors if isinstance(e, ServeconfError)), errors[0])
    if generation.number != ledger.generation.number:
        await ledger.put_generation(generation)
    committed = await asyncio.gather(
        *(cluster.commit(p.id, generation.number) for p in proxies), return_exceptions=True
    )
    for proxy, result in zip(proxies, committed, strict=True):
        if isinstance(result, BaseException):  # it died; it begins again with the stored generation
            log.warning("a proxy did not commit", extra={"proxy": proxy.id, "reason": str(result)})
