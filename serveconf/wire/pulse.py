"""Whether the node at the other end of a TCP connection is still there, told within two seconds.

An end that has nothing to say sends an empty batch now and then, and the *kernel* at the other end acknowledges it,
however busy the application there is: an event loop that is blocked for a minute is no lost node. What was sent and not
acknowledged for ``SILENCE_S``, in spite of being sent again, has nobody to arrive at. ``Connection`` has one ``Pulse``
where it goes over TCP; on one node the kernel says by itself when the other process ends.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

BEAT_S = 0.4
SILENCE_S = 1.5
BEAT = b"\x00\x00\x00\x01\x90"  # a batch of no frames
_HEAD = 8  # linux/tcp.h, struct tcp_info: eight single bytes, then numbers of four
_UNACKED, _LAST_ACK_RECEIVED = 4, 12
_SIZE = _HEAD + 4 * (_LAST_ACK_RECEIVED + 1)
_SLOW_OPTIONS = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 20_000))


class Pulse:
    """Beats until ``stop``; ``on_silence`` is called once, when the other end is gone."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: Any, beat: Callable[[], None], on_silence: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._beat = beat
        self._on_silence = on_silence
        self._timer: asyncio.TimerHandle | None = None
        _let_kernel_watch(sock)
        if hasattr(socket, "TCP_INFO"):
            self._timer = loop.call_later(BEAT_S, self._look)

    def _look(self) -> None:
        if is_silent(self._sock):
            self._timer = None
            self._on_silence()
            return
        self._beat()
        self._timer = self._loop.call_later(BEAT_S, self._look)

    def stop(self) -> None:
        """The connection is over."""
        if self._timer is not None:
            self._timer.cancel()


def is_silent(sock: Any) -> bool:
    """Whether something is under way, and the other end has acknowledged nothing for ``SILENCE_S``.

    What waits for an application that does not read is not under way: the kernel there says so, and is alive.
    """
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
    except OSError:
        return False  # it is closed already
    numbers = struct.unpack_from(f"{_LAST_ACK_RECEIVED + 1}I", info, _HEAD)
    return bool(numbers[_UNACKED]) and numbers[_LAST_ACK_RECEIVED] >= SILENCE_S * 1000


def _let_kernel_watch(sock: Any) -> None:
    """The last resort, within twenty seconds: TCP alone would wait for many minutes."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _SLOW_OPTIONS:
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
