"""The routing table that all proxies serve: the only one who numbers, stages, commits and stores generations.

A move is made in two steps: the next generation is staged at every proxy that answers and acknowledged by them, then it
is written to the store and committed everywhere. Staging takes what the user's middlewares take, so several stacks
stage side by side; who has staged on a table that meanwhile moved stages once more, on the new one. A proxy that does
not answer holds nobody up: it serves what it has, and is brought forward when it answers again. Replicas whose code calls
others take part in both steps beside the proxies (``callers``).
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
from serveconf.plan.state import DesiredStack, Observed, ProxyPhase, ProxyState
from serveconf.reconcile.callers import Callers
from serveconf.reconcile.front import merge_fronts
from serveconf.reconcile.generation import Canary, Serving, same_content, serving_ids, with_stack
from serveconf.reconcile.ports import Cluster
from serveconf.reconcile.stacks import Stacks
from serveconf.routing import Generation, Route

log = logging.getLogger("serveconf.reconcile")

LOOK_S = 0.1  # between two looks at whether a proxy that has not answered yet still lives

Claim = Callable[[], AbstractAsyncContextManager[bool]]  # whether the move may still be made; held while it is


class Silent(OperatorError):
    """No proxy answers."""

    code = "no_answer"


class Table:
    """The live generation, and how it moves."""

    def __init__(self, cluster: Cluster, stacks: Stacks) -> None:
        self._cluster = cluster
        self._stacks = stacks
        self._ledger = stacks.ledger
        self._routed: dict[str, DesiredStack | None] = {}  # whose routes the live table has; of others the records say
        self._number = 0
        self._commits = asyncio.Lock()
        self._routes: tuple[Generation, dict[str, tuple[Route, ...]]] | None = None  # the live one's, by stack
        self._named: dict[int, frozenset[str]] = {}  # generation -> the replicas that it names
        self._tasks = Tasks()
        self._callers = Callers(cluster)

    @property
    def generation(self) -> Generation:
        """What was committed last."""
        return self._ledger.generation

    def serving(self) -> frozenset[str]:
        """Ids of the replicas that the live generation names."""
        return self._names(self.generation)

    def routes_of(self, stack: str) -> tuple[Route, ...]:
        """A stack's routes in the live generation."""
        generation = self.generation
        if self._routes is None or self._routes[0] is not generation:
            by_stack: dict[str, list[Route]] = {}
            for route in generation.routes:
                by_stack.setdefault(route.stack, []).append(route)
            self._routes = generation, {name: tuple(routes) for name, routes in by_stack.items()}
        return self._routes[1].get(stack, ())

    def needed(self, observed: Observed) -> frozenset[str]:
        """Ids of all replicas that some proxy may send requests to: one that is behind has an older table."""
        behind = (self._named.get(p.generation, frozenset()) for p in observed.proxies)
        return self.serving().union(*behind)

    async def move(
        self,
        stack: str,
        routes: DesiredStack | None,
        serving: Serving,
        claim: Claim,
        canaries: Sequence[Canary] = (),
        failing: frozenset[str] = frozenset(),
    ) -> bool:
        """Have all proxies that answer serve these routes of a stack, or none of them. False where the claim does not hold.

        ``failing``: deployments whose replicas do not start: with none of them left no request waits for the next.
        Raises CodeFailed (a middleware), Conflict, or OperatorError; then nothing has changed.
        """
        while True:
            base = self.generation
            routed = {**{name: self._live(name) for name in self._stacks.names()}, stack: routes}
            live = [desired for desired in routed.values() if desired is not None]
            wanted = with_stack(base, merge_fronts(live), live, stack, serving, canaries, failing)
            proxies = self._those_that_answer()
            begun = base.number > 0 or not proxies  # without any table proxies do not even say that all is well
            if begun and same_content(wanted, base):
                async with claim() as mine:
                    if mine:
                        self._routed[stack] = routes
                    return mine
            following = replace(wanted, number=self._next())
            telling = self._tasks.start(self._callers.stage(following), name="tell callers")
            taken: list[ProxyState] = []
            made = False
            try:
                taken = await self._stage(following, proxies)
                await telling
                async with self._commits:
                    if self.generation is base:
                        async with claim() as mine:
                            if mine:
                                self._routed[stack] = routes  # before the records say so: others move meanwhile
                                await self._commit(following, taken)
                                made = True
                        return mine
            finally:
                if not made:
                    telling.cancel()
                    self._callers.abort(following.number)
                    self._abort(following, taken)

    def _live(self, stack: str) -> DesiredStack | None:
        return self._routed[stack] if stack in self._routed else self._stacks.routed(stack)

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

    def _those_that_answer(self) -> list[ProxyState]:
        """Raises Silent where there are proxies, and none that serves answers: what no client would see is no move."""
        observed = self._cluster.observe()
        ready, serving = _ready(observed), [p for p in observed.proxies if not p.stands_by]
        if any(p.phase is ProxyPhase.UNHEALTHY for p in serving) and not any(p in ready for p in serving):
            raise Silent("no proxy answers")
        return ready

    def _next(self) -> int:
        self._number = max(self._number, self.generation.number) + 1
        return self._number

    async def _stage(self, generation: Generation, proxies: Sequence[ProxyState]) -> list[ProxyState]:
        """Who has taken it. Raises what a proxy that serves says against it; then none has it staged."""
        answers = await self._ask(proxies, lambda p: self._cluster.stage(p.id, generation))
        refused = [(proxy, error) for proxy, error in answers if error is not None and not _is_silence(error)]
        against = [error for proxy, error in refused if not proxy.stands_by]
        taken = [proxy for proxy, error in answers if error is None]
        if against:
            self._abort(generation, taken)
            raise next((error for error in against if isinstance(error, ServeconfError)), against[0])
        if proxies and not taken and not refused:
            raise Silent("no proxy answers")
        for proxy, error in refused:  # a middleware that can be there but once on a node, say: it is asked again later
            log.warning("a standby did not take the table", extra={"proxy": proxy.id, "reason": str(error)})
        return taken

    async def _commit(self, generation: Generation, taken: Sequence[ProxyState]) -> None:
        """It is written first, so that a proxy that dies in between comes back with it."""
        self._names(self.generation)
        await self._ledger.put_generation(generation)
        await asyncio.gather(self._commit_at(generation, taken), self._callers.commit(generation.number))
        kept = {p.generation for p in self._cluster.observe().proxies} | {generation.number}
        self._named = {number: ids for number, ids in self._named.items() if number in kept}

    async def _commit_at(self, generation: Generation, taken: Sequence[ProxyState]) -> None:
        """One that dies begins again with the stored generation, one that is silent is brought forward."""
        for proxy, error in await self._ask(taken, lambda p: self._cluster.commit(p.id, generation.number)):
            if error is not None:
                log.warning("a proxy did not commit", extra={"proxy": proxy.id, "reason": str(error)})

    def _abort(self, generation: Generation, taken: Sequence[ProxyState]) -> None:
        """Beside: nobody waits for it."""
        work = self._ask(taken, lambda p: self._cluster.abort(p.id, generation.number))
        self._tasks.start(work, name="abort a generation")

    async def _ask(
        self, proxies: Iterable[ProxyState], call: Callable[[ProxyState], Coroutine[Any, Any, None]]
    ) -> list[tuple[ProxyState, BaseException | None]]:
        """Call every proxy, and wait for those that live: each with what its call raised."""
        asked = {self._tasks.start(_outcome(call(proxy)), name=f"ask {proxy.id}"): proxy for proxy in proxies}
        pending = set(asked)
        try:
            while pending:
                _, pending = await asyncio.wait(pending, timeout=LOOK_S)
                alive = {p.id for p in _ready(self._cluster.observe())}
                lost = {task for task in pending if asked[task].id not in alive}
                for task in lost:
                    log.warning("a proxy does not answer", extra={"proxy": asked[task].id})
                    task.cancel()
                pending -= lost
        finally:
            for task in pending:
                task.cancel()
        silence = OperatorError("it does not answer", code=Silent.code)
        return [(p, task.result() if task.done() and not task.cancelled() else silence) for task, p in asked.items()]

    def _names(self, generation: Generation) -> frozenset[str]:
        named = self._named.get(generation.number)
        if named is None:
            named = self._named[generation.number] = serving_ids(generation)
        return named


async def _outcome(call: Coroutine[Any, Any, None]) -> BaseException | None:
    try:
        await call
    except Exception as error:  # noqa: BLE001 - whoever asked looks at it
        return error
    return None


def _is_silence(error: BaseException) -> bool:
    return isinstance(error, OperatorError) and error.code == Silent.code


def _ready(observed: Observed) -> list[ProxyState]:
    return [p for p in observed.proxies if p.phase is ProxyPhase.READY]
