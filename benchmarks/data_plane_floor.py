"""Where the time of one request goes, without a socket: microseconds of CPU in each part, one request after the other.

    python benchmarks/data_plane_floor.py [--requests 20000] [--profile replica]

``app`` calls the FastAPI app with a ready scope: nothing can be faster. ``uvicorn`` feeds a request's bytes to uvicorn's
protocol around the app. ``replica`` feeds an Open frame to a connection of a WireServer around the app; ``proxy`` feeds a
request's bytes to the edge, and answers its Open frame with a ready Reply. Sockets and system calls come on top.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import gc
import pstats
import time
from collections.abc import Callable
from typing import Any

import uvloop
from data_plane_app import PREFIX, make_app, no_middleware

from serveconf.proxy.app import ProxyApp
from serveconf.proxy.dispatch import Backend
from serveconf.proxy.pool import ReplicaPool
from serveconf.proxy.protocol import HttpProtocol
from serveconf.routing import Generation, ReplicaAddress, Route
from serveconf.wire import WireClient, WireServer
from serveconf.wire.frames import DEFAULT_LIMITS, Open, Reply, decode, encode

REQUEST = b"GET %b/hello HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n"
HEADERS = [(b"host", b"127.0.0.1:8000"), (b"x-request-id", b"8e2c4f5a-9d1b-4c3e-8f7a-1b2c3d4e5f60")]
ANSWER = [(b"content-length", b"19"), (b"content-type", b"application/json")]
BODY = b'{"message":"hello"}'


class Wire(asyncio.Transport):
    """A transport whose other end is ``written``."""

    def __init__(self, written: Callable[[bytes], None]) -> None:
        super().__init__()
        self.write = written  # type: ignore[method-assign,assignment]
        self.get_extra_info = {"peername": ("10.0.0.1", 50000), "sockname": ("127.0.0.1", 8000)}.get  # type: ignore[method-assign,assignment]

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        pass


def feed(connection: asyncio.BufferedProtocol, data: bytes) -> None:
    """``data`` comes in, as an event loop would read it."""
    while data:
        buffer = connection.get_buffer(-1)
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]  # type: ignore[index]
        connection.buffer_updated(size)
        data = data[size:]


class Turn:
    """Waits for the answer of one request."""

    def __init__(self) -> None:
        self._done = asyncio.get_running_loop().create_future()

    def over(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    async def __call__(self, begin: Callable[[], None]) -> None:
        self._done = asyncio.get_running_loop().create_future()
        begin()
        await self._done


async def app_alone() -> Callable[[], Any]:
    app = make_app()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    async def once() -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/app/hello",
            "raw_path": b"/app/hello",
            "query_string": b"",
            "root_path": "/app",
            "headers": list(HEADERS),
            "client": ("10.0.0.1", 50000),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }
        await app(scope, receive, send)

    return once


async def uvicorn_alone() -> Callable[[], Any]:
    from uvicorn.config import Config
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    from uvicorn.server import ServerState

    config = Config(make_app(), log_config=None, access_log=False, lifespan="off")
    config.load()
    protocol = HttpToolsProtocol(config=config, server_state=ServerState(), app_state={})
    turn = Turn()
    protocol.connection_made(Wire(lambda data: turn.over() if data.endswith(BODY) else None))
    data = REQUEST % b""
    return lambda: turn(lambda: protocol.data_received(data))


async def replica_alone() -> Callable[[], Any]:
    turn = Turn()
    server = WireServer(make_app(), secret=b"", max_ongoing=100)
    connection = server._connection()
    connection._handshake.done = True
    connection.connection_made(Wire(lambda data: turn.over()))
    if connection._deadline is not None:
        connection._deadline.cancel()
    numbers = iter(range(1, 1 << 40))

    def begin() -> None:
        first = Open(
            next(numbers),
            False,
            "GET",
            "http",
            "1.1",
            "/app/hello",
            b"/app/hello",
            b"",
            "/app",
            HEADERS,
            ("10.0.0.1", 50000),
            ("127.0.0.1", 8000),
        )
        feed(connection, encode([first], DEFAULT_LIMITS))

    return lambda: turn(begin)


async def proxy_alone() -> Callable[[], Any]:
    turn = Turn()
    pool = ReplicaPool(node_id="n", secret=b"")
    address = ReplicaAddress(id="r", node_id="n", uds="/nowhere")
    link = pool.link(address)
    link.reached = True
    link.client = client = WireClient(b"", DEFAULT_LIMITS)
    client._handshake.done = True

    def answer(data: bytes) -> None:
        for frame in decode(memoryview(data)[4:], DEFAULT_LIMITS):
            reply = Reply(frame.stream, 200, ANSWER, BODY, more=False, done=True)
            loop.call_soon(feed, client, encode([reply], DEFAULT_LIMITS))

    loop = asyncio.get_running_loop()
    client.connection_made(Wire(answer))
    client.ready()
    if client._deadline is not None:
        client._deadline.cancel()
    route = Route(PREFIX, "s", "d", (address,), max_ongoing_requests=1_000)
    app = ProxyApp(pool=pool, backend_factory=lambda route: Backend(route, pool), import_middleware=no_middleware)
    await app.stage(Generation(number=1, routes=(route,)))
    app.commit(1)
    app.edge.serve(app)
    protocol = HttpProtocol(app.edge, loop, no_middleware)
    protocol.connection_made(Wire(lambda data: turn.over() if data.endswith(BODY) else None))
    data = REQUEST % PREFIX.encode()
    return lambda: turn(lambda: protocol.data_received(data))


PARTS = {"app": app_alone, "uvicorn": uvicorn_alone, "replica": replica_alone, "proxy": proxy_alone}


async def measure(requests: int) -> dict[str, float]:
    """Microseconds of CPU per request in each part: the best of twenty slices, taken in turns."""
    parts = {name: await make() for name, make in PARTS.items()}
    best = dict.fromkeys(parts, float("inf"))
    gc.collect()
    gc.freeze()
    for _ in range(20):
        for name, once in parts.items():
            began = time.process_time()
            await repeat(once, requests // 20)
            best[name] = min(best[name], (time.process_time() - began) / (requests // 20))
    return {name: seconds * 1e6 for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--profile", choices=PARTS)
    arguments = parser.parse_args()
    if arguments.profile:
        profile = cProfile.Profile()
        with contextlib.closing(uvloop.new_event_loop()) as loop:
            once = loop.run_until_complete(PARTS[arguments.profile]())
            profile.enable()
            loop.run_until_complete(repeat(once, arguments.requests))
            profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)
        return
    for name, spent in uvloop.run(measure(arguments.requests)).items():
        print(f"{name:10}{spent:8.1f} us")


async def repeat(once: Callable[[], Any], requests: int) -> None:
    for _ in range(requests):
        await once()


if __name__ == "__main__":
    main()
