"""The way out of one end of a connection: frames to bytes, one write per loop turn, turns for large bodies.

``Connection`` is built on it. Pieces of one body that are sent in one turn are gathered to one frame, if they come fast enough
to be worth it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic

from serveconf.wire.frames import CODEC_ERRORS, AnyFrame, Body, FrameTooLarge, Limits, encode, encode_each
from serveconf.wire.lane import Lane, Parts

BATCH_FRAMES = 4  # in one write: with more, proxy and replica take turns instead of working at the same time
BATCH_BYTES = 1 << 20  # of body per loop turn; the streams that have more wait for the next one
GATHER_S = 0.001  # a piece of a body that comes so long after the last one was written is not held for others


class Outflow:
    """What is queued, and when it is written."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.lane = Lane()
        self.loop = asyncio.get_running_loop()
        self.turn = 0  # counts the writes: a frame queued in this turn may still be added to
        self.lost = False
        self._transport: asyncio.Transport | None = None
        self._batch: list[AnyFrame] = []
        self._batch_bytes = 0
        self._gathering: Body | None = None  # the last frame of the batch, if it is one whose data is ``_parts``
        self._parts: list[bytes | memoryview] = []
        self._piece_written_at = 0.0
        self._flushes_soon = False
        self._paused = False
        self._turns: deque[asyncio.Future[None]] = deque()

    def frame_unsendable(self, frame: AnyFrame, error: Exception) -> None:
        """``frame`` was queued, and is too large or holds what no frame can."""
        raise NotImplementedError

    def queue(self, frame: AnyFrame, at_once: bool = False) -> None:
        """Send ``frame`` with the other frames of this loop turn; or ``at_once``, where no other is to be expected."""
        batch = self._batch
        if not batch:
            if self.lost:
                return
            if not self._flushes_soon:
                self._flushes_soon = True
                self.loop.call_soon(self._end_turn)
                if at_once:
                    batch.append(frame)
                    self.flush()
                    return
        elif len(batch) >= BATCH_FRAMES or self._gathering is not None:
            self.flush()
            batch = self._batch
        batch.append(frame)

    def queue_piece(self, frame: Body, data: bytes | memoryview) -> int:
        """Send ``frame`` with ``data``; more may be added to it in the turn that this returns."""
        size = len(data)
        if size <= self.limits.inline_bytes:
            frame.data = data if type(data) is bytes else bytes(data)
            self.queue(frame)
            return self.turn
        turn = self.turn
        if not self.lost:
            frame.raw = size
            self.queue(frame)
            turn = self.turn
            self._gathering, self._parts = frame, [data]
            self._piece_queued(frame)
        return turn

    def add_piece(self, frame: Body, data: bytes | memoryview, more: bool) -> bool:
        """Send ``data`` in ``frame``, which was queued in this turn; False if other frames came behind, or it is full."""
        if not self._batch or self._batch[-1] is not frame:
            return False
        size = len(data)
        if frame is not self._gathering:
            if self._gathering is not None or len(frame.data) + size > self.limits.piece_bytes:
                return False
            self._gathering, self._parts = frame, [frame.data]
            frame.raw, frame.data = len(frame.data), b""
        elif frame.raw + size > self.limits.piece_bytes:
            return False
        frame.raw += size
        frame.more = more
        self._parts.append(data)
        self._piece_queued(frame)
        return True

    def _piece_queued(self, frame: Body) -> None:
        if frame.raw >= self.limits.piece_bytes and frame.more:  # else the end of the handler goes with it
            self.flush()

    def hurry(self) -> None:
        """A piece of a body was queued that may be the last one for a while."""
        now = monotonic()
        if now - self._piece_written_at >= GATHER_S:
            self._piece_written_at = now
            self.flush()

    def _end_turn(self) -> None:
        self._flushes_soon = False
        self.flush()

    def flush(self) -> None:
        """Write what is queued, now rather than at the end of the turn."""
        batch = self._batch
        if not batch:
            return
        if self.lane.news:
            batch.insert(0, self.lane.tell())
        data = self._load(self._gathering) if self._gathering is not None else ()
        transport = self._transport
        assert transport is not None
        self.turn += 1
        self._batch = []
        self._batch_bytes = 0
        try:
            frames = encode(batch, self.limits)
        except (FrameTooLarge, *CODEC_ERRORS):
            frames = b""
            self._write_each(transport, batch)
        if data:
            transport.writelines((frames, *data))
        else:
            transport.write(frames)
        if self._turns:
            self.next_turns()

    def _load(self, frame: Body) -> Parts:
        parts, self._gathering, self._parts = self._parts, None, []
        if frame.raw <= self.limits.inline_bytes:
            frame.raw, frame.data = 0, b"".join(parts)
            return ()
        return self.lane.load(frame, parts)

    def _write_each(self, transport: asyncio.Transport, batch: list[AnyFrame]) -> None:
        for frame, data in encode_each(batch, self.limits):
            if isinstance(data, Exception):
                self.frame_unsendable(frame, data)
            else:
                transport.write(data)

    @property
    def clogged(self) -> bool:
        """Whether a piece of a body must wait for its turn."""
        return self._paused or self._batch_bytes >= BATCH_BYTES

    def count(self, size: int) -> None:
        """``size`` bytes of body were queued."""
        self._batch_bytes += size

    async def wait_turn(self) -> None:
        """Wait until a piece of a body may go, first come, first served."""
        while self.clogged and not self.lost:
            turn = self.loop.create_future()
            self._turns.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self.next_turns()  # the turn may have been given to us already
                raise

    def next_turns(self) -> None:
        """Let those go on who are first in line."""
        turns = max(1, BATCH_BYTES // self.limits.piece_bytes)
        while self._turns and turns > 0 and not self._paused:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                turns -= 1

    def drop_queue(self) -> None:
        """The connection is gone: nothing is sent any more, and nobody waits for a turn."""
        self._batch.clear()
        self._gathering = None
        self._parts.clear()
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)

    # the transport's calls

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.next_turns()
