"""One route as it is served: its backend, the middlewares around it, and how many requests are inside.

A mount lives as long as a generation names it or a request is inside: that is how its replicas know when they are free.
An unchanged route keeps its mount from one generation to the next, and with it its queue, its middlewares and its streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serveconf.figures import DeploymentFigures
from serveconf.proxy.call import ResponseCut
from serveconf.proxy.tally import TRAIL, Answers, SideAnswers, Trail
from serveconf.proxy.websocket import SERVICE_RESTART
from serveconf.routing import Route

MOUNT = "serveconf.mount"  # the scope key under which a request carries its mount through the route's middlewares


class Mount:
    """A route with what answers it. ``entry`` is the outermost of its middlewares, or the backend where it has none."""

    def __init__(
        self,
        route: Route,
        backend: ASGIApp,
        stack: ASGIApp | None,
        on_free: Callable[[Mount], None],
        answers: Answers | None = None,
        figures: DeploymentFigures | None = None,
    ) -> None:
        self.route = route
        self.figures = figures or DeploymentFigures()
        self.answers = answers or Answers()
        self.backend = backend
        self.stack = stack
        self.generations: set[int] = set()
        self.requests = 0
        self.beside: set[int] = set()  # of the generations those that name another mount in its place
        self.side: SideAnswers | None = None  # while a canary runs, and this is one side of it
        self._on_free = on_free
        self._websockets: set[Send] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._over = False
        self._closing: set[asyncio.Future[None]] = set()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or WebSocket, from its first to its last event."""
        self.enter(scope.get(TRAIL))
        try:
            if scope["type"] == "http":
                await self.answer(scope, receive, send, self._enter_stack)
            else:
                self._websockets.add(send)
                await self._enter_stack(scope, receive, send)
        finally:
            self._websockets.discard(send)
            self.leave()

    def enter(self, trail: Trail | None) -> None:
        """A request is inside until ``leave``."""
        self.requests += 1
        if trail is not None:
            trail.route, trail.figures = self.route, self.figures

    def leave(self) -> None:
        """A request has gone."""
        self.requests -= 1
        if not self.generations:
            self._free_if_unused()

    async def answer(self, scope: Scope, receive: Receive, send: Send, app: ASGIApp) -> None:
        """Count what the client gets of ``app``; if that raises, the edge answers 500 or cuts the answer."""
        answers = self.answers
        failed: bool | None = None  # nothing was answered yet
        side = self.side
        began = monotonic() if side is not None else 0.0

        def counted(message: Message) -> Awaitable[None]:
            nonlocal failed
            if message["type"] == "http.response.start":
                failed = message["status"] >= 500
                answers.given += 1
                answers.failed += failed
                if side is not None:
                    side.note(monotonic() - began, failed=failed)
            elif self._over:
                raise ResponseCut("its route has changed, and the time to finish is over")
            return send(message)

        try:
            await app(scope, receive, counted)
        except Exception:  # counted, and raised on to the edge
            answers.given += failed is None
            answers.failed += not failed
            if self._over:  # cut because its route has changed: that speaks against no version
                side = None
            if side is not None and failed is None:
                side.note(monotonic() - began, failed=True)
            elif side is not None and not failed:
                side.failed += 1  # it began well, and was cut
            raise

    def _enter_stack(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if self.stack is None:
            return self.backend(scope, receive, send)
        scope[MOUNT] = self
        return self.stack(scope, receive, send)

    def hold(self, generation: int, *, beside: bool = False) -> None:
        """A generation names this mount, perhaps again: what runs in it has all the time it wants.

        ``beside``: it names one that is the same but for its name and its replicas, and nothing new comes here.
        """
        self.generations.add(generation)
        if beside:
            self.beside.add(generation)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def holds_replicas(self) -> bool:
        """Whether its replicas stay connected for it; where another mount stands in its place, that one says which do."""
        return not self.generations or bool(self.generations - self.beside)

    @property
    def over(self) -> bool:
        """Its time is over: whatever is still in it is being cut, and nothing new may come in."""
        return self._over

    def let_go(self, generation: int) -> None:
        """A generation names this mount no more."""
        self.generations.discard(generation)
        self.beside.discard(generation)
        if not self.generations and self.requests and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.route.graceful_shutdown_timeout_s, self._end)
        self._free_if_unused()

    def _end(self) -> None:
        """The time to finish is over: WebSockets are told to come again, what is still being sent is cut."""
        self._over = True
        for send in self._websockets:
            closing = asyncio.ensure_future(send({"type": "websocket.close", "code": SERVICE_RESTART}))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _free_if_unused(self) -> None:
        if not self.requests and not self.generations:
            if self._timer is not None:
                self._timer.cancel()
            self._on_free(self)


async def enter_backend(scope: Scope, receive: Receive, send: Send) -> None:
    """The innermost app below a route's middlewares. They are built once and outlive a change of the route's replicas."""
    inner = dict(scope)
    mount: Mount = inner.pop(MOUNT)
    await mount.backend(inner, receive, send)
