"""glibc's allocator keeps what large pieces of bodies need, instead of giving it back to the system for each of them.

New pages cost more than what is then copied into them: by default a piece of 512 KiB comes with 128 page faults, each time.
"""

from __future__ import annotations

import ctypes
import os
import sys

KEPT_BYTES = 8 << 20  # free memory at the end of a heap that is not given back
LARGE_BYTES = 4 << 20  # a block from this size on comes from the system, and goes back there
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD


def keep_freed_memory() -> None:
    """For this process, where its C library is glibc and its environment does not set the same (``MALLOC_…``)."""
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
