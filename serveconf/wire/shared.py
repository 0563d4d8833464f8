"""Memory that both ends of a connection see, on one node: large data is put there instead of into the socket.

The replica offers it and fills its slots; the proxy writes them to its client from where they are. A slot belongs to one
end at a time: the offered ones are the proxy's until it says that they are free, a filled one is the proxy's again. Where
it cannot be had, or no slot is free, data takes the way through the socket.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import socket
import struct
import sys
import weakref
from collections import deque
from typing import Any

from serveconf.wire.frames import SLOT_SHIFT, Free, Limits, Memory, ProtocolError

SLOTS = 8  # two are under way to a client that reads fast, three are held by one that does not read at all
SMALL = 64 << 10  # what is no larger is not worth a slot: the socket is as fast
MAX_SLOTS = 64  # that the other end may offer, and their size
MAX_SLOT_BYTES = 16 << 20
NAME = "serveconf"


def can_share(sock: Any, limits: Limits) -> bool:
    """Whether memory can be offered to the other end of ``sock``: it is on this node, this is Linux, and it is of use."""
    return (
        sock is not None
        and sock.family == socket.AF_UNIX
        and sys.platform == "linux"
        and hasattr(os, "memfd_create")
        and max(SMALL, limits.inline_bytes) < _slot_bytes(limits) <= MAX_SLOT_BYTES
    )


class OwnMemory:
    """The end that fills the slots."""

    def __init__(self, limits: Limits) -> None:
        """It takes no room before it is filled. OSError when the system gives none."""
        self._slot_bytes = _slot_bytes(limits)
        self._free: list[int] = []  # the last one comes first: it is in the processor's cache still
        self._real: set[int] = set()  # these have been given their pages
        self._file = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self._file, SLOTS * self._slot_bytes)
            fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, _seals())
            self._memory = memoryview(mmap.mmap(self._file, SLOTS * self._slot_bytes))
        except BaseException:
            os.close(self._file)
            raise

    def offer(self) -> Memory:
        """What to tell the other end."""
        return Memory(1, self._file, os.fstat(self._file).st_ino, SLOTS, self._slot_bytes)

    def room_for(self, size: int) -> int:
        """How much of ``size`` bytes the next slot takes; 0 where they go through the socket."""
        if size <= SMALL:
            return 0
        while self._free and not self._is_real(self._free[-1]):
            self._free.pop()
        return min(size, self._slot_bytes) if self._free else 0

    def _is_real(self, slot: int) -> bool:
        """Whether it has its pages: one that cannot be had would end the process when it is written to."""
        if slot not in self._real:
            try:
                os.posix_fallocate(self._file, (slot - 1) * self._slot_bytes, self._slot_bytes)
            except OSError:
                return False
            self._real.add(slot)
        return True

    def put(self, data: memoryview) -> int:
        """Copy ``data`` into a slot, which is the other end's then; its number, or 0 where there is no room for it."""
        if self.room_for(len(data)) < len(data):
            return 0
        slot = self._free.pop()
        start = (slot - 1) * self._slot_bytes
        self._memory[start : start + len(data)] = data
        return slot

    def freed(self, slots: list[int]) -> None:
        """The other end has done with these. ProtocolError when they cannot have been its own."""
        for slot in slots:
            if not 1 <= slot <= SLOTS or slot in self._free:
                raise ProtocolError(f"slot {slot} cannot be given back")
            self._free.append(slot)

    def close(self) -> None:
        """Give the memory back to the system, as soon as the other end has done so too."""
        os.close(self._file)
        self._free.clear()
        self._memory.release()


class TheirMemory:
    """The end that looks at what is in the slots."""

    def __init__(self, sock: Any, memory: Memory) -> None:
        """Map what the other end of ``sock`` offers. OSError when it cannot be reached from here."""
        if not 1 <= memory.slots <= MAX_SLOTS or not 1 <= memory.slot_bytes <= MAX_SLOT_BYTES:
            raise ProtocolError(f"memory of {memory.slots} slots of {memory.slot_bytes} bytes")
        pid, _, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII")))
        path = f"/proc/{pid}/fd/{memory.file}"
        if not os.readlink(path).startswith(f"/memfd:{NAME} "):
            raise FileNotFoundError(f"{path} is not the memory that was offered")
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            size, found = memory.slots * memory.slot_bytes, os.fstat(file)
            if found.st_ino != memory.inode:
                raise FileNotFoundError(f"{path} is not the memory that was offered")
            if found.st_size != size or fcntl.fcntl(file, fcntl.F_GET_SEALS) & _seals() != _seals():
                raise ProtocolError("memory that may shrink while it is read")
            self._memory = mmap.mmap(file, size)
        finally:
            os.close(file)
        self._slot_bytes = memory.slot_bytes
        self._slot = ctypes.c_char * memory.slot_bytes
        self._lent: set[int] = set()  # the other end may fill them
        self._views: dict[int, weakref.KeyedRef[int, Any]] = {}
        self._done: deque[int] = deque(range(1, memory.slots + 1))  # and these, once it hears of it

    def take(self, slot: int, size: int) -> memoryview:
        """The ``size`` bytes in ``slot``, which nobody fills as long as there is a view of them.

        ProtocolError when the other end had no right to fill it.
        """
        if slot not in self._lent or size > self._slot_bytes:
            raise ProtocolError(f"nothing can be in slot {slot}")
        self._lent.remove(slot)
        data = self._slot.from_buffer(self._memory, (slot - 1) * self._slot_bytes)
        self._views[slot] = weakref.KeyedRef(data, self._seen, slot)
        return memoryview(data).cast("B")[:size]

    def _seen(self, view: weakref.KeyedRef[int, Any]) -> None:
        self._done.append(view.key)

    def free(self) -> Free | None:
        """What to tell the other end, if there is anything."""
        if not self._done:
            return None
        slots = [self._done.popleft() for _ in range(len(self._done))]
        self._lent.update(slots)
        return Free(1, slots)


def _slot_bytes(limits: Limits) -> int:
    return limits.piece_bytes << SLOT_SHIFT


def _seals() -> int:
    return fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
