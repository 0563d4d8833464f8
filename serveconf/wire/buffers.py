"""The memory that connections read into: one buffer for frames, and some for raw data that are used again and again.

All of it belongs to a thread, as an event loop and its connections do: between ``get_buffer`` and ``buffer_updated``
nobody else reads.
"""

from __future__ import annotations

import threading

_FRAMES_BYTES = 64 << 10
_RAW_BYTES = 1 << 20  # of a buffer that is kept, so that it fits whoever comes next
_WORTH_KEEPING = 256 << 10  # what is smaller gets its own size: credit counts data, and memory should be no more
_KEPT = 8  # buffers for raw data


class _Memory(threading.local):
    def __init__(self) -> None:
        self.frames = memoryview(bytearray(_FRAMES_BYTES))
        self.raw: list[bytearray] = []


_memory = _Memory()


def frames_buffer() -> memoryview:
    """Where frames are read into; whoever decodes them copies what is to stay."""
    return _memory.frames


def raw_buffer(size: int) -> memoryview:
    """``size`` bytes that nobody else has a view of, for as long as the caller or a view of it lives."""
    if size < _WORTH_KEEPING:
        return memoryview(bytearray(size))
    kept = _memory.raw
    for buffer in kept:
        if len(buffer) >= size and _is_free(buffer):
            return memoryview(buffer)[:size]
    if len(kept) >= _KEPT:
        return memoryview(bytearray(size))
    buffer = bytearray(max(size, _RAW_BYTES))
    kept.append(buffer)
    return memoryview(buffer)[:size]


def _is_free(buffer: bytearray) -> bool:
    """Whether nobody has a view of it: only then may its size change."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True
