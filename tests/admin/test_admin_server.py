"""The control API's listener has the edge of the proxies: what is malformed or endless is refused, whatever the app would do."""

from __future__ import annotations

import asyncio

import pytest
from starlette.responses import PlainTextResponse

from serveconf.admin.server import AdminServer


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        async with asyncio.timeout(120):
            return await reader.read(65536)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"x: y\r\n" * 100_000, b"431"),
        (b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost:1\r\n\r\n", b"501"),
    ],
)
def test_what_no_request_can_be_never_reaches_the_app(head: bytes, status: bytes) -> None:
    async def run() -> bytes:
        server = AdminServer("127.0.0.1", 0)
        server.bind()
        serving = asyncio.create_task(server.serve(PlainTextResponse("ok")))
        await asyncio.sleep(0)
        try:
            return await ask(server.port, head)
        finally:
            serving.cancel()
            await asyncio.wait([serving])

    assert asyncio.run(run()).split(b" ", 2)[1] == status
