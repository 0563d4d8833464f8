"""A WireServer and clients on real sockets in one loop, and a client's side of ASGI to drive them with."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from serveconf.wire import Limits, WireClient, WireServer

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


@contextlib.asynccontextmanager
async def pair(
    app: Any,
    *,
    max_ongoing: int = 100,
    limits: Limits = Limits(),
    state: dict[str, Any] | None = None,
    tcp: bool = False,
) -> AsyncIterator[tuple[WireServer, WireClient]]:
    server = WireServer(app, secret=SECRET, max_ongoing=max_ongoing, limits=limits, state=state)
    with tempfile.TemporaryDirectory() as folder:
        if tcp:
            address = "tcp:{}:{}".format(*await server.listen_tcp("127.0.0.1"))
        else:
            address = f"unix:{folder}/r.sock"
            await server.listen_unix(address.removeprefix("unix:"))
        client = await WireClient.connect(address, secret=SECRET, limits=limits)
        try:
            yield server, client
        finally:
            client.abort()
            await server.close()


def http_scope(
    path: str = "/", method: str = "GET", headers: list[tuple[bytes, bytes]] | None = None
) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers or [],
        "client": ("10.0.0.1", 1234),
        "server": ("127.0.0.1", 8000),
    }


def websocket_scope(path: str = "/", *, denial: bool = True) -> dict[str, Any]:
    return {
        **http_scope(path),
        "type": "websocket",
        "scheme": "ws",
        "subprotocols": ["a", "b"],
        "extensions": {"websocket.http.response": {}} if denial else {},
    }


class Peer:
    """The client's side of one request: what it sends, what it has got, and whether it is still there."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.to_send: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.got: list[dict[str, Any]] = []
        self.news = asyncio.Event()
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        for message in messages:
            self.to_send.put_nowait(message)

    async def receive(self) -> dict[str, Any]:
        return await self.to_send.get()

    async def send(self, message: dict[str, Any]) -> None:
        await self.open_gate.wait()
        if type(message.get("body")) is memoryview:  # whoever keeps it must not keep the memory that it is in
            message = {**message, "body": bytes(message["body"])}
        self.got.append(message)
        self.news.set()

    async def until(self, count: int) -> None:
        while len(self.got) < count:
            self.news.clear()
            await self.news.wait()

    def leave(self, kind: str = "http.disconnect", **more: Any) -> None:
        self.to_send.put_nowait({"type": kind, **more})

    @property
    def status(self) -> int:
        return self.got[0]["status"]

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.got[1:])

    @property
    def ended(self) -> bool:
        return bool(self.got) and self.got[-1].get("more_body") is False


def get() -> Peer:
    return Peer({"type": "http.request", "body": b"", "more_body": False})


async def answer(send: Any, body: bytes = b"ok", status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until ``condition`` holds; the test's time limit ends it otherwise."""
    while not condition():
        await asyncio.sleep(0.001)
