"""Those replicas whose code calls others by handle: they get each generation in the same two steps as the proxies.

With a request they are told which generation it came by. So all that is needed for a graph of deployments to move as one
is that they have the next table before the first proxy serves it. None can hold a move up for long: one that is silent
(its code blocks its event loop, say) finds the table in the store when it goes on, and is not waited for again before.
``Table`` is the only one who calls this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from serveconf.background import Tasks
from serveconf.reconcile.ports import Cluster
from serveconf.routing import Generation

log = logging.getLogger("serveconf.reconcile")

WAIT_S = 0.5  # for all of them; one answers in a few milliseconds


class Callers:
    """All of a cluster's, as they are at each move."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._tasks = Tasks()
        self._silent: set[str] = set()  # have not answered the last time
        self._staged: dict[int, set[str]] = {}  # generation -> who has it, or may have it by now

    async def stage(self, generation: Generation) -> None:
        """Have all of them take it, but for those that are late. Raises nothing: they stand in nobody's way."""
        try:
            callers = await self._cluster.callers()
        except Exception as error:  # noqa: BLE001 - a store that does not answer: they find the table later
            log.warning("it is not known who calls by handle", extra={"reason": repr(error)})
            return
        self._silent &= set(callers)
        if callers:
            self._staged[generation.number] = set(callers)
            await self._wait({c: self._ask(c, self._cluster.stage(c, generation)) for c in callers})

    async def commit(self, number: int) -> None:
        """Those that have it staged call by it from now on."""
        callers = self._staged.pop(number, set())
        await self._wait({c: self._ask(c, self._cluster.commit(c, number)) for c in callers})

    def abort(self, number: int) -> None:
        """Beside: nobody waits for it."""
        for caller in self._staged.pop(number, ()):
            self._tasks.start(self._ask(caller, self._cluster.abort(caller, number)), name=f"ask {caller}")

    async def _wait(self, asking: dict[str, Coroutine[Any, Any, None]]) -> None:
        """For those that answer; the others go on beside."""
        tasks = {c: self._tasks.start(ask, name=f"ask {c}") for c, ask in asking.items()}
        waited = [task for caller, task in tasks.items() if caller not in self._silent]
        if waited:
            await asyncio.wait(waited, timeout=WAIT_S)
        late = {caller for caller, task in tasks.items() if not task.done()}
        for caller in sorted(late - self._silent):
            log.warning("a replica that calls others does not answer", extra={"replica": caller})
        self._silent |= late

    async def _ask(self, caller: str, call: Coroutine[Any, Any, None]) -> None:
        try:
            await call
        except Exception as error:  # noqa: BLE001 - it is gone, or of another version: then it reads the store
            log.warning("a replica that calls others has not taken the table", extra={"reason": repr(error)})
        else:
            self._silent.discard(caller)
