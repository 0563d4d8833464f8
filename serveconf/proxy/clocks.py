"""What a connection may wait for from its client, for how long, and how much it may keep meanwhile: two tables.

``HttpProtocol``, ``WebSocketProtocol`` and ``Http2Protocol`` look up here; a test walks both tables and holds a client to each row.
``Edge.sweep`` calls the connections about once a second, so a limit is kept to within a second, and no request has a timer.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serveconf.proxy.edge import Edge

_BYTES_ACKED = 120  # linux/tcp.h, struct tcp_info: where tcpi_bytes_acked stands, eight bytes of it


class Wait(Enum):
    """What a client owes its connection."""

    TLS = "its part of the TLS handshake"
    HEAD = "the rest of a request's head, or the first one"
    NEXT = "its next request"
    BODY = "more of a request's body"
    TAKE = "to take more of what it is sent"
    ACCEPT = "nothing, but its WebSocket handshake is not answered yet"
    PONG = "the answer to a ping"
    GOODBYE = "the end of an upload that nobody wants, or its half of a close"


PING_S = 20.0  # between a pong and the next ping, and until its pong


def seconds_for(wait: Wait, edge: Edge) -> float:
    """How long a connection of this edge waits for that."""
    match wait:
        case Wait.TLS | Wait.HEAD:
            return edge.limits.head_timeout_s
        case Wait.NEXT:
            return edge.idle_timeout_s
        case Wait.BODY | Wait.ACCEPT:
            return edge.front.body_timeout_s
        case Wait.TAKE:
            return edge.front.send_timeout_s
        case Wait.PONG:
            return PING_S
        case Wait.GOODBYE:
            return edge.limits.linger_s


class Budget(Enum):
    """What is kept for a client, in bytes or in pieces: past it the client is refused, or no more is read from it."""

    TARGET = "front.max_request_target_bytes"
    FIELD = "front.max_request_field_bytes"
    FIELDS = "front.max_request_fields"
    HEAD = "front.max_request_head_bytes"  # and of chunk extensions and trailers, since the body last grew
    UNREAD = "limits.max_unread_bytes"  # of the bodies on one connection
    PIPELINED = "limits.max_pipelined"  # requests ahead of their turn
    UNSENT = "limits.max_unsent_bytes"  # of answers, pongs included
    MESSAGE = "limits.max_message_bytes"  # of a WebSocket
    FRAGMENTS = "limits.max_fragments"  # of one message
    KEPT = "limits.max_kept_bytes"  # of all bodies that wait in this process


class Stall:
    """Since when something has not moved."""

    __slots__ = ("_mark", "_since")

    def __init__(self) -> None:
        self._mark: object = None
        self._since = 0.0

    def seconds(self, mark: object, now: float) -> float:
        """How long ``mark`` has been what it is, as far as it was looked at."""
        if mark != self._mark:
            self._mark, self._since = mark, now
        return now - self._since


_CLOSED = frozenset({7, 8})  # linux/tcp_states.h: TCP_CLOSE, TCP_CLOSE_WAIT


def is_gone(transport: asyncio.Transport) -> bool:
    """Whether the client has left; for a connection that is not read from, where nobody says so."""
    sock = transport.get_extra_info("socket")
    if sock is None or not hasattr(socket, "TCP_INFO") or sock.family == socket.AF_UNIX:
        return False
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _CLOSED
    except OSError:
        return False


def taken_by(transport: asyncio.Transport, awaits_room: bool = False) -> int | None:
    """A number that grows while the client takes what is written; None where nothing is left for it to take.

    ``awaits_room``: there is more to write as soon as the kernel takes it.
    """
    left = transport.get_write_buffer_size()
    if not left and not awaits_room:
        return None
    sock = transport.get_extra_info("socket")
    if sock is not None and hasattr(socket, "TCP_INFO"):
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED + 8)
        except OSError:
            return -left
        if len(info) == _BYTES_ACKED + 8:
            acked: int = struct.unpack_from("Q", info, _BYTES_ACKED)[0]
            return acked
    return -left
