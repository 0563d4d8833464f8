"""A file as the body of an HTTP/1.1 answer, from the page cache to the client's socket without a copy here: sendfile(2).

``Exchange`` calls it for connections without TLS. The connection's transport must have nothing left to write; while a file
is sent it is left alone, and the socket is written to beside it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from serveconf.proxy.call import ResponseCut

if TYPE_CHECKING:
    from serveconf.proxy.exchange import Exchange
    from serveconf.wire import LentFile

CHUNK_BYTES = 1 << 20  # then it is others' turn
_LOOK_S = 0.005  # how often to see whether the transport has nothing left


async def send_file(exchange: Exchange, head: bytes, file: LentFile) -> None:
    """``head``, then the file. ResponseCut if it is shorter than it was; returns early if the client has left."""
    transport = exchange.connection.transport
    await asyncio.sleep(0)  # what is queued is written at the end of a turn
    while transport.get_write_buffer_size():  # noqa: ASYNC110 - nobody says when it is empty, and it rarely is not
        await asyncio.sleep(_LOOK_S)
    if exchange.disconnected:
        return
    sock = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    try:
        start = 0
        while head and not exchange.disconnected:
            head = head[await _when_writable(exchange, sock, lambda: sock.send(head, socket.MSG_MORE)) :]  # noqa: B023
        while start < file.size and not exchange.disconnected:
            sent = await _send_chunk(exchange, sock, file, start, min(CHUNK_BYTES, file.size - start))
            start += sent
            exchange.file_sent(sent)
            await asyncio.sleep(0)
    except ConnectionError:
        exchange.disconnect()
    finally:
        file.when_idle(sock.close)


async def _send_chunk(exchange: Exchange, sock: socket.socket, file: LentFile, start: int, size: int) -> int:
    def send() -> int:
        return os.sendfile(sock.fileno(), file.descriptor, start, size)

    while True:
        try:
            sent = await file.do(send, start, size)
        except BlockingIOError:
            await _until_writable(exchange, sock)
        else:
            if not sent:
                raise ResponseCut("its file has become shorter")
            return sent


async def _when_writable(exchange: Exchange, sock: socket.socket, write: Callable[[], int]) -> int:
    while True:
        try:
            return write()
        except BlockingIOError:
            await _until_writable(exchange, sock)


async def _until_writable(exchange: Exchange, sock: socket.socket) -> None:
    """As any other answer that the client does not take: whoever ends the connection ends the wait."""
    connection = exchange.connection
    if connection.writable is None:
        connection.pause_writing()
    connection.loop.add_writer(sock, connection.resume_writing)
    try:
        assert connection.writable is not None
        await connection.writable
    finally:
        connection.loop.remove_writer(sock)
        connection.resume_writing()
    if exchange.disconnected:
        raise ConnectionResetError("the connection has been given up")
