"""Where the replicas of each deployment are, by generation, as proxies have it: staged, then committed by one assignment.

A request that began with one generation makes its calls by that generation's table for as long as it runs, so that it
never sees half of a change. Replicas are connected when a deployment is first called, and let go of with the last table
that names them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from msgspec.structs import replace

from serveconf.errors import OperatorError
from serveconf.handles.calls import Target
from serveconf.handles.errors import DeploymentUnavailableError
from serveconf.proxy.dispatch import Backend
from serveconf.proxy.pool import ReplicaPool, Side
from serveconf.routing import Generation, ReplicaAddress, Route, decode_routes
from serveconf.wire import ProtocolError

log = logging.getLogger("serveconf.handles")

BEGIN_S = 0.1  # between two looks at what begins to be served
APPEAR_S = 5.0  # how long a call waits for a deployment that no table names yet
LINGER_S = 1.0  # how long a table outlives the next one's commit: proxies take that one at about the same time

ReadBeginning = Callable[[str], Awaitable[bytes | None]]


@dataclass(eq=False)
class Table:
    """One generation. ``backends``: of those deployments that were called; ``requests``: how many run by this table."""

    number: int
    routes: dict[Target, Route] = field(default_factory=dict)
    backends: dict[Target, Backend] = field(default_factory=dict)
    requests: int = 0
    lingers: bool = False
    came: tuple[Route, ...] = ()  # what it was made from
    former: dict[Target, Target] = field(default_factory=dict)  # what a deployment was called → what it is called

    def now(self, target: Target) -> Target:
        """What is meant by it: its name now, where it has had another one."""
        return target if target in self.routes else self.former.get(target, target)

    def meant(self, target: Target) -> Target | None:
        """The deployment that is meant by it, by a name of now or a former one; None where there is none."""
        found = meant_by(self.now(target), self.routes)
        if found is None and not target.deployment:
            former = (new for old, new in self.former.items() if old.deployment == target.stack)
            found = next(former, None)
        return found


class Directory:
    """The tables of one process. Everything is called from the one loop that its connections live on."""

    def __init__(self, pool: ReplicaPool, begins: ReadBeginning | None = None) -> None:
        """``begins``: reads the routes of a stack that begin to be served."""
        self._pool = pool
        self._read_beginning = begins
        self._starting = 0  # replicas of this process that are not ready yet
        self._begun: dict[Target, Backend] = {}
        self.waits_for = ""  # the deployment that code of a replica that starts has called, and that is not ready
        self._live = Table(0)
        self._tables: dict[int, Table] = {0: self._live}
        self._opened: dict[str, ReplicaAddress] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._renamed: dict[tuple[str, str], str] = {}  # stack and application → what that is called now

    @property
    def generation(self) -> int:
        """The number of the committed table; 0 before the first one."""
        return self._live.number

    @property
    def live(self) -> Table:
        """The committed table."""
        return self._live

    async def stage(self, generation: Generation) -> None:
        """Have a table ready beside the live one; what is called already is connected. An older one is no news."""
        staged = self._tables.get(generation.number)
        if generation.number <= self._live.number or (staged is not None and staged.came == generation.routes):
            return
        routes = (_for_calls(route) for route in generation.routes if route.share is None)
        table = Table(generation.number, {Target(stack=r.stack, deployment=r.deployment): r for r in routes})
        table.came = generation.routes
        table.former = {
            Target(stack=stack, deployment=old): target
            for target, route in table.routes.items()
            for stack, old in ((route.stack, old) for old in route.formerly)
        }
        for called, backend in self._live.backends.items():
            target = table.now(called)
            route = table.routes.get(target)
            if route is not None:
                table.backends[target] = backend if route == backend.route else self._backend(route)
        self._tables[generation.number] = table
        await self._open(replica for backend in table.backends.values() for replica in backend.route.replicas)

    def commit(self, number: int) -> None:
        """Look in the staged table from the next call on."""
        if number <= self._live.number or number not in self._tables:
            return
        old, self._live = self._live, self._tables[number]
        for target in map(self._live.now, old.backends):  # first called between the two steps
            if target not in self._live.backends and target in self._live.routes:
                self._live.backends[target] = self._backend(self._live.routes[target])
        self._connect(r for b in self._live.backends.values() for r in b.route.replicas)
        self._lead()
        old.lingers = True
        asyncio.get_running_loop().call_later(LINGER_S, self._leave_behind, old)
        self._changed.set()
        self._changed = asyncio.Event()
        for other in [n for n in self._tables if old.number < n < number]:
            self.abort(other)

    def abort(self, number: int) -> None:
        """Forget a staged table."""
        if number > self._live.number or self._live.number == 0:
            self._tables.pop(number, None)
        elif number != self._live.number and (table := self._tables.get(number)) is not None and not table.requests:
            del self._tables[number]
        self._release()

    async def take(self, generation: Generation) -> None:
        """Stage and commit at once: for a process that has no requests of its own."""
        await self.stage(generation)
        self.commit(generation.number)

    @contextlib.contextmanager
    def holding(self, number: int) -> Iterator[int]:
        """For as long as a request runs that began with this generation, or with the live one where this is not known.

        Its number; 0 where nothing is called from here.
        """
        table = self._tables.get(number) or self._live
        if not table.number:
            yield 0
            return
        table.requests += 1
        try:
            yield table.number
        finally:
            table.requests -= 1
            self._drop_if_over(table)

    async def find(self, target: Target, generation: int) -> Backend:
        """Who takes calls of a deployment. Raises DeploymentUnavailableError where nothing of that name appears in time."""
        if self._starting and (begun := await self._find_beginning(target)) is not None:
            return begun
        table = self._tables.get(generation) if generation else None
        meant = self._meant(target, table) if table is not None else None
        if table is None or meant is None:
            table, meant = await self._table_with(target)
        target = meant
        backend = table.backends.get(target)
        if backend is None:
            route = table.routes[target]
            backend = table.backends[target] = self._backend(route)
            self._connect(route.replicas)
            if table is self._live:
                self._lead()
        return backend

    async def _table_with(self, target: Target) -> tuple[Table, Target]:
        try:
            async with asyncio.timeout(APPEAR_S):
                while (meant := self._meant(target, self._live)) is None:
                    await self._changed.wait()
        except TimeoutError:
            what = f"deployment '{target.deployment}' in stack" if target.deployment else "application"
            raise DeploymentUnavailableError(f"there is no {what} '{target.stack}'") from None
        return self._live, meant

    def rename_application(self, stack: str, old: str, new: str) -> None:
        """The application that this process is part of has another name: what it was given to call goes with it."""
        self._renamed = {(stack, old): new} | {key: new if name == old else name for key, name in self._renamed.items()}
        self._renamed.pop((stack, new), None)

    def _meant(self, target: Target, table: Table) -> Target | None:
        meant = table.meant(target)
        entry, dot, rest = target.deployment.partition(".")
        new = self._renamed.get((target.stack, entry))
        if meant is None and new is not None:
            return table.meant(Target(stack=target.stack, deployment=f"{new}{dot}{rest}"))
        return meant

    # while a replica of this process starts

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Until it is ready its calls find also what no table names yet, because that begins to be served with it."""
        self._starting += 1
        try:
            yield
        finally:
            self._starting -= 1
            if not self._starting:
                self._begun.clear()
                self._release()

    async def _find_beginning(self, target: Target) -> Backend | None:
        """Who takes calls of a deployment that begins to be served, when it is ready. None where it does not begin."""
        try:
            while (route := await self._beginning_route(target)) is not None:
                if route.replicas:
                    return await self._begin(target, route)
                self.waits_for = target.deployment
                await asyncio.sleep(BEGIN_S)
        finally:
            self.waits_for = ""
        return None

    async def _beginning_route(self, target: Target) -> Route | None:
        data = await self._read_beginning(target.stack) if self._read_beginning is not None else None
        routes = decode_routes(data) if data else ()
        return next((route for route in routes if route.deployment == target.deployment), None)

    async def _begin(self, target: Target, route: Route) -> Backend:
        known = self._begun.get(target)
        if known is None or known.route != route:
            known = self._begun[target] = self._backend(route)
            await self._open(route.replicas)  # in the line it would be served by whoever leads that
        return known

    # connections

    def _backend(self, route: Route) -> Backend:
        return Backend(route, self._pool, version=route.version)

    def _lead(self) -> None:
        """Those who wait for a deployment are served by its newest replicas of the version that they began with."""
        older = [self._tables[number] for number in sorted(self._tables) if number < self._live.number]
        staying: dict[Side, Backend] = {_side(target, b): b for target, b in self._begun.items()}
        for table in older:
            staying |= {_side(target, b): b for target, b in table.backends.items()}
        former = {(old.stack, old.deployment): new.deployment for old, new in self._live.former.items()}
        leaders: dict[Side, Backend] = {_side(target, b): b for target, b in self._live.backends.items()}
        self._pool.lead(leaders, former, self._live.number, staying)

    async def _open(self, replicas: Iterable[ReplicaAddress]) -> None:
        """Connect to those that are new, and wait for it."""
        if connecting := self._connect(replicas):
            await asyncio.wait(connecting)

    def _connect(self, replicas: Iterable[ReplicaAddress]) -> list[asyncio.Task[None]]:
        """Begin to connect to those that are new; calls wait in line meanwhile. Who gives up takes no connection from others."""
        new = [replica for replica in replicas if replica.id not in self._opened]
        self._opened |= {replica.id: replica for replica in new}
        tasks = [asyncio.create_task(self._reach(replica)) for replica in new]
        self._connecting.update(tasks)
        for task in tasks:
            task.add_done_callback(self._connecting.discard)
        return tasks

    async def _reach(self, replica: ReplicaAddress) -> None:
        try:
            link = self._pool.link(replica)
        except OperatorError as error:  # on another node, and listening there for nobody yet
            log.warning("%s", error.message)
            return
        try:
            await link.connect()
        except (OSError, ProtocolError):
            link.reconnect()

    def _leave_behind(self, table: Table) -> None:
        table.lingers = False
        self._drop_if_over(table)

    def _drop_if_over(self, table: Table) -> None:
        if table is not self._live and table.number < self._live.number and not table.requests and not table.lingers:
            self._tables.pop(table.number, None)
            self._release()

    def _release(self) -> None:
        """Tell the pool about replicas that no table names any more."""
        backends = [b for table in self._tables.values() for b in table.backends.values()]
        named = {r.id for backend in (*backends, *self._begun.values()) for r in backend.route.replicas}
        unused = sorted(self._opened.keys() - named)
        for replica_id in unused:
            del self._opened[replica_id]
        if unused:
            self._pool.release(unused)

    async def close(self) -> None:
        """Drop every connection; the process ends."""
        await self._pool.close()


def _side(target: Target, backend: Backend) -> Side:
    return Side(target.stack, target.deployment, version=backend.route.version)


def _for_calls(route: Route) -> Route:
    """A route without what is for requests from outside, as canaries are: a call says itself which session it belongs to."""
    return replace(route, session_affinity=None, calls=False) if route.session_affinity or route.calls else route


def meant_by(target: Target, routes: Collection[Target]) -> Target | None:
    """The deployment that a name means. Without one, the application is meant: a stack's one entry, else the entry so called."""
    if target in routes:
        return target
    if target.deployment:
        return None
    entries = [one for one in routes if "." not in one.deployment]
    found = [one for one in entries if one.stack == target.stack]
    if len(found) != 1:
        found = [one for one in entries if one.deployment == target.stack]
    return found[0] if len(found) == 1 else None
