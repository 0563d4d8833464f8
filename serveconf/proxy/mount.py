"""One route as it is served: its backend, the middlewares around it, and how many requests are inside.

A mount lives as long as a generation names it or a request is inside: that is how its replicas know when they are free.
An unchanged route keeps its mount from one generation to the next, and with it its queue, its middlewares and its streams.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serveconf.proxy.tally import Answers
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
    ) -> None:
        self.route = route
        self.answers = answers or Answers()
        self.backend = backend
        self.stack = stack
        self.generations: set[int] = set()
        self.requests = 0
        self._on_free = on_free

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or WebSocket, from its first to its last event."""
        self.requests += 1
        try:
            if scope["type"] == "http":
                await self._answer(scope, receive, send)
            else:
                await self._enter(scope, receive, send)
        finally:
            self.requests -= 1
            if not self.generations:
                self._free_if_unused()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what the client gets; an app that raises makes the edge answer 500 or cut the answer."""
        answers = self.answers
        failed: bool | None = None  # nothing was answered yet

        def counted(message: Message) -> Awaitable[None]:
            nonlocal failed
            if message["type"] == "http.response.start":
                failed = message["status"] >= 500
                answers.given += 1
                answers.failed += failed
            return send(message)

        try:
            await self._enter(scope, receive, counted)
        except Exception:
            answers.given += failed is None
            answers.failed += not failed
            raise

    def _enter(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if self.stack is None:
            return self.backend(scope, receive, send)
        scope[MOUNT] = self
        return self.stack(scope, receive, send)

    def let_go(self, generation: int) -> None:
        """A generation names this mount no more."""
        self.generations.discard(generation)
        self._free_if_unused()

    def _free_if_unused(self) -> None:
        if not self.requests and not self.generations:
            self._on_free(self)


async def enter_backend(scope: Scope, receive: Receive, send: Send) -> None:
    """The innermost app below a route's middlewares. They are built once and outlive a change of the route's replicas."""
    inner = dict(scope)
    mount: Mount = inner.pop(MOUNT)
    await mount.backend(inner, receive, send)
