"""A node that is gone is noticed, and one that is only busy is not."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import threading
import time
from typing import Any

import pytest
from wire_harness import SECRET, answer, get, http_scope, in_loop, pair, until

from serveconf.wire import StreamLost, WireClient, WireServer
from serveconf.wire.pulse import SILENCE_S

SO_ATTACH_FILTER = 26


def fall_silent(sock: Any) -> None:
    """Have the kernel drop whatever comes for ``sock``, acknowledgements too: a cut link, as the other end sees it."""
    program = struct.pack("HBBI", 0x06, 0, 0, 0)
    buffer = ctypes.create_string_buffer(program)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(buffer)))


async def busy_or_slow(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/busy":
        time.sleep(2 * SILENCE_S)  # user code that blocks its loop
    elif scope["path"] == "/slow":
        await asyncio.sleep(60)
    await answer(send)


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="only Linux tells what was acknowledged")
@in_loop
async def test_a_silent_node_is_left_at_both_ends_and_its_request_ends(caplog: pytest.LogCaptureFixture) -> None:
    async with pair(busy_or_slow, tcp=True) as (server, client):
        peer = get()
        call = asyncio.create_task(client(http_scope("/slow"), peer.receive, peer.send))
        await until(lambda: server.ongoing == 1)
        (connection,) = server._connections
        for end in (client, connection):
            assert end._transport is not None
            fall_silent(end._transport.get_extra_info("socket"))
        with pytest.raises(StreamLost):
            await call
        assert client.closed
        await until(lambda: not server._connections)
        heard_nothing = "connection closed: nothing is heard of the other end any more"  # before the kernel gives up
        assert [record.getMessage() for record in caplog.records].count(heard_nothing) == 2


def test_a_node_whose_application_blocks_its_loop_is_not_left() -> None:
    """Both ends in loops of their own: the blocked one acknowledges nothing itself, its kernel does."""
    listening: list[tuple[str, int]] = []
    is_listening, is_over = threading.Event(), threading.Event()

    async def serve() -> None:
        server = WireServer(busy_or_slow, secret=SECRET, max_ongoing=10)
        listening.append(await server.listen_tcp("127.0.0.1"))
        is_listening.set()
        await asyncio.to_thread(is_over.wait)
        await server.close()

    async def ask() -> int:
        host, port = listening[0]
        client = await WireClient.connect(f"tcp:{host}:{port}", secret=SECRET)
        peer = get()
        status = await client(http_scope("/busy"), peer.receive, peer.send)
        client.close()
        return status

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert is_listening.wait(120)
        assert asyncio.run(ask()) == 200
    finally:
        is_over.set()
        thread.join(10)
