"""The routing table that all proxies serve: the only one who numbers, stages, commits and stores generations.

A move is made in two steps: the next generation is staged at every proxy that answers and acknowledged by them, then it
is written to the store and committed everywhere. Staging takes what the user's middlewares take, so several stacks
stage side by side; who has staged on a table that meanwhile moved stages once more, on the new one. A proxy that does
not answer holds nobody up: it serves what it has, and is brought forward when it answers again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from msgspec.structs import replace

from serveconf.background import Tasks
from serveconf.errors import OperatorError, ServeconfError
from serveconf.plan.state import Observed, ProxyPhase, ProxyState
from serveconf.reconcile.generation import same_content, serving_ids
from serveconf.reconcile.ports import Cluster
from serveconf.reconcile.records import Ledger
from serveconf.routing import Generation

log = logging.getLogger("serveconf.reconcile")

LOOK_S = 0.1  # between two looks at whether a proxy that has not answered yet still lives
COMMIT_S = 1.0  # a commit is one assignment: who takes longer does not answer

Make = Callable[[Generation], Generation]  # from the live table to the wanted one, whatever its number
Claim = Callable[[], AbstractAsyncContextManager[bool]]  # whether the move may still be made; held while it is


class Silent(OperatorError):
    """No proxy answers."""

    code = "no_answer"


class Table:
    """The live generation, and how it moves."""

    def __init__(self, cluster: Cluster, ledger: Ledger) -> None:
        self._cluster = cluster
        self._ledger = ledger
        self._number = 0
        self._commits = asyncio.Lock()
        self._named: dict[int, frozenset[str]] = {}  # generation -> the replicas that it names
        self._tasks = Tasks()

    @property
    def generation(self) -> Generation:
        """What was committed last."""
        return self._ledger.generation

    def serving(self) -> frozenset[str]:
        """Ids of the replicas that the live generation names."""
        return self._names(self.generation)

    def needed(self, observed: Observed) -> frozenset[str]:
        """Ids of all replicas that some proxy may send requests to: one that is behind has an older table."""
        behind = (self._named.get(p.generation, frozenset()) for p in observed.proxies)
        return self.serving().union(*behind)

    async def move(self, make: Make, claim: Claim) -> bool:
        """Have all proxies that answer serve what ``make`` makes, or none of them. False where the claim does not hold.

        Raises CodeFailed (a middleware) or OperatorError, then nothing has changed.
        """
        while True:
            base = self.generation
            wanted = make(base)
            proxies = _ready(self._cluster.observe())
            begun = base.number > 0 or not proxies  # without any table proxies do not even say that all is well
            if begun and same_content(wanted, base):
                async with claim() as mine:
                    return mine
            following = replace(wanted, number=self._next())
            taken = await self._stage(following, proxies)
            made = False
            try:
                async with self._commits:
                    if self.generation is base:
                        async with claim() as mine:
                            if mine:
                                await self._commit(following, taken)
                                made = True
                        return mine
            finally:
                if not made:
                    self._abort(following, taken)

    async def bring(self) -> None:
        """Have proxies that are behind serve the live generation: started after it, or silent when it was made."""
        async with self._commits:  # not beside a move: that would stage one number twice
            generation = self.generation
            behind = [p for p in _ready(self._cluster.observe()) if p.generation != generation.number]
        if not behind or not generation.number:
            return
        taken = await self._stage(generation, behind)
        async with self._commits:
            if self.generation is generation:
                await self._commit_at(generation, taken)

    def _next(self) -> int:
        self._number = max(self._number, self.generation.number) + 1
        return self._number

    async def _stage(self, generation: Generation, proxies: Sequence[ProxyState]) -> list[ProxyState]:
        """Who has taken it. Raises what a proxy says against it; then none has it staged."""
        staging = {asyncio.ensure_future(self._cluster.stage(p.id, generation)): p for p in proxies}
        pending = set(staging)
        try:
            while pending:
                _, pending = await asyncio.wait(pending, timeout=LOOK_S)
                alive = {p.id for p in _ready(self._cluster.observe())}
                for task in [task for task in pending if staging[task].id not in alive]:
                    task.cancel()
        finally:
            for task in pending:
                task.cancel()
        taken, refused = [], []
        for task, proxy in staging.items():
            error = OperatorError("lost", code="no_answer") if task.cancelled() else task.exception()
            if error is None:
                taken.append(proxy)
            elif isinstance(error, OperatorError) and error.code == "no_answer":
                log.warning("a proxy does not answer", extra={"proxy": proxy.id, "generation": generation.number})
            else:
                refused.append(error)
        if refused:
            self._abort(generation, taken)
            raise next((error for error in refused if isinstance(error, ServeconfError)), refused[0])
        if proxies and not taken:
            raise Silent("no proxy answers")
        return taken

    async def _commit(self, generation: Generation, taken: Sequence[ProxyState]) -> None:
        """It is written first, so that a proxy that dies in between comes back with it."""
        self._names(self.generation)
        await self._ledger.put_generation(generation)
        await self._commit_at(generation, taken)
        kept = {p.generation for p in self._cluster.observe().proxies} | {generation.number}
        self._named = {number: ids for number, ids in self._named.items() if number in kept}

    async def _commit_at(self, generation: Generation, taken: Sequence[ProxyState]) -> None:
        await self._at(
            taken, "a proxy did not commit", lambda p: self._cluster.commit(p.id, generation.number), limit_s=COMMIT_S
        )

    def _abort(self, generation: Generation, taken: Sequence[ProxyState]) -> None:
        """Beside: nobody waits for it."""
        work = self._at(taken, "a proxy did not abort", lambda p: self._cluster.abort(p.id, generation.number))
        self._tasks.start(work, name="abort a generation")

    async def _at(
        self,
        proxies: Iterable[ProxyState],
        failed: str,
        call: Callable[[ProxyState], Coroutine[Any, Any, None]],
        *,
        limit_s: float | None = None,
    ) -> None:
        """Call every proxy. One that dies begins again with the stored generation, one that is silent is brought forward."""

        async def one(proxy: ProxyState) -> None:
            try:
                await call(proxy)
            except ServeconfError as error:
                log.warning(failed, extra={"proxy": proxy.id, "reason": error.message})

        calls = [self._tasks.start(one(proxy), name=failed) for proxy in proxies]
        if calls:
            await asyncio.wait(calls, timeout=limit_s)

    def _names(self, generation: Generation) -> frozenset[str]:
        named = self._named.get(generation.number)
        if named is None:
            named = self._named[generation.number] = serving_ids(generation)
        return named


def _ready(observed: Observed) -> list[ProxyState]:
    return [p for p in observed.proxies if p.phase is ProxyPhase.READY]
