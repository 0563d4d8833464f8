"""The fast path: a request that is asked at once and answered at once, without a coroutine, a task or an ASGI message.

Most requests are such: nothing stands around their route, a replica has room, their body is there, and the answer comes
whole. The request is sent in place, and the answer is written when it comes. Whatever turns out differently (an answer in
pieces, a replica that is full or lost, a client that leaves or takes nothing) goes on from where it is as every other
request does: ``go_on`` runs the mount and the backend around the stream that was begun.
"""

from __future__ import annotations

from starlette.types import Message, Receive, Scope, Send

from serveconf.proxy.call import Call
from serveconf.proxy.dispatch import Backend
from serveconf.proxy.exchange import Exchange
from serveconf.proxy.mount import Mount
from serveconf.proxy.traced import Tracer
from serveconf.wire import GENERATION, WireClient


def take_fast_path(exchange: Exchange, root_path: str, mount: Mount, tracer: Tracer | None) -> bool:
    """Send a request to a replica, if it is one of those; its answer is seen to then. Else nothing has happened."""
    backend = mount.backend
    if mount.stack is not None or mount.side is not None or not isinstance(backend, Backend):
        return False
    if exchange.expects_continue:
        return False
    client = backend.choose_at_once()
    if client is None or (exchange.body_total and not client.takes_whole(exchange.body_total)):
        return False
    scope = exchange.scope
    scope["root_path"] = root_path
    if tracer is not None:
        tracer.begin(scope)
    if backend.route.calls:
        scope[GENERATION] = backend.generation
    FastPath(exchange, mount, backend, client, exchange.take_body() if exchange.body_total else None)
    return True


class FastPath:
    """One such request, from the moment in which it is sent."""

    __slots__ = ("_backend", "_exchange", "_load", "_message", "_mount", "_stream")

    def __init__(
        self, exchange: Exchange, mount: Mount, backend: Backend, client: WireClient, message: Message | None
    ) -> None:
        self._stream = client.begin_whole(exchange.scope, message["body"] if message is not None else b"")
        trail = exchange.trail
        trail.replica = client.replica
        self._exchange = exchange
        self._mount = mount
        self._backend = backend
        self._message = message
        mount.enter(trail)
        self._load = backend.enter(trail.began)
        exchange.shortcut = self
        self._stream.park(self)

    def resume(self) -> None:
        """Something has come from the replica."""
        exchange, mount, backend, stream = self._exchange, self._mount, self._backend, self._stream
        is_held_up = mount.over or exchange.connection.writable is not None
        answer = None if is_held_up else stream.take_whole_answer()
        if answer is None:
            if is_held_up or not stream.park_until_body(self):
                self.go_on()
            return
        exchange.shortcut = None
        reply, body = answer
        failed = reply.status >= 500
        mount.answers.given += 1
        mount.answers.failed += failed
        written = exchange.answer(reply.status, reply.headers, body)
        if not written:
            mount.answers.failed += not failed
        elif failed:
            backend.errors += 1
        stream.connection.leave(stream)
        backend.leave(self._load, exchange.trail.began, served=written)
        mount.leave()

    def go_on(self) -> None:
        """It is none of those: it is run as others are, from here on."""
        self._exchange.run_app(self._run)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._mount.answer(scope, receive, send, self._finish)
        finally:
            self._mount.leave()

    async def _finish(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        call.stream = self._stream
        if self._message is not None:
            call.incoming.begin_with(self._message)
        await self._backend.finish(call, self._load, self._exchange.trail.began)
