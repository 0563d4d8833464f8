"""Replicas on unix sockets and a caller with a directory, in one loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from serveconf.handles.answering import Answering
from serveconf.handles.calling import WireCaller
from serveconf.handles.calls import Target
from serveconf.handles.directory import Directory
from serveconf.handles.handle import DeploymentHandle
from serveconf.ingress.app import ServedApp, build
from serveconf.proxy.pool import ReplicaPool
from serveconf.routing import Generation, ReplicaAddress, Route
from serveconf.wire import WireServer

SECRET = b"s" * 32


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test, with a limit on its time."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def limited() -> None:
            async with asyncio.timeout(120):
                await test(*args, **kwargs)

        asyncio.run(limited())

    return run


class Stack:
    """Deployments of one stack, each with replicas that listen for calls."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.servers: dict[str, WireServer] = {}
        self.served: dict[str, ServedApp] = {}
        self.pool = ReplicaPool(node_id="n", secret=SECRET)
        self.directory = Directory(self.pool)
        self.caller = WireCaller(self.directory)

    async def replica(
        self, name: str, target: Any, *, max_ongoing: int = 100, directory: Directory | None = None, **built: Any
    ) -> ReplicaAddress:
        """Start one; its address."""
        served = self.served[name] = build(target, **built)
        await served.startup()
        app = Answering(served.app, lambda: served.servable, directory.holding if directory else None)
        server = self.servers[name] = WireServer(app, secret=SECRET, max_ongoing=max_ongoing, state=served.state)
        await server.listen_unix(f"{self.folder}/{name}")
        return ReplicaAddress(id=name, node_id="n", uds=f"{self.folder}/{name}")

    def handle(self, deployment: str, caller: Any = None) -> DeploymentHandle[Any]:
        """A handle of a deployment of this stack."""
        return DeploymentHandle(Target(stack="s", deployment=deployment), caller=caller or self.caller)


def generation(number: int, deployments: Mapping[str, list[ReplicaAddress]], **route: Any) -> Generation:
    """A table in which these replicas serve these deployments."""
    routes = (
        Route(prefix=f"/{name}", stack="s", deployment=name, replicas=tuple(replicas), **route)
        for name, replicas in deployments.items()
    )
    return Generation(number=number, routes=tuple(routes))


@contextlib.asynccontextmanager
async def stack() -> AsyncIterator[Stack]:
    """A stack with nothing in it."""
    with tempfile.TemporaryDirectory() as folder:
        made = Stack(folder)
        try:
            yield made
        finally:
            await made.directory.close()
            for server in made.servers.values():
                await server.close()
            for served in made.served.values():
                await served.shutdown()
