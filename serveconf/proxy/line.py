"""Where the requests of one deployment wait for a replica: one line per deployment, which outlives generations.

A ``Backend`` (one route of one generation) puts its requests in; the newest generation's backend, the line's ``leader``,
chooses the replicas for all of them. So a replica that is new takes from the line in the moment in which it is served.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from serveconf.proxy.affinity import Wish
    from serveconf.proxy.load import Load
    from serveconf.proxy.pool import Link
    from serveconf.routing import Route
    from serveconf.wire import WireClient


class Leader(Protocol):
    """Who knows the replicas that serve a deployment now."""

    generation: int  # the newest one in which it leads

    @property
    def route(self) -> Route:
        """The route that it serves."""

    @property
    def links(self) -> Sequence[Link]:
        """Its replicas."""

    def choose(self, wish: Wish | None = None) -> WireClient | None:
        """A replica with room, the one that the request would rather have before others."""

    def join(self, line: Line) -> None:
        """Who waits for the deployment waits here: the line that it had under another name."""


class Line:
    """First come, first served. Nothing is polled: whoever makes room, comes or goes says ``look_again``."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.places: deque[asyncio.Event] = deque()
        self.leader: Leader | None = None
        self.heir: Leader | None = None  # who leads it when none of the leader's replicas is left
        self.has_models = False  # requests say which of several models they are for
        self.removed = False  # no route leads to the deployment any more: nothing new will come for those who wait

    def turn_to(self, leader: Leader, heir: Leader | None = None) -> None:
        """From now on these replicas serve the line, and those of ``heir`` when they are gone."""
        self.removed = False
        self.heir = heir
        if leader is self.leader:
            return
        self._unwatch()
        self.leader = leader
        if self.places:
            self._watch()
            self.look_again()

    def close(self) -> None:
        """The deployment has no route any more. Who waits is served by what is left of it."""
        self.removed = True
        self.look_again()

    @property
    def alive(self) -> bool:
        """Whether any replica takes requests, now or when it has room."""
        links = self.leader.links if self.leader else ()
        return any(link.client is not None and link.client.open for link in links)

    @property
    def hopeless(self) -> bool:
        """Whether, with no replica alive, none is to be expected soon."""
        return self.removed or (self.leader is not None and self.leader.route.hopeless)

    def look_again(self) -> None:
        """A replica has room, or one came, or one went: the first in line looks, or all when no replica is left."""
        if not self.places:
            return
        if self.alive:
            self.places[0].set()
        else:
            for place in self.places:
                place.set()

    def enter(self, *, first: bool) -> asyncio.Event:
        """A place at the end of the line, or before everyone."""
        place = asyncio.Event()
        if first:
            self.places.appendleft(place)
        else:
            self.places.append(place)
        if len(self.places) == 1:
            self._watch()
        return place

    def choose(self, place: asyncio.Event, wish: Wish | None = None) -> WireClient | None:
        """A replica with room for the request at this place, if it is the first one's turn."""
        if self.places[0] is not place or self.leader is None:
            return None
        if self.heir is not None and not any(link.is_there for link in self.leader.links):
            self.turn_to(self.heir)
        return self.leader.choose(wish)

    def leave(self, place: asyncio.Event) -> None:
        """The request at this place goes on, or has gone."""
        self.places.remove(place)
        if self.places:
            self.look_again()  # there may be room for the next one too
        else:
            self._unwatch()

    def _watch(self) -> None:
        for link in self.leader.links if self.leader else ():
            link.waiting.add(self)

    def _unwatch(self) -> None:
        for link in self.leader.links if self.leader else ():
            link.waiting.discard(self)
