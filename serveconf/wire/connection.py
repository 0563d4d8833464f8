"""One end of a connection: handshake, and bytes to frames; ``outflow.py`` is the way back.

``WireClient`` and the server's connections are built on it; what frames mean is theirs. Frames are read into a buffer that
all connections of a thread share, and decoded from there at once; raw data goes straight into the buffer that it stays in.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from typing import Any, cast

from serveconf.wire.buffers import frames_buffer, raw_buffer
from serveconf.wire.frames import (
    DEFAULT_LIMITS,
    LIMITS_BEFORE_5,
    AnyFrame,
    Body,
    Broken,
    Free,
    Limits,
    Memory,
    ProtocolError,
    StreamError,
    decode,
)
from serveconf.wire.handshake import ClientHandshake, ServerHandshake
from serveconf.wire.outflow import BATCH_BYTES, Outflow
from serveconf.wire.pulse import BEAT, Pulse
from serveconf.wire.shared import make_lane

log = logging.getLogger("serveconf.wire")

SOCKET_BYTES = 1 << 20  # the kernel's default is less than one piece of a large body
SMALL_READ_BYTES = 4 << 10  # holds a frame that announces raw data, and little of the data, which would be copied
NOTHING = memoryview(b"")


class Connection(Outflow, asyncio.BufferedProtocol):
    """What both ends have in common. Subclasses say what to do with a frame, and when it is over."""

    def __init__(self, handshake: ServerHandshake | ClientHandshake, limits: Limits) -> None:
        super().__init__(limits)
        self._handshake = handshake
        self._deadline: asyncio.TimerHandle | None = None
        self._rest = bytearray()  # the beginning of what has not come in whole
        self._raw: Body | None = None  # announces the data that is being received
        self._raw_data: memoryview = NOTHING
        self._raw_filled = 0
        self._after_raw = False  # what comes next is probably the frame of the body's next piece, and raw data
        self._pulse: Pulse | None = None  # where the other end may be on another node
        self._turn_of_last_beat = 0

    # what a subclass adds

    def ready(self) -> None:
        """The handshake is done."""

    @property
    def is_alone(self) -> bool:
        """Whether there is one stream and no other: nobody to share a write with."""
        raise NotImplementedError

    def frames_received(self, frames: Iterator[AnyFrame | Broken]) -> None:
        """A batch came in. StreamError ends the stream of that frame, any other ProtocolError closes the connection."""
        raise NotImplementedError

    def stream_failed(self, stream: int) -> None:
        """What came for it cannot be: end it, at both ends."""
        raise NotImplementedError

    def disconnected(self, error: Exception | None) -> None:
        """The connection is gone, for whatever reason; nothing comes after."""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._transport = transport
        transport.set_write_buffer_limits(high=2 * BATCH_BYTES, low=BATCH_BYTES)
        sock = transport.get_extra_info("socket")
        self._prepare(sock)
        self.lane = make_lane(sock, self.limits)
        self._deadline = self.loop.call_later(self.limits.handshake_timeout_s, self._handshake_late)
        hello = self._handshake.hello()
        if hello:
            transport.write(hello)

    def _prepare(self, sock: Any) -> None:
        if sock is None:
            return
        if sock.family == socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        else:
            self._pulse = Pulse(self.loop, sock, self._beat, self._peer_silent)

    def _beat(self) -> None:
        if self._handshake.done and not self.lost and self._transport is not None:
            if self._turn_of_last_beat == self.turn and not self._paused:
                self._transport.write(BEAT)
            self._turn_of_last_beat = self.turn

    def _peer_silent(self) -> None:
        log.warning("connection closed: nothing is heard of the other end any more")
        self.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._raw is not None:
            return self._raw_data[self._raw_filled :]
        return frames_buffer()[:SMALL_READ_BYTES] if self._after_raw else frames_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            if self._raw is not None:
                self._raw_filled += nbytes
                self._take_raw(self._raw)
            else:
                self._after_raw = False
                self._received(frames_buffer()[:nbytes])
        except ProtocolError as error:
            log.warning("connection closed: %s", error)
            self.abort()

    def _received(self, data: memoryview) -> None:
        if not self._handshake.done:
            data = memoryview(self._shake_hands(bytes(data)))
        if data:
            self._take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._deadline is not None:
            self._deadline.cancel()
        if self._pulse is not None:
            self._pulse.stop()
        self.drop_queue()
        self._rest.clear()
        self._raw, self._raw_data = None, NOTHING
        self.lane.close()
        self.disconnected(exc)

    # reading

    def _shake_hands(self, data: bytes) -> bytes:
        self._rest += data
        while not self._handshake.done and len(self._rest) >= self._handshake.wants:
            size = self._handshake.wants
            part = bytes(self._rest[:size])
            del self._rest[:size]
            answer = self._handshake.feed(part)
            if answer and self._transport is not None:
                self._transport.write(answer)
        if not self._handshake.done:
            return b""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._handshake.version < 5 and self.limits == DEFAULT_LIMITS:
            self.limits = LIMITS_BEFORE_5
        rest = bytes(self._rest)
        self._rest.clear()
        self.ready()
        return rest

    def _handshake_late(self) -> None:
        log.warning("connection closed: no handshake in time")
        self.abort()

    def _take(self, data: memoryview) -> None:
        if self._rest:
            self._rest += data
            if len(self._rest) < 4 or len(self._rest) < 4 + self._announced(self._rest, 0):
                return
            data = memoryview(bytes(self._rest))
            self._rest.clear()
        start, end = 0, len(data)
        while end - start >= 4:
            stop = start + 4 + self._announced(data, start)
            if stop > end:
                break
            frames = decode(data[start + 4 : stop], self.limits)
            start = stop
            if not frames:
                continue  # a beat of its pulse
            last = frames[-1]
            if type(last) is Body and last.raw:
                frames.pop()
                self._deliver(frames)
                there = self.lane.unload(last)
                if there is not None:
                    self._hand_on(last, there)
                else:
                    start += self._expect_raw(last, data[start:])
            else:
                self._deliver(frames)
        if start < end:
            self._rest += data[start:]

    def _expect_raw(self, head: Body, data: memoryview) -> int:
        """The data that ``head`` has announced comes next; how much of ``data`` belongs to it."""
        size = min(head.raw, len(data))
        self._raw, self._raw_data, self._raw_filled = head, raw_buffer(head.raw), size
        self._raw_data[:size] = data[:size]
        self._take_raw(head)
        return size

    def _take_raw(self, head: Body) -> None:
        """Hand the raw data on, if it is there."""
        if self._raw_filled < head.raw:
            return
        data, self._raw_data, self._raw, self._after_raw = self._raw_data, NOTHING, None, True
        self._hand_on(head, data)

    def _hand_on(self, head: Body, data: memoryview) -> None:
        self._deliver([Body(head.stream, data, head.more, head.done, head.others, head.raw, head.slot)])  # type: ignore[arg-type]

    def _deliver(self, frames: list[AnyFrame | Broken]) -> None:
        """Hand on all of them, whatever is wrong with one."""
        rest = iter(frames)
        while True:
            try:
                return self.frames_received(rest)
            except StreamError as error:
                log.warning("stream ended: %s", error)
                self.stream_failed(error.stream)

    def _announced(self, data: memoryview | bytearray, start: int) -> int:
        size = int.from_bytes(data[start : start + 4], "big")
        if size > self.limits.max_batch_bytes:
            raise ProtocolError(f"a batch of {size} bytes")
        return size

    def lane_heard(self, frame: Memory | Free) -> None:
        """What is about the lane, and for no stream."""
        self.lane.hear(frame)
        if isinstance(frame, Memory) and self.lane.news:  # data may come that way at once
            self.queue(self.lane.tell())

    # ending

    def close(self) -> None:
        """Send what is queued, then close."""
        if self._transport is not None and not self.lost:
            self.flush()
            self._transport.close()

    def abort(self) -> None:
        """Close at once, dropping what is queued."""
        if self._transport is not None:
            self._transport.abort()
