"""What does not show in requests per second: memory under slow readers and idle WebSockets, and routing among many prefixes.

``data_plane.py`` calls these with a running proxy and replica. Memory is resident memory from /proc, so this is for Linux.
"""

from __future__ import annotations

import asyncio
import socket
import time
import timeit
from pathlib import Path

from serveconf.routing import PrefixTable

GIB_IN_MIB = 1024
READ_BYTES = 256 << 10


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise LookupError(pid)


def growth_under_slow_reader(port: int, path: str, pids: tuple[int, int]) -> tuple[float, float]:
    """The most that each process grew by, in MiB, while a client took 1 GiB far slower than it could have come."""
    before = [resident_mib(pid) for pid in pids]
    most = list(before)
    left = GIB_IN_MIB << 20
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(f"GET {path}?mib={GIB_IN_MIB} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        buffer = bytearray(READ_BYTES)
        reads = 0
        while size := client.recv_into(buffer):
            left -= size
            reads += 1
            if reads % 16 == 0:
                time.sleep(0.01)
                most = [max(one, resident_mib(pid)) for one, pid in zip(most, pids, strict=True)]
    if left > 0:
        raise SystemExit(f"the stream was {left} bytes short")
    proxy, replica = (one - start for one, start in zip(most, before, strict=True))
    return proxy, replica


async def growth_with_idle_websockets(url: str, pid: int, count: int) -> float:
    """How much a process grows by, in MiB, when so many clients have connected, sent one message and fallen silent."""
    from websockets.asyncio.client import ClientConnection, connect

    async def join() -> ClientConnection:
        websocket = await connect(url, compression=None, open_timeout=60)
        await websocket.send("hello")
        await websocket.recv()
        return websocket

    warm = [await join() for _ in range(10)]
    before = resident_mib(pid)
    websockets = []
    for _ in range(count // 50):
        websockets += await asyncio.gather(*(join() for _ in range(50)))
    grown = resident_mib(pid) - before
    await asyncio.gather(*(websocket.close() for websocket in (*warm, *websockets)))
    return grown


def routing_ratio() -> tuple[float, float]:
    """Microseconds of a look-up among 10 prefixes, and among 10,000."""
    spent = []
    for count in (10, 10_000):
        table = PrefixTable({f"/team{number % 97}/service{number}": number for number in range(count)})
        paths = [f"/team{number % 97}/service{number}/items/5" for number in range(0, count, max(1, count // 10))]

        def look_up(table: PrefixTable[int] = table, paths: list[str] = paths) -> None:
            for path in paths:
                assert table.match(path) is not None

        spent.append(min(timeit.repeat(look_up, number=2_000, repeat=9)) / 2_000 / len(paths) * 1e6)
    return spent[0], spent[1]
