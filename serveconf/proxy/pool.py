"""The connections of one proxy process, by replica. All generations share them.

The proxy opens what a generation names when it stages it, and releases what no generation names any more. In between a
connection that dies is made again, with back-off, for as long as the replica is in a table.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

from serveconf.errors import OperatorError
from serveconf.proxy.affinity import hash_of
from serveconf.proxy.line import Line
from serveconf.proxy.load import Reporter
from serveconf.routing import ReplicaAddress
from serveconf.wire import ProtocolError, WireClient
from serveconf.wire.node_tls import TLS, NodeTls

if TYPE_CHECKING:
    from serveconf.proxy.line import Leader

log = logging.getLogger("serveconf.proxy")

OPEN_TIMEOUT_S = 5.0  # for all of a generation's new replicas to be reached, when it is staged
FIRST_BACK_OFF_S = 0.05
LONGEST_BACK_OFF_S = 2.0
BEHIND_S = 0.5
NONE_MOVED: Mapping[tuple[str, str], str] = MappingProxyType({})


class Side(NamedTuple):
    """Whose requests wait in one line: a deployment's, or those of its canary. ``version``: where that matters."""

    stack: str
    deployment: str
    is_canary: bool = False
    version: str = ""


NONE_STAYS: Mapping[Any, Leader] = MappingProxyType({})


class ReplicaUnreachable(OperatorError):
    """A replica that a generation names does not answer on its socket."""

    code = "replica_unreachable"


class Link:
    """One replica as this proxy sees it: its address, and its connection while there is one."""

    def __init__(self, pool: ReplicaPool, address: ReplicaAddress) -> None:
        self.id = address.id
        self.hash = hash_of(address.id.encode())
        self.line: Line | None = None  # of the deployment that it is a replica of
        self.client: WireClient | None = None
        self.reached = False  # it was connected at least once
        self.released = False
        self.in_vain = False  # the first attempt to connect has failed
        self.opened_by = 0  # so many generations that are being staged
        self.is_named = False  # by a generation all of whose replicas were reached
        self.waiting: set[Line] = set()  # those with requests that wait for room here
        self._pool = pool
        self._where = pool.where(address)
        self._reconnecting: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Connect once. OSError when that fails."""
        try:
            client = await WireClient.connect(
                self._where, secret=self._pool.secret, timeout_s=OPEN_TIMEOUT_S, tls=self._pool.tls
            )
        except BaseException:  # a cancel too: whoever looks must not take it for one that was never tried
            self.in_vain = True
            raise
        if self.released or self.client is not None:
            client.close()
            return
        self.reached = True
        self.client = client
        client.replica = self.id
        client.on_close = self._lost
        client.on_room = self.tell
        client.on_models = self._tell_line
        self._tell_line()
        if client.closed:
            self._lost()
        self.tell()

    @property
    def is_there(self) -> bool:
        """Whether it takes requests, now or when it has room, or is just being connected to for the first time."""
        if self.client is not None:
            return self.client.open
        return not (self.reached or self.in_vain or self.released)

    def serve(self, line: Line) -> None:
        """This line's requests come here."""
        self.line = line
        self._tell_line()

    def _tell_line(self) -> None:
        """Where requests ask for models, the line has to look which one they ask for."""
        if self.line is not None and self.client is not None and self.client.models is not None:
            self.line.has_models = True

    def tell(self) -> None:
        """There may be room: whoever waits has a look."""
        if self.waiting:
            for line in tuple(self.waiting):
                line.look_again()

    def release(self) -> None:
        """No generation names this replica any more; what runs on it ends there."""
        self.released = True
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        if self.client is not None:
            self.client.retire_soon()
        self.tell()

    def _lost(self) -> None:
        self.client = None
        if not self.released:
            log.warning("connection to replica %s lost, connecting again", self.id)
            self.reconnect()
        self.tell()

    def reconnect(self, first_s: float = FIRST_BACK_OFF_S) -> None:
        """Connect in the background, with back-off, until it works or the replica is released."""
        if self._reconnecting is None or self._reconnecting.done():
            self._reconnecting = asyncio.get_running_loop().create_task(self._connect_again(first_s))

    @property
    def trying(self) -> asyncio.Task[None]:
        """Ends when it is connected, or released."""
        assert self._reconnecting is not None
        return self._reconnecting

    async def _connect_again(self, pause_s: float) -> None:
        while not self.released and self.client is None:
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(max(2 * pause_s, FIRST_BACK_OFF_S), LONGEST_BACK_OFF_S)
            try:
                await self.connect()
            except (OSError, ProtocolError):
                continue


class ReplicaPool:
    """One per process: the connections, and the line of each deployment whose requests go over them."""

    def __init__(self, *, node_id: str, secret: bytes, tls: NodeTls | None = None) -> None:
        """``tls``: how to reach replicas on other nodes that want it."""
        self.node_id = node_id
        self.secret = secret
        self.tls = tls
        self.reporter = Reporter()
        self._links: dict[str, Link] = {}
        self._lines: WeakValueDictionary[Side, Line] = WeakValueDictionary()

    async def open(self, addresses: Iterable[ReplicaAddress]) -> None:
        """Connect to every replica that is new. ReplicaUnreachable, and nothing kept, when one can't be reached in time.

        A replica that was reached before and whose connection just broke is not waited for: it may have crashed, and
        that must not stand in the way of the generation that replaces it.
        """
        addresses = list(addresses)
        new = self._unreached(addresses)
        for link in new:
            link.opened_by += 1
        try:
            results = await asyncio.gather(*(link.connect() for link in new), return_exceptions=True)
        finally:
            for link in new:
                link.opened_by -= 1
        failed = [(link, error) for link, error in zip(new, results, strict=True) if error is not None]
        if failed:  # what another generation opens, or has opened, meanwhile is that one's
            self.release([link.id for link in new if not link.opened_by and not link.is_named])
            link, error = failed[0]
            raise ReplicaUnreachable(f"replica {link.id} does not answer: {error!r}") from error
        for link in map(self.link, addresses):
            link.is_named = True

    async def open_behind(self, addresses: Iterable[ReplicaAddress]) -> None:
        """Connect to every replica that is new, and go on trying behind where one can't be reached within half a second.

        For a proxy that comes back: it serves the table that was live, whoever of it has died meanwhile.
        """
        new = self._unreached(addresses)
        for link in new:
            link.reconnect(first_s=0)
        if new:
            await asyncio.wait([link.trying for link in new], timeout=BEHIND_S)

    def _unreached(self, addresses: Iterable[ReplicaAddress]) -> list[Link]:
        return [link for link in map(self.link, addresses) if not link.reached]

    def release(self, replica_ids: Iterable[str]) -> None:
        """No generation names these any more: nothing new goes there, and what runs there ends there."""
        for replica_id in replica_ids:
            link = self._links.pop(replica_id, None)
            if link is not None:
                link.release()

    async def close(self) -> None:
        """Drop every connection at once; the proxy stops."""
        clients = [link.client for link in self._links.values() if link.client is not None]
        self.release(list(self._links))
        for client in clients:
            client.close()
        for client in clients:
            await client.retire()

    def link(self, address: ReplicaAddress) -> Link:
        """The link to a replica, which ``open`` connects."""
        link = self._links.get(address.id)
        if link is None:
            link = self._links[address.id] = Link(self, address)
        return link

    def line(self, stack: str, deployment: str, is_canary: bool = False, version: str = "") -> Line:
        """The line of a deployment, for as long as any of its backends lives; a canary's requests have one of their own.

        ``version``: the one of those calls that began with this version of it.
        """
        key = Side(stack, deployment, is_canary, version)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(self.reporter.load(f"{stack}/{deployment}"))
        return line

    def lead(
        self,
        leaders: Mapping[Any, Leader],
        former: Mapping[tuple[str, str], str] = NONE_MOVED,
        generation: int = 0,
        staying: Mapping[Any, Leader] = NONE_STAYS,
    ) -> None:
        """A generation is live: these serve its deployments, each with its side. Others have no route any more.

        ``former``: stack and name that a deployment had → the name that it has now: its line goes on under that.
        ``staying``: older versions, which serve those who began with them until they are gone.
        """
        leading = {Side(*name): leader for name, leader in leaders.items()}
        for side, leader in leading.items():
            leader.generation = generation
            here = (side.stack, side.deployment)
            for old in [old for (stack, old), new in former.items() if not side.is_canary and (stack, new) == here]:
                if (was := side._replace(deployment=old)) not in leading:
                    self._rename_line(was, side, leader)
        newest = {(side.stack, side.deployment): leader for side, leader in leading.items() if not side.is_canary}
        led = {self.line(*side): leader for side, leader in leading.items()}
        stay = {self.line(*name): leader for name, leader in staying.items() if Side(*name) not in leading}
        for (stack, deployment, *_), line in list(self._lines.items()):
            heir = newest.get((stack, former.get((stack, deployment), deployment)))
            if line in led:
                line.turn_to(led[line])
            elif line in stay:
                line.turn_to(stay[line], heir)
            elif heir is None:
                line.close()
            else:
                line.turn_to(heir)

    def _rename_line(self, old: Side, new: Side, leader: Leader) -> None:
        line = self._lines.pop(old, None)
        if line is None:
            return
        self._lines[new] = line
        self.reporter.rename(line.load, f"{new.stack}/{new.deployment}")
        leader.join(line)

    def where(self, address: ReplicaAddress) -> str:
        """How to reach a replica from this node."""
        if address.node_id == self.node_id:
            return f"unix:{address.uds}"
        if address.tcp is None:
            raise ReplicaUnreachable(f"replica {address.id} is on node {address.node_id} and has no TCP address")
        return address.tcp if address.tcp.startswith(TLS) else f"tcp:{address.tcp}"
