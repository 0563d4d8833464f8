"""Replicas on unix sockets, a pool and backends in one loop, and a client's side of ASGI."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from serveconf.proxy.dispatch import Backend
from serveconf.proxy.pool import ReplicaPool
from serveconf.routing import ReplicaAddress, Route
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


class Node:
    """One node's replicas and its proxy's pool."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.pool = ReplicaPool(node_id="n", secret=SECRET)
        self.servers: dict[str, WireServer] = {}

    async def start(self, name: str, app: Any, *, max_ongoing: int = 100) -> ReplicaAddress:
        server = self.servers[name] = WireServer(app, secret=SECRET, max_ongoing=max_ongoing)
        await server.listen_unix(f"{self.folder}/{name}")
        return ReplicaAddress(id=name, node_id="n", uds=f"{self.folder}/{name}")

    async def backend(self, *replicas: ReplicaAddress, **route: Any) -> Backend:
        backend = Backend(Route(prefix="/", stack="s", deployment="d", replicas=replicas, **route), self.pool)
        await self.pool.open(replicas)
        return backend


@contextlib.asynccontextmanager
async def node() -> AsyncIterator[Node]:
    with tempfile.TemporaryDirectory() as folder:
        made = Node(folder)
        try:
            yield made
        finally:
            await made.pool.close()
            for server in made.servers.values():
                await server.close()


def scope(
    method: str = "GET", path: str = "/", kind: str = "http", headers: Any = (), root_path: str = ""
) -> dict[str, Any]:
    return {
        "type": kind,
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": root_path,
        "headers": list(headers),
        "client": None,
        "server": None,
        "extensions": {"websocket.http.response": {}},
    }


class Request:
    """One request to a backend, running as a task."""

    def __init__(self, backend: Backend, *messages: dict[str, Any], **kind: Any) -> None:
        self.to_send: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.pulled = 0
        self.got: list[dict[str, Any]] = []
        self.news = asyncio.Event()
        for message in messages or ({"type": "http.request", "body": b"", "more_body": False},):
            self.to_send.put_nowait(message)
        self.task = asyncio.create_task(backend(scope(**kind), self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        message = await self.to_send.get()
        self.pulled += 1
        return message

    async def _send(self, message: dict[str, Any]) -> None:
        self.got.append(message)
        self.news.set()

    def leave(self) -> None:
        self.to_send.put_nowait({"type": "http.disconnect"})

    async def until(self, count: int) -> None:
        while len(self.got) < count:
            self.news.clear()
            await self.news.wait()

    async def status(self) -> int:
        await self.task
        return int(self.got[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.got[1:])


async def answer(send: Any, body: bytes = b"ok", status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def read_all(receive: Any) -> bytes:
    pieces = []
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        pieces.append(message["body"])
        if not message["more_body"]:
            return b"".join(pieces)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until ``condition`` holds; the test's time limit ends it otherwise."""
    while not condition():
        await asyncio.sleep(0.001)
