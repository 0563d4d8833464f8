"""One proxy process: the HTTP edge on a loop of its own, serving one generation at a time.

A plain class that is hosted: everything runs on its loop. It begins with the generation in the store, so that after a
crash it serves again without being told. Where another one serves its port already it stands by: with the same
generation, connected to the same replicas, and with the listener in its hands for the moment when that one ends.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket

import msgspec
from msgspec.structs import replace

from serveconf import __version__
from serveconf.cluster.engine import Surroundings
from serveconf.cluster.gcs import Patient
from serveconf.cluster.logs import get_logger
from serveconf.cluster.settings import ClusterSettings, node_folder
from serveconf.errors import CodeFailed, ServeconfError
from serveconf.figures import LoadReport
from serveconf.plan.state import Phase, ProxyState
from serveconf.proxy.app import ProxyApp
from serveconf.proxy.dispatch import Backend
from serveconf.proxy.edge import Edge
from serveconf.proxy.middleware import MiddlewareImporter
from serveconf.proxy.pool import ReplicaPool
from serveconf.proxy.ports import listen, port_in_use, port_is_free
from serveconf.proxy.server import BACKLOG, ProxyServer
from serveconf.proxy.shared_port import SharedPort
from serveconf.proxy.tls import TlsFiles
from serveconf.reconcile.packages import Packages
from serveconf.reconcile.ports import Answers, Counters, ProxyOrder, Totals
from serveconf.routing import Generation, decode
from serveconf.tracing import MISSING, MISSING_HINT, Outlet, is_installed
from serveconf.wire.node_tls import node_tls

log = get_logger("proxy")


class Proxy:
    """Listen, serve the stored generation, then whatever is staged and committed."""

    def __init__(self, order: ProxyOrder, settings: ClusterSettings, alone: bool, surroundings: Surroundings) -> None:
        self._order = order
        self._alone = alone and not surroundings.restarted
        self._store = Patient(surroundings.store)  # it begins without a GCS as well
        self._packages = Packages(self._store, node_folder(settings.cluster_id) / "code")
        self._code: set[str] = set()  # packages of the middlewares of what was staged last
        self._settings = settings
        self._pool = ReplicaPool(node_id=order.node_id, secret=settings.secret, tls=node_tls(os.environ))
        self._ready = asyncio.Event()
        self._draining: asyncio.Task[object] | None = None
        self._standing_by: asyncio.Task[None] | None = None
        folder = node_folder(settings.cluster_id)
        self._port = SharedPort(folder / _place(order), self._listen) if order.shares_port else None
        self._state = ProxyState(
            id=order.id,
            node_id=order.node_id,
            phase=Phase.STARTING,
            listener=order.listener,
            pid=os.getpid(),
            address=f"{order.host}:{order.port}",
            serveconf=__version__,
        )

    async def run(self) -> None:
        """Start; what becomes of it is in the state."""
        try:
            self._build()
            await self._restore()
            if self._port is None or await self._port.enter():
                await self._serve()
            else:
                self._standing_by = asyncio.create_task(self._stand_by(self._port))
                self._state = replace(self._state, phase=Phase.READY, stands_by=True)
        except ServeconfError as error:
            self._fail(f"{error.message}; {error.hint}" if error.hint else error.message)
        except Exception as error:  # noqa: BLE001 - the controller must hear of it, whatever it is
            self._fail(f"{type(error).__name__}: {error}")
        self._ready.set()

    async def serve_beside(self) -> None:
        """Serve the port although the other one has not ended: it is silent, and clients wait."""
        if self._state.stands_by:
            log.warning("proxy serves in the place of one that is silent", proxy=self._order.id)
            await self._serve()

    async def stand_by_again(self) -> bool:
        """Leave new connections to the other one, which answers again. False where there is none: then this one serves on."""
        beside = self._port is not None and self._port.is_held_by_another
        if beside and self._state.phase is Phase.READY and not self._state.stands_by:
            self._server.step_back()
            self._state = replace(self._state, stands_by=True)
            log.info("proxy stands by again", proxy=self._order.id)
        return beside and self._state.stands_by

    async def _serve(self) -> None:
        if self._state.phase is Phase.READY and not self._state.stands_by:  # beside one that has ended by now
            return
        sock = self._port.listener if self._port is not None else None
        await self._server.start(sock.dup() if sock is not None else self._listen())
        self._state = replace(self._state, phase=Phase.READY, stands_by=False)
        log.info("proxy listens", address=self._state.address)

    def _listen(self) -> socket.socket:
        host, port = self._order.host, self._order.port
        if self._alone and not port_is_free(host, port):
            raise port_in_use(host, port)
        return listen(host, port, reuse_port=True, backlog=BACKLOG)

    async def _stand_by(self, port: SharedPort) -> None:
        try:
            await port.wait(self._serve)
        except Exception as error:  # noqa: BLE001 - the controller must hear of it, whatever it is
            self._fail(f"{type(error).__name__}: {error}")

    async def describe(self) -> ProxyState:
        """What it is now."""
        return self._state

    async def check(self) -> ProxyState:
        """Whether it serves or stands by changes without the controller."""
        return self._state

    async def wait_ready(self) -> ProxyState:
        """Return when it listens or can't."""
        await self._ready.wait()
        return self._state

    def _build(self) -> None:
        pool = self._pool
        self._importer = MiddlewareImporter(lambda digest: str(self._packages.path(digest)))
        self._app = ProxyApp(
            pool=pool,
            backend_factory=lambda route: Backend(route, pool),
            import_middleware=self._importer,
            edge=Edge(spans=Outlet(_resource(self._order))),
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
        refused = await self._stage(generation, restoring=True)
        if refused is None:
            await self.commit(generation.number)
        else:
            log.warning("the stored generation could not be restored", reason=refused[0])

    async def stage(self, data: bytes) -> tuple[str, str, bool] | None:
        """Build a generation beside the one that serves. None, or (message, traceback, whether user code is to blame).

        As bytes: what a newer controller says in it that is not known here is left out, as it is in the store.
        """
        return await self._stage(decode(data), restoring=False)

    async def _stage(self, generation: Generation, *, restoring: bool) -> tuple[str, str, bool] | None:
        if generation.front.tracing is not None and not is_installed() and not restoring:
            return f"http_options.tracing: {MISSING}: {MISSING_HINT}", "", False
        try:
            middlewares = [
                *generation.front.middlewares,
                *(m for route in generation.routes for m in route.middlewares),
            ]
            before, self._code = self._code, {m.code for m in middlewares if m.code}
            for digest in self._code:
                await self._packages.folder(digest)
            await self._app.stage(generation, restoring=restoring)
            self._packages.use_only(self._code | before)
            self._importer.use_only(self._code | before)
        except CodeFailed as error:
            return error.message, error.traceback, True
        except ServeconfError as error:
            return error.message, "", False
        return None

    async def commit(self, number: int) -> int:
        """Serve the staged generation from the next request on. Returns the number of what is served now."""
        self._app.commit(number)
        self._state = replace(self._state, generation=self._app.generation)
        return self._app.generation

    async def abort(self, number: int) -> None:
        """Forget the staged generation."""
        self._app.abort(number)

    async def count(self, operation: str, begin: bool) -> Counters:
        """Begin to count for an operation, or read what was counted since."""
        if begin:
            self._app.start_receipt(operation)
            return Counters()
        return msgspec.convert(self._app.receipt(operation), Counters, from_attributes=True)

    async def totals(self) -> tuple[Totals, bytes]:
        """What was counted since the process began.

        The figures as bytes: they go on changing here, and are made data again where no request waits for it.
        """
        tally = self._app.edge.tally
        totals = Totals(
            pid=os.getpid(),
            requests=tally.requests,
            failed=tally.failed,
            retried=self._app.retried,
            open_streams=tally.open_streams,
            deployments={name: Answers(a.given, a.failed) for name, a in self._app.answers().items()},
        )
        figures = self._app.figures()
        figures.certificate_ends_at = self._server.certificate_ends_at
        return totals, msgspec.msgpack.encode(figures)

    async def load_report(self, seen: int, slower: float) -> LoadReport:
        """What is asked of each deployment, when there is something new since report ``seen``."""
        return await self._pool.reporter.report(seen, slower=slower)

    async def warn(self) -> None:
        """Say on ``/-/healthz`` that it will go, and serve on."""
        self._app.edge.leaving = True

    async def drain(self, timeout_s: float) -> None:
        """Stop listening, finish what was begun. Who asks again, another controller perhaps, waits too."""
        if self._draining is None:
            self._state = replace(self._state, phase=Phase.DRAINING)
            self._draining = asyncio.create_task(self._drain(timeout_s))
        await asyncio.shield(self._draining)

    async def _drain(self, timeout_s: float) -> None:
        goes_on = False
        if self._port is not None and self._port.is_held_by_another:
            if self._standing_by is not None:
                self._standing_by.cancel()
            self._port.leave()
            goes_on = True
        elif self._port is not None:
            goes_on = await self._port.hand_over()
        await self._server.drain(timeout_s, goes_on=goes_on)

    def _fail(self, message: str) -> None:
        log.error("proxy failed", proxy=self._order.id, reason=message)
        self._state = replace(self._state, phase=Phase.FAILED, message=message)


def _place(order: ProxyOrder) -> str:
    """What those that share a port call it: one listener of one node. Short, as a socket's path must be."""
    return hashlib.sha256(f"{order.node_id}/{order.listener}".encode()).hexdigest()[:16]


def _resource(order: ProxyOrder) -> dict[str, str]:
    """Who this process is in its spans."""
    return {
        "service.name": "serveconf-proxy",
        "service.version": __version__,
        "service.instance.id": order.id,
        "host.name": socket.gethostname(),
    }


def _tls(order: ProxyOrder) -> TlsFiles | None:
    if order.ssl_certfile is None:
        return None
    return TlsFiles(
        certfile=order.ssl_certfile,
        keyfile=order.ssl_keyfile,
        ca_certs=order.ssl_ca_certs,
        password=order.ssl_keyfile_password,
    )
