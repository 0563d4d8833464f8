"""Feeds damaged traffic to both ends of the wire for a while: it may end its own connection, and nothing else.

    python benchmarks/fuzz_wire.py [--seconds 30] [--seed 0]

Rows of valid frames are cut, doubled, shuffled and have bytes changed, then go in pieces to a replica's connection and to
a proxy's. What must hold: no exception leaves ``buffer_updated``; a connection that refuses is aborted and takes nothing
more; and after each case a healthy connection to the same replica is still answered.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import time
from typing import Any

from data_plane_floor import ANSWER, BODY, HEADERS, Wire, feed

from serveconf.wire import WireClient, WireServer
from serveconf.wire.connection import Connection
from serveconf.wire.frames import (
    DEFAULT_LIMITS,
    Accept,
    AnyFrame,
    Body,
    Cancel,
    Close,
    Credit,
    Cut,
    End,
    File,
    Free,
    Memory,
    Message,
    Open,
    Opened,
    Refused,
    Reply,
    Room,
    Trailers,
    encode,
)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads what comes, then answers."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": "x"})
        return
    while (await receive()).get("more_body", False):
        pass
    if "http.response.pathsend" in scope.get("extensions", ()):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": sys.executable})
        return
    await send({"type": "http.response.start", "status": 200, "headers": ANSWER})
    await send({"type": "http.response.body", "body": BODY})


def frame(dice: random.Random, number: int) -> AnyFrame:
    """One frame of any kind."""
    data = dice.randbytes(dice.choice((0, 1, 100, 5_000)))
    more, done = dice.random() < 0.5, dice.random() < 0.3
    return dice.choice(
        (
            Open(number, False, "POST", "http", "1.1", "/a", b"/a", b"", "", HEADERS, None, None, body=data, more=more),
            Open(number, False, "GET", "http", "1.1", "/a", b"/a", b"", "", HEADERS, None, None, files=True),
            Open(number, True, "GET", "ws", "1.1", "/a", b"/a", b"", "", HEADERS, None, None, extras=data),
            Body(number, data, more, done),
            Credit(number, dice.choice((0, 5, 1 << 20, 1 << 52))),
            Cancel(number),
            Message(number, data, text=more, more=done),
            Close(number, 1000, "x"),
            Reply(number, 200, ANSWER, data, more=more, done=done, session=data if done else b"", trailers=done),
            Accept(number, None, []),
            Cut(number),
            Refused(number, closing=more, others=3),
            End(number, others=1),
            Room(1, others=1),
            Trailers(number, ANSWER),
            Memory(
                1,
                dice.choice((0, 3, 10, 1 << 40)),
                7,
                dice.choice((0, 1, 8, 1 << 40)),
                dice.choice((1, 1 << 20, 1 << 52)),
            ),
            File(number, dice.choice((0, 3, 1 << 40)), 1, 7, dice.choice((0, 100_000, 1 << 52))),
            Opened(number, more),
            Free(1, [dice.randint(0, 9) for _ in range(dice.randint(0, 3))]),
            Body(number, b"", more, raw=dice.choice((100, 100_000)), slot=dice.choice((0, 1, 8, 1 << 52))),
        )
    )


def traffic(dice: random.Random) -> bytes:
    """A row of batches, mostly with something wrong."""
    batches = [
        encode([frame(dice, dice.randint(1, 4)) for _ in range(dice.randint(1, 4))], DEFAULT_LIMITS)
        for _ in range(dice.randint(1, 6))
    ]
    data = bytearray(b"".join(batches))
    for _ in range(dice.choice((0, 0, 1, 3, 20))):
        data[dice.randrange(len(data))] = dice.randrange(256)
    if dice.random() < 0.2:
        del data[dice.randrange(len(data)) :]
    return bytes(data)


class Case:
    """A connection without a socket, that notes whether it was aborted."""

    def __init__(self, connection: Connection) -> None:
        self.aborted = False
        self._connection = connection
        connection._handshake.done = True
        wire = Wire(lambda data: None)
        wire.abort = self._abort  # type: ignore[method-assign]
        connection.connection_made(wire)
        if connection._deadline is not None:
            connection._deadline.cancel()

    def _abort(self) -> None:
        if not self.aborted:
            self.aborted = True
            asyncio.get_running_loop().call_soon(self._connection.connection_lost, None)

    async def feed(self, dice: random.Random, data: bytes) -> None:
        """All of it, in pieces, unless it is aborted before."""
        while data and not self.aborted:
            size = dice.choice((1, 7, 1_000, len(data)))
            feed(self._connection, data[:size])
            data = data[size:]
            if dice.random() < 0.2:
                await asyncio.sleep(0)

    async def end(self) -> None:
        """Lost in any case; its streams end."""
        self._abort()
        for _ in range(5):
            await asyncio.sleep(0)


async def fuzz_replica(dice: random.Random, server: WireServer) -> bool:
    """Damaged traffic for a replica; whether it was refused."""
    case = Case(server._connection())
    await case.feed(dice, traffic(dice))
    refused = case.aborted
    await case.end()
    return refused


async def fuzz_proxy(dice: random.Random) -> bool:
    """Damaged answers for a proxy with requests under way; whether they were refused."""
    client = WireClient(b"", DEFAULT_LIMITS)
    case = Case(client)
    client.ready()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    scope = {"type": "http", "method": "GET", "scheme": "http", "http_version": "1.1", "path": "/", "query_string": b""}
    calls = [asyncio.create_task(client({**scope, "headers": [], "session": {}}, receive, send)) for _ in range(4)]
    await asyncio.sleep(0)
    await case.feed(dice, traffic(dice))
    refused = case.aborted
    await case.end()
    await asyncio.wait(calls)
    for call in calls:
        call.exception()  # StreamLost, StreamCut or StreamRefused are what a proxy expects
    return refused


async def is_answered(server: WireServer) -> None:
    """A healthy request to the same replica."""
    answered = asyncio.Event()
    connection = server._connection()
    connection._handshake.done = True
    connection.connection_made(Wire(lambda data: answered.set()))
    if connection._deadline is not None:
        connection._deadline.cancel()
    first = Open(1, False, "GET", "http", "1.1", "/", b"/", b"", "", HEADERS, None, None)
    feed(connection, encode([first], DEFAULT_LIMITS))
    async with asyncio.timeout(5):
        await answered.wait()
    connection.connection_lost(None)


async def run(seconds: float, seed: int) -> None:
    """Until the time is over."""
    dice = random.Random(seed)
    server = WireServer(app, secret=b"", max_ongoing=1_000, offers_files=True)
    until = time.monotonic() + seconds
    cases = refused = 0
    while time.monotonic() < until:
        refused += await fuzz_replica(dice, server) + await fuzz_proxy(dice)
        cases += 2
        await is_answered(server)
    async with asyncio.timeout(20):  # handlers that were told that their client left have a moment to end
        while server.ongoing:
            await asyncio.sleep(0.05)
    print(f"{cases} cases, {refused} connections refused, no handler left, nothing else happened")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.getLogger("serveconf.wire").setLevel(logging.CRITICAL)
    asyncio.run(run(arguments.seconds, arguments.seed))


if __name__ == "__main__":
    main()
