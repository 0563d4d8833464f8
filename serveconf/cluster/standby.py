"""A process that waits to become a replica: it has imported what replicas import, and nothing of any user's own."""

from __future__ import annotations

import asyncio
import os

from msgspec.structs import replace

from serveconf import __version__
from serveconf.cluster.engine import Surroundings
from serveconf.cluster.logs import get_logger
from serveconf.ingress.beforehand import import_beforehand
from serveconf.plan.state import Phase, StandbyState
from serveconf.reconcile.ports import StandbyOrder

log = get_logger("standby")


class Standby:
    """Hosted until ``Hosted`` puts a replica in its place."""

    def __init__(self, order: StandbyOrder, surroundings: Surroundings) -> None:
        self._modules = order.modules
        self._ready = asyncio.Event()
        self._state = StandbyState(
            id=order.id,
            kind=order.kind,
            node_id=surroundings.node_id,
            phase=Phase.STARTING,
            pid=os.getpid(),
            serveconf=__version__,
        )

    async def run(self) -> None:
        """Import; what can't be imported is the replica's business."""
        try:
            await asyncio.to_thread(self._import)
        finally:
            self._state = replace(self._state, phase=Phase.READY)
            self._ready.set()

    async def describe(self) -> StandbyState:
        """What it is now."""
        return self._state

    async def wait_ready(self) -> StandbyState:
        """Return when everything is imported."""
        await self._ready.wait()
        return self._state

    async def check(self) -> str:
        """Nothing is wrong where this answers."""
        return ""

    def _import(self) -> None:
        import serveconf.cluster.replica  # noqa: F401 - what every replica needs

        import_beforehand(self._modules, failed=_could_not)


def _could_not(name: str, error: BaseException) -> None:
    log.warning("a module could not be imported beforehand", name=name, reason=repr(error))
