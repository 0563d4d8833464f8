"""``ProxyApp``: the ASGI app of a proxy. It serves one generation at a time, and takes the next one in two steps.

The controller has every proxy ``stage`` a generation (build its middlewares and backends, connect to its replicas), and
when all have, ``commit`` it: one assignment. A request is routed once, by the table of that moment, and stays there.
Around a request stand the front's middlewares, then the table, then the route's own middlewares, then its backend.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from weakref import WeakValueDictionary

from starlette.types import ASGIApp, Receive, Scope, Send

from serveconf.errors import InternalError
from serveconf.figures import UNROUTED, ProxyFigures, Side, use_of_this_process
from serveconf.proxy.edge import Edge
from serveconf.proxy.exchange import Exchange
from serveconf.proxy.fast_path import take_fast_path
from serveconf.proxy.generations import Builder, Pool, Staged
from serveconf.proxy.middleware import ImportMiddleware
from serveconf.proxy.system import (
    answer_health,
    answer_no_route,
    answer_not_allowed,
    answer_not_ready,
    answer_routes,
    answer_server_options,
)
from serveconf.proxy.tally import Answers, Reason, Receipt
from serveconf.routing import Generation, Route

log = logging.getLogger(__name__)


class ProxyApp:
    """Holds the current generation. Every method is called from the one event loop that serves requests."""

    def __init__(
        self,
        *,
        pool: Pool,
        backend_factory: Callable[[Route], ASGIApp],
        import_middleware: ImportMiddleware,
        edge: Edge | None = None,
    ) -> None:
        self.edge = edge or Edge()
        self.edge.lends_bodies = True  # a ``Backend`` knows them; middlewares are given bytes
        self._builder = Builder(
            pool=pool,
            backend_factory=backend_factory,
            import_middleware=import_middleware,
            inside_front=self._inside_front,
            system={"/-": self._answer_system, "*": answer_server_options},
            on_dropped_copy=lambda: self.edge.tally.note(Reason.COPY_DROPPED),
        )
        self._live = self._builder.empty()
        self._staged: dict[int, Staged] = {}
        self._staging: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    @property
    def generation(self) -> int:
        """The number of the generation that is served; 0 before the first one."""
        return self._live.number

    async def stage(self, generation: Generation, *, restoring: bool = False) -> None:
        """Build a generation beside the one that is served; ``restoring``: it was live before, whoever of it still lives.

        Raises CodeFailed (a middleware) or OperatorError (a replica that cannot be reached); then nothing has changed.
        Staging the live generation again is harmless; staging another one under a staged number replaces it. Several
        may be staged side by side, as one with a middleware that takes its time holds up no other.
        """
        number = generation.number
        async with self._staging.setdefault(
            number, asyncio.Lock()
        ):  # mounts are held by number: one build of each at a time
            if number == self._live.number:
                return
            if number < self._live.number:
                raise InternalError(f"generation {number} is older than the live one, {self._live.number}")
            self.abort(number)
            self._staged[number] = await self._builder.build(generation, self._live, restoring=restoring)
            if number < self._live.number:  # a newer one was committed meanwhile
                self.abort(number)

    def commit(self, number: int) -> None:
        """Serve the staged generation from the next request on; never an older one than is live.

        Raises InternalError if it was not staged.
        """
        if number <= self._live.number:
            return
        if number not in self._staged:
            raise InternalError(f"generation {number} is not staged")
        old, self._live = self._live, self._staged.pop(number)
        self.edge.use(self._live.front)
        self._builder.lead(self._live)
        self._builder.let_go(old)
        for other in [other for other in self._staged if other < number]:
            self.abort(other)
        log.info("generation committed", extra={"generation": number, "routes": len(self._live.mounts)})

    def abort(self, number: int) -> None:
        """Forget a staged generation; one that is not staged is nothing to forget."""
        staged = self._staged.pop(number, None)
        if staged is not None:
            self._builder.let_go(staged)

    def start_receipt(self, operation: str) -> None:
        """Begin to count for an operation."""
        self.edge.tally.retried = self._builder.retried
        self.edge.tally.start_receipt(operation)

    def receipt(self, operation: str) -> Receipt:
        """What was counted since ``start_receipt``."""
        self.edge.tally.retried = self._builder.retried
        return self.edge.tally.receipt(operation)

    def answers(self) -> Mapping[str, Answers]:
        """What each deployment, as ``stack/deployment``, has answered since the process began."""
        return self._builder.answers

    def sides(self) -> dict[str, Side]:
        """What each version of a deployment with a canary has answered, as ``stack/deployment@version``."""
        return {
            key: Side(given=side.given, failed=side.failed, slowness=tuple(side.slowness))
            for key, side in self._builder.sides.items()
        }

    def figures(self) -> ProxyFigures:
        """Everything that this process counts, as it is now."""
        tally = self.edge.tally
        return ProxyFigures(
            deployments={**self._builder.figures(), UNROUTED: tally.unrouted},
            sides=self.sides(),
            refused=tally.refused,
            retries=self._builder.retried,
            log_dropped=self.edge.access_log.dropped,
            connections=len(self.edge.connections) + len(self.edge.websockets),
            process=use_of_this_process(),
        )

    @property
    def retried(self) -> int:
        """How often a request was tried once more, on another replica."""
        return self._builder.retried

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request or WebSocket."""
        live = self._live
        tracer = self.edge.tracer
        if tracer is not None:
            tracer.begin(scope)
        root_path = live.root_path
        if root_path:  # as ``uvicorn --root-path``: an outer proxy took it off the path, the app finds it there again
            scope["root_path"] = root_path
            scope["path"] = root_path + scope["path"]
            scope["raw_path"] = root_path.encode() + scope["raw_path"]
        if live.stack is None:
            return self._route(scope, receive, send)
        return live.stack(scope, receive, send)

    def shortcut(self, exchange: Exchange) -> bool:
        """Whether a request that is whole was taken by its fast path; then the table that is live now was asked, as ever."""
        live = self._live
        scope = exchange.scope
        if live.stack is not None or live.root_path:
            return False
        found = live.table.match(scope["path"], scope)
        if found is None or found[2] is None:
            return False
        return take_fast_path(exchange, found[0], found[2], self.edge.tracer)

    async def _inside_front(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._route(dict(scope), receive, send)  # what routing adds is not for the middlewares outside

    def _route(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        live = self._live
        path = scope["path"].removeprefix(scope["root_path"])
        found = live.table.match(path, scope)
        if found is None:
            if not live.number:
                return answer_not_ready(scope, receive, send)
            allowed = live.table.allowed(path, scope)
            return answer_not_allowed(scope, send, allowed) if allowed else answer_no_route(scope, receive, send)
        scope["root_path"], app, _ = found
        return app(scope, receive, send)

    async def _answer_system(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"], scope["path"].removeprefix(scope["root_path"]):
            case "http", "/-/healthz":
                await answer_health(scope, send, self._why_not_healthy())
            case "http", "/-/routes":
                await answer_routes(scope, send, self._live.deployments)
            case _:
                await answer_no_route(scope, receive, send)

    def _why_not_healthy(self) -> str | None:
        if self.edge.draining or self.edge.leaving:
            return "draining"
        return None if self._live.number else "no generation yet"
