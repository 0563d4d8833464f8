"""The proxies, as handles of an engine's actors: started, told what to serve, asked what they have counted.

``ActorCluster`` has one, and answers the ``Cluster`` port with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from msgspec.structs import replace

from serveconf.cluster.engine import Engine, Place, Refused, Remote
from serveconf.cluster.handle import Care, Handle
from serveconf.cluster.orders import Orders
from serveconf.cluster.settings import PROXY_PREFIX, ClusterSettings
from serveconf.errors import CodeFailed, OperatorError
from serveconf.figures import ProxyFigures
from serveconf.plan.state import Phase, ProxyState
from serveconf.reconcile.ports import Counters, ProxyOrder, Totals
from serveconf.routing import Generation, encode

STAGE_TIMEOUT_S = 20.0
START_S = 30.0
PERIOD_S = 1.0
ANSWER_S = 2.0  # a proxy's loop answers in a millisecond; one that does not is not waited for any more
END_S = 15.0  # ... and one that stays so is ended


class ProxyHandles:
    """By the proxies' ids. ``changed``: there is something new to see; ``last_words``: called before one that drained goes."""

    def __init__(
        self,
        engine: Engine,
        settings: ClusterSettings,
        orders: Orders,
        *,
        changed: Callable[[], None],
        last_words: Callable[[ProxyState], Awaitable[None]],
    ) -> None:
        self.handles: dict[str, Handle[ProxyState]] = {}
        self._engine = engine
        self._settings = settings
        self._orders = orders
        self._changed = changed
        self._last_words = last_words
        self._ports: dict[str, tuple[str, int]] = {}  # of each: its node and its port

    async def start(self, order: ProxyOrder) -> None:
        """Start a proxy on its node; alone on its port it first makes sure that nobody else has it."""
        alone = (order.node_id, order.port) not in self._ports.values()
        name = PROXY_PREFIX + order.id
        await self._orders.keep(name, order)
        try:
            place = Place(node_id=order.node_id, restarts=True)
            remote = await self._engine.start(name, "proxy", (order, self._settings, alone), place)
            handle = self.handle(order, remote)
        except Refused as refused:
            handle = self.handle(order, None)
            handle.state = replace(handle.state, phase=Phase.FAILED, message=str(refused))
        self.handles[order.id] = handle
        handle.watch()
        self._changed()

    async def serve_beside(self, proxy_id: str) -> None:
        """See the port."""
        handle = self.find(proxy_id)
        await handle.ask("serve_beside", timeout_s=ANSWER_S)
        handle.note(stands_by=False)

    async def stand_by_again(self, proxy_id: str) -> bool:
        """See the port."""
        handle = self.find(proxy_id)
        stands_by: bool = await handle.ask("stand_by_again", timeout_s=ANSWER_S)
        handle.note(stands_by=stands_by)
        return stands_by

    async def warn(self, proxy_id: str) -> None:
        """See the port."""
        await self.find(proxy_id).ask("warn", timeout_s=ANSWER_S)

    async def stage(self, proxy_id: str, generation: Generation) -> None:
        """Have it build the generation beside the one it serves."""
        refused = await self.find(proxy_id).ask("stage", encode(generation), timeout_s=STAGE_TIMEOUT_S)
        if refused is None:
            return
        message, trace, is_code = refused
        raise CodeFailed(message, traceback=trace) if is_code else OperatorError(message)

    async def commit(self, proxy_id: str, number: int) -> None:
        """Have it serve what it staged."""
        handle = self.find(proxy_id)
        live: int = await handle.ask("commit", number)
        handle.note(generation=live)

    async def abort(self, proxy_id: str, number: int) -> None:
        """Have it forget what it staged."""
        await self.find(proxy_id).ask("abort", number)

    async def count(self, proxy_id: str, operation: str, *, begin: bool) -> Counters:
        """Begin to count, or read what was counted."""
        counted: Counters = await self.find(proxy_id).ask("count", operation, begin, timeout_s=ANSWER_S)
        return counted

    async def totals(self, proxy_id: str) -> Totals:
        """What it has counted since its process began."""
        totals, figures = await self.find(proxy_id).ask("totals", timeout_s=ANSWER_S)
        read: Totals = replace(totals, figures=msgspec.msgpack.decode(figures, type=ProxyFigures))
        return read

    def find(self, proxy_id: str) -> Handle[ProxyState]:
        """The handle of one that is there. Raises OperatorError."""
        handle = self.handles.get(proxy_id)
        if handle is None:
            raise OperatorError(f"proxy {proxy_id} is gone", code="no_answer")
        return handle

    def handle(self, order: ProxyOrder, remote: Remote | None) -> Handle[ProxyState]:
        """What looks after a proxy that is started, or was found."""
        self._ports[order.id] = (order.node_id, order.port)
        state = ProxyState(
            id=order.id,
            node_id=order.node_id,
            phase=Phase.STARTING,
            listener=order.listener,
            address=f"{order.host}:{order.port}",
            stands_by=order.stands_by,
        )
        care = Care(
            ready_s=START_S,
            period_s=PERIOD_S,
            question=("check",),
            answer_s=ANSWER_S,
            unhealthy_after=1,
            end_after_s=END_S,
            returns=True,
        )
        return Handle(
            self._engine,
            remote,
            state,
            care,
            changed=self._changed,
            gone=self._forget,
            last_words=self._last_words,
        )

    def _forget(self, proxy_id: str) -> None:
        self.handles.pop(proxy_id, None)
        self._ports.pop(proxy_id, None)
        self._orders.forget(PROXY_PREFIX + proxy_id)
