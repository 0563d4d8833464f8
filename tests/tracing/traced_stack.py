"""A proxy on a real port and replicas on unix sockets in one loop, with everything that traces a request."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx

from serveconf.handles.answering import Answering
from serveconf.handles.calling import WireCaller
from serveconf.handles.calls import Target
from serveconf.handles.directory import Directory
from serveconf.handles.handle import DeploymentHandle
from serveconf.handles.traced import Tracing as ReplicaTracing
from serveconf.ingress.app import build
from serveconf.proxy.app import ProxyApp
from serveconf.proxy.dispatch import Backend
from serveconf.proxy.edge import Edge
from serveconf.proxy.middleware import MiddlewareImporter
from serveconf.proxy.pool import ReplicaPool
from serveconf.proxy.server import ProxyServer
from serveconf.routing import Front, Generation, ReplicaAddress, Route, Tracing
from serveconf.tracing import Outlet
from serveconf.wire import WireServer

SECRET = b"s" * 32


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test, with a limit on its time."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def limited() -> None:
            async with asyncio.timeout(90):
                await test(*args, **kwargs)

        asyncio.run(limited())

    return run


class TracedStack:
    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.replicas: dict[str, ReplicaAddress] = {}
        self.outlets: list[Outlet] = []
        self.servers: list[WireServer] = []
        self.served: list[Any] = []
        self.directory = Directory(ReplicaPool(node_id="n", secret=SECRET))
        self.caller = WireCaller(self.directory)
        self.pool = ReplicaPool(node_id="n", secret=SECRET)
        self.spans = Outlet({"service.name": "serveconf-proxy"})
        self.app = ProxyApp(
            pool=self.pool,
            backend_factory=lambda route: Backend(route, self.pool),
            import_middleware=MiddlewareImporter(str),
            edge=Edge(spans=self.spans),
        )
        self.server = ProxyServer(self.app, "127.0.0.1", 0, edge=self.app.edge)
        self.number = 0
        self.access_log: str | None = None  # its format

    async def replica(self, name: str, target: Any) -> None:
        served = build(target)
        await served.startup()
        outlet = Outlet({"service.name": name, "service.namespace": "s"})
        tracing = ReplicaTracing(lambda: served.app.app, outlet, name=name)
        app = Answering(served.app, lambda: served.servable, None, tracing)
        server = WireServer(app, secret=SECRET, max_ongoing=100, state=served.state)
        await server.listen_unix(f"{self.folder}/{name}")
        self.outlets.append(outlet)
        self.servers.append(server)
        self.served.append(served)
        self.replicas[name] = ReplicaAddress(id=f"{name}#1", node_id="n", uds=f"{self.folder}/{name}")

    def handle(self, deployment: str) -> DeploymentHandle[Any]:
        return DeploymentHandle(Target(stack="s", deployment=deployment), caller=self.caller)

    async def serve(self, tracing: Tracing | None, **route: Any) -> None:
        """Serve every replica below a prefix of its name, from now on."""
        self.number += 1
        routes = tuple(
            Route(prefix=f"/{name}", stack="s", deployment=name, replicas=(replica,), **route)
            for name, replica in self.replicas.items()
        )
        front = Front(tracing=tracing, access_log=self.access_log)
        generation = Generation(number=self.number, front=front, routes=routes)
        await self.app.stage(generation)
        self.app.commit(self.number)
        await self.directory.take(generation)

    async def start(self) -> str:
        _, port = await self.server.start()
        self.port = port
        return f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        await self.server.drain(0)
        for outlet in self.outlets:
            await asyncio.to_thread(outlet.close, 5)
        await self.directory.close()
        await self.pool.close()
        for server in self.servers:
            await server.close()
        for served in self.served:
            await served.shutdown()


@contextlib.asynccontextmanager
async def traced_stack() -> AsyncIterator[tuple[TracedStack, httpx.AsyncClient]]:
    with tempfile.TemporaryDirectory() as folder:
        stack = TracedStack(folder)
        base = await stack.start()
        try:
            async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
                yield stack, client
        finally:
            await stack.stop()
