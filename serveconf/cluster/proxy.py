"""One proxy process: the HTTP edge on a loop of its own, serving one generation at a time.

A plain class; ``actors`` puts Ray on it. It begins with the generation in the store, so that after a crash it serves
again without being told.
"""

from __future__ import annotations

import asyncio
import os

import msgspec
from msgspec.structs import replace

from serveconf.cluster.logs import get_logger
from serveconf.cluster.loopthread import LoopThread
from serveconf.cluster.settings import ClusterSettings, node_folder
from serveconf.errors import CodeFailed, ServeconfError
from serveconf.figures import ProxyFigures
from serveconf.plan.state import ProxyPhase, ProxyState
from serveconf.proxy.app import ProxyApp
from serveconf.proxy.dispatch import Backend
from serveconf.proxy.middleware import MiddlewareImporter
from serveconf.proxy.pool import ReplicaPool
from serveconf.proxy.ports import port_in_use, port_is_free
from serveconf.proxy.server import ProxyServer
from serveconf.proxy.tls import TlsFiles
from serveconf.reconcile.packages import Packages
from serveconf.reconcile.ports import Answers, Counters, ProxyOrder, Store, Totals
from serveconf.routing import Generation, decode

log = get_logger("proxy")

RESTORE_TRIES = 20
RESTORE_PAUSE_S = 0.25


class Proxy:
    """Listen, serve the stored generation, then whatever is staged and committed."""

    def __init__(self, order: ProxyOrder, settings: ClusterSettings, store: Store, *, alone: bool) -> None:
        self._order = order
        self._alone = alone
        self._store = store
        self._packages = Packages(store, node_folder(settings.cluster_id) / "code")
        self._settings = settings
        self._ready = asyncio.Event()
        self._state = ProxyState(
            id=order.id,
            node_id=order.node_id,
            phase=ProxyPhase.STARTING,
            listener=order.listener,
            pid=os.getpid(),
            address=f"{order.host}:{order.port}",
        )
        self._thread = LoopThread("proxy")
        self._thread.start(self._start())

    def describe(self) -> ProxyState:
        """What it is now."""
        return self._state

    async def wait_ready(self) -> ProxyState:
        """Return when it listens or can't."""
        await self._thread.run(self._ready.wait())
        return self._state

    async def stage(self, generation: Generation) -> tuple[str, str, bool] | None:
        """Build a generation beside the one that serves. None, or (message, traceback, whether user code is to blame)."""
        return await self._thread.run(self._stage(generation))

    async def commit(self, number: int) -> None:
        """Serve the staged generation from the next request on."""
        await self._thread.run(self._commit(number))

    async def abort(self, number: int) -> None:
        """Forget the staged generation."""
        await self._thread.run(self._abort(number))

    async def count(self, operation: str, *, begin: bool) -> Counters:
        """Begin to count for an operation, or read what was counted since."""
        return await self._thread.run(self._count(operation, begin))

    async def totals(self) -> Totals:
        """What was counted since the process began."""
        totals, figures = await self._thread.run(self._totals())
        return replace(totals, figures=msgspec.msgpack.decode(figures, type=ProxyFigures))

    async def drain(self, timeout_s: float) -> None:
        """Stop listening, finish what was begun."""
        await self._thread.run(self._drain(timeout_s))

    # everything below runs on the proxy's loop

    async def _start(self) -> None:
        try:
            self._build()
            await self._restore()
            if self._alone and not port_is_free(self._order.host, self._order.port):
                raise port_in_use(self._order.host, self._order.port)
            await self._server.start()
            self._state = replace(self._state, phase=ProxyPhase.READY)
            log.info("proxy listens", address=self._state.address)
        except ServeconfError as error:
            self._fail(f"{error.message}; {error.hint}" if error.hint else error.message)
        except Exception as error:  # noqa: BLE001 - the controller must hear of it, whatever it is
            self._fail(f"{type(error).__name__}: {error}")
        self._ready.set()

    def _build(self) -> None:
        pool = ReplicaPool(node_id=self._order.node_id, secret=self._settings.secret)
        self._app = ProxyApp(
            pool=pool,
            backend_factory=lambda route: Backend(route, pool),
            import_middleware=MiddlewareImporter(lambda digest: str(self._packages.path(digest))),
        )
        self._server = ProxyServer(
            self._app,
            self._order.host,
            self._order.port,
            edge=self._app.edge,
            reuse_port=True,
            tls=_tls(self._order),
            http2=self._order.http2,
        )

    async def _restore(self) -> None:
        """Serve the generation that was committed last. One that can't be built any more waits for the controller's next."""
        data = await self._store.get("generation")
        if data is None:
            return
        generation = decode(data)
        for _ in range(RESTORE_TRIES):
            refused = await self._stage(generation)
            if refused is None:
                await self._commit(generation.number)
                return
            await asyncio.sleep(RESTORE_PAUSE_S)
        log.warning("the stored generation could not be restored", reason=refused)

    async def _stage(self, generation: Generation) -> tuple[str, str, bool] | None:
        try:
            middlewares = [
                *generation.front.middlewares,
                *(m for route in generation.routes for m in route.middlewares),
            ]
            for digest in {m.code for m in middlewares if m.code}:
                await self._packages.folder(digest)
            await self._app.stage(generation)
        except CodeFailed as error:
            return error.message, error.traceback, True
        except ServeconfError as error:
            return error.message, "", False
        return None

    async def _commit(self, number: int) -> None:
        self._app.commit(number)
        self._state = replace(self._state, generation=number)

    async def _abort(self, number: int) -> None:
        self._app.abort(number)

    async def _count(self, operation: str, begin: bool) -> Counters:
        if begin:
            self._app.start_receipt(operation)
            return Counters()
        return msgspec.convert(self._app.receipt(operation), Counters, from_attributes=True)

    async def _totals(self) -> tuple[Totals, bytes]:
        """The figures as bytes: they go on changing here, and are made data again where no request waits for it."""
        tally = self._app.edge.tally
        totals = Totals(
            pid=os.getpid(),
            requests=tally.requests,
            failed=tally.failed,
            retried=self._app.retried,
            open_streams=tally.open_streams,
            deployments={name: Answers(a.given, a.failed) for name, a in self._app.answers().items()},
        )
        return totals, msgspec.msgpack.encode(self._app.figures())

    async def _drain(self, timeout_s: float) -> None:
        self._state = replace(self._state, phase=ProxyPhase.DRAINING)
        await self._server.drain(timeout_s)

    def _fail(self, message: str) -> None:
        log.error("proxy failed", proxy=self._order.id, reason=message)
        self._state = replace(self._state, phase=ProxyPhase.FAILED, message=message)


def _tls(order: ProxyOrder) -> TlsFiles | None:
    if order.ssl_certfile is None:
        return None
    return TlsFiles(
        certfile=order.ssl_certfile,
        keyfile=order.ssl_keyfile,
        ca_certs=order.ssl_ca_certs,
        password=order.ssl_keyfile_password,
    )
