"""From a route to one of its replicas: choosing, waiting in line, trying again, giving up.

The proxy calls a ``Backend`` as the ASGI application of one route. Errors are answered here, through ``send``, so that
the middlewares around it see them like any other answer; a response that cannot be finished ends in ``ResponseCut``.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from time import monotonic
from typing import Any

from serveconf.proxy.affinity import Wish, favourite, model_in, wish_for
from serveconf.proxy.call import Call, GiveUp, Gone, ResponseCut, error_response
from serveconf.proxy.line import Leader, Line
from serveconf.proxy.load import Load
from serveconf.proxy.pool import Link, ReplicaPool
from serveconf.proxy.sessions import Sessions
from serveconf.proxy.tally import Reason
from serveconf.proxy.traced import note_wait
from serveconf.routing import Route
from serveconf.wire import (
    CLIENT_LEFT,
    GENERATION,
    BodyMode,
    FrameTooLarge,
    StreamCut,
    StreamLost,
    StreamRefused,
    WireClient,
    need_task,
)


class Backend:
    """The ASGI application of one route in one generation. The counters only grow, but for ``in_flight``.

    ``requests``: taken in; ``failed``: 5xx made here, or cut; ``retried``: tried once more on a replica; ``errors``:
    answered with a 5xx, by the application or here, or cut.
    """

    def __init__(self, route: Route, pool: ReplicaPool, *, version: str = "") -> None:
        """``version``: who waits is served by this version of the deployment while any replica of it is there."""
        self.route = route
        self.requests = 0
        self.failed = 0
        self.errors = 0
        self.retried = 0
        self.in_flight = 0
        self.generation = 0  # the newest one in which it leads
        self.queued = 0  # of the requests in flight, those that wait for a replica
        self._limit = route.max_ongoing_requests
        self._has_wishes = route.session_affinity is not None or route.request_timeout_s is not None
        self._sessions = Sessions(route.session_affinity) if route.session_affinity else None
        self.links = [pool.link(address) for address in route.replicas]
        self.join(pool.line(route.stack, route.deployment, route.share is not None, version))
        if self._line.leader is None:
            self._line.turn_to(self)

    def join(self, line: Line) -> None:
        """Who waits for a replica waits in this line."""
        self._line = line
        self._places = line.places
        self._load = line.load
        for link in self.links:
            link.serve(line)

    async def __call__(self, scope: Any, receive: Any, send: Any, wish: Wish | None = None) -> None:
        if wish is None and (self._line.has_models or self._sessions is not None):
            wish, send = self._wish_of(scope, send)
        began = monotonic()
        await self.finish(Call(scope, receive, send, wish), self.enter(began), began)

    def choose_at_once(self) -> WireClient | None:
        """A replica for a request that wishes for nothing; None where it would wait, or has to be run by a call."""
        if self._places or self._has_wishes or self._line.has_models:
            return None
        return self.choose()

    def enter(self, began: float) -> Load:
        """A request is in here until ``leave``, which takes what this returns."""
        self.requests += 1
        self.in_flight += 1
        load = self._load
        load.arrive(began)
        return load

    def leave(self, load: Load, began: float, *, served: bool, waited_s: float = 0.0) -> None:
        """A request that came at ``began`` is over; it was ``served`` if it ended with the replica's answer."""
        self.in_flight -= 1
        now = monotonic()
        load.leave(now)
        if served:
            load.completions += 1
            load.served_s += now - began - waited_s

    async def finish(self, call: Call, load: Load, began: float) -> None:
        """Answer a request that has entered."""
        send, served = call.send, False
        try:
            if self.route.request_timeout_s is None:
                status = await self._run(call)
            else:
                status = await self._run_in_time(call, self.route.request_timeout_s)
            if status >= 500:
                self.errors += 1
            served = True
        except GiveUp as answer:
            self._count_failure(answer.status)
            call.trail.reason = answer.reason
            await error_response(call.scope, send, answer.status, answer.text, answer.headers)
        except StreamLost as error:
            self._count_failure(502)
            await self._end_lost(call, error)
        finally:
            self.leave(load, began, served=served, waited_s=call.waited_s)

    def _count_failure(self, status: int) -> None:
        if status >= 500:
            self.failed += 1
            self.errors += 1

    async def _end_lost(self, call: Call, error: StreamLost) -> None:
        if not call.trail.reason:
            call.trail.reason = Reason.FAILED if isinstance(error, StreamCut) else Reason.REPLICA_LOST
        if not error.response_started:
            if isinstance(error, StreamCut):
                await error_response(call.scope, call.send, 500, "Internal Server Error")
            else:
                await error_response(call.scope, call.send, 502, "Bad Gateway: the replica died before it answered")
            return
        if call.scope["type"] == "websocket":
            await call.send({"type": "websocket.close", "code": 1011, "reason": "replica lost"})
            return
        raise ResponseCut(str(error)) from error

    async def _run_in_time(self, call: Call, timeout_s: float) -> int:
        await need_task()
        try:
            async with asyncio.timeout(timeout_s) as deadline:
                call.watch_start(deadline)
                return await self._run(call)
        except TimeoutError:
            if not deadline.expired():
                raise
            if call.started:
                call.trail.reason = Reason.TIMEOUT
                raise StreamLost(response_started=True) from None
            raise GiveUp(504, f"Gateway Timeout: no answer within {timeout_s:g} s", Reason.TIMEOUT) from None

    async def _run(self, call: Call) -> int:
        """Find a replica, run the request there, and again where that is allowed; the status."""
        incoming = call.incoming
        stream, call.stream = call.stream, None
        if stream is None and call.mode is BodyMode.PULL and not await incoming.prefetch():
            return CLIENT_LEFT
        waited = False
        while True:
            try:
                if stream is not None:
                    begun, stream = stream, None
                    return await begun.connection.finish(begun, call.scope, call.send)
                client = self.choose(call.wish) if waited or not self._places else None
                if client is None:
                    client = await self._wait_in_line(call, first=waited)
                    self._number(call.scope, self._line.leader)
                elif self.route.calls:
                    call.scope[GENERATION] = self.generation
                call.trail.replica = client.replica
                return await client(call.scope, incoming, call.send, call.mode)
            except StreamRefused:
                waited = True
                if not incoming.rewind():
                    raise GiveUp(
                        503, "Service Unavailable: the replica is full", Reason.REPLICA_FULL, retry=True
                    ) from None
                self.retried += 1
            except StreamLost as error:
                call.losses += 1
                if not call.may_repeat(error):
                    raise
                waited = True
                self.retried += 1
            except Gone:
                return CLIENT_LEFT
            except FrameTooLarge:
                raise GiveUp(431, "Request Header Fields Too Large", Reason.TOO_LARGE) from None

    def _number(self, scope: Any, leader: Leader | None) -> None:
        """A request that has waited goes by the generation of those who serve it then: its calls find what fits them."""
        if leader is not None and (leader.route.calls or (leader is not self and GENERATION in scope)):
            scope[GENERATION] = leader.generation

    # choosing

    def choose(self, wish: Wish | None = None) -> WireClient | None:
        """A replica with room: the only one, the one it wishes for, or the less loaded of two at random; else None."""
        links = self.links
        count = len(links)
        if count == 1:
            return self._room(links[0])
        if count == 0:
            return None
        if wish is not None:
            return self._choose_for(wish)
        first = int(random.random() * count)
        second = int(random.random() * (count - 1))
        one, two = self._room(links[first]), self._room(links[second + (second >= first)])
        if one is not None and two is not None:
            return one if one.load <= two.load else two
        if one is not None or two is not None:
            return one or two
        clients = [client for client in map(self._room, links) if client is not None] if count > 2 else []
        return min(clients, key=_load) if clients else None

    def _wish_of(self, scope: Any, send: Any) -> tuple[Wish | None, Any]:
        """What a request's headers ask for, and how to answer it."""
        headers, sessions = scope["headers"], self._sessions
        model = model_in(headers) if self._line.has_models else b""
        session = b"" if sessions is None else sessions.named_in(headers)
        if sessions is not None and sessions.cookie and not session:
            session, send = sessions.begin(scope, send)
        return wish_for(model, session), send

    def _choose_for(self, wish: Wish) -> WireClient | None:
        """One that has the model, and of these, or where none has it, the one that all proxies think of first."""
        open_to = [(link.hash, client) for link in self.links if (client := self._room(link)) is not None]
        if not open_to:
            return None
        if wish.model:
            having = [one for one in open_to if one[1].models is not None and wish.model in one[1].models]
            if not having:
                return favourite(wish.model, open_to)
            if not wish.session:
                return min((client for _, client in having), key=_load)
            open_to = having
        return favourite(wish.session, open_to)

    def _room(self, link: Link) -> WireClient | None:
        client = link.client
        if client is not None and client.open and not client.full and client.ongoing < self._limit:
            return client
        return None

    # waiting

    async def _wait_in_line(self, call: Call, *, first: bool) -> WireClient:
        """Wait for a replica with room, of whichever generation is the newest then."""
        line, load = self._line, self._load
        if not first and 0 <= self.route.max_queued_requests <= len(self._places):
            raise GiveUp(503, "Service Unavailable: too many requests wait", Reason.QUEUE_FULL, retry=True)
        await need_task()
        place = line.enter(first=first)
        watcher = asyncio.create_task(call.incoming.until_client_left())
        watcher.add_done_callback(lambda _: place.set())
        began = monotonic()
        load.wait(began)
        self.queued += 1
        try:
            return await self._wait_for_replica(place, watcher, call.wish)
        finally:
            self.queued -= 1
            now = monotonic()
            waited_s = now - began
            load.go_on(now)
            call.waited_s += waited_s
            call.trail.queue_s += waited_s
            if call.trail.span is not None:
                note_wait(call.trail.span, waited_s)
            watcher.cancel()
            line.leave(place)

    async def _wait_for_replica(
        self, place: asyncio.Event, watcher: asyncio.Task[None], wish: Wish | None
    ) -> WireClient:
        line, clock = self._line, asyncio.get_running_loop().time
        until: float | None = None
        while True:
            if watcher.done():
                watcher.result()
                raise Gone
            client = line.choose(place, wish)
            if client is not None:
                return client
            if line.alive:
                until = None
            else:
                until = clock() + self.route.replica_wait_s if until is None else until
                if line.hopeless or clock() >= until:
                    raise GiveUp(503, "Service Unavailable: no replica is ready", Reason.NO_REPLICA, retry=True)
            place.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await place.wait()


def _load(client: WireClient) -> int:
    return client.load
