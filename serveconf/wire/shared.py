"""Memory that both ends of a connection see, on one node: large data is put there instead of into the socket.

The replica offers it and fills its slots; the proxy writes them to its client from where they are. A slot belongs to one
end at a time: the offered ones are the proxy's until it says that they are free, a filled one is the proxy's again. Where
it cannot be had, or no slot is free, data takes the way through the socket.

``filled_lane`` is the lane of the replica's end of a connection, ``seen_lane`` the proxy's.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import mmap
import os
import socket
import struct
import sys
import weakref
from collections import deque
from typing import Any

from serveconf.wire.frames import Body, Free, Limits, Memory, ProtocolError
from serveconf.wire.lane import Lane, Parts

SLOTS = 16  # two are under way to a client, or are held by one that does not read
SMALL = 64 << 10  # what is no larger is not worth a slot: the socket is as fast
MAX_SLOTS = 64  # that the other end may offer, and their size
MAX_SLOT_BYTES = 16 << 20
NAME = "serveconf"

log = logging.getLogger("serveconf.wire")


def can_share(sock: Any, limits: Limits) -> bool:
    """Whether memory can be offered to the other end of ``sock``: it is on this node, this is Linux, and it is of use."""
    return (
        sock is not None
        and sock.family == socket.AF_UNIX
        and sys.platform == "linux"
        and hasattr(os, "memfd_create")
        and max(SMALL, limits.inline_bytes) < limits.piece_bytes <= MAX_SLOT_BYTES
    )


class OwnMemory:
    """The end that fills the slots."""

    def __init__(self, limits: Limits) -> None:
        """It takes no room before it is filled. OSError when the system gives none."""
        self._slot_bytes = limits.piece_bytes
        self._free: list[int] = []  # the last one comes first: it is in the processor's cache still
        self._real: set[int] = set()  # these have been given their pages
        self._file = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self._file, SLOTS * self._slot_bytes)
            fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, _seals())
            self._memory = memoryview(mmap.mmap(self._file, SLOTS * self._slot_bytes))
        except BaseException:  # no descriptor stays open, whatever came in between
            os.close(self._file)
            raise

    def offer(self) -> Memory:
        """What to tell the other end."""
        return Memory(1, self._file, os.fstat(self._file).st_ino, SLOTS, self._slot_bytes)

    def has_room_for(self, size: int) -> bool:
        """Whether so much data is worth a slot, and fits into a free one."""
        if not SMALL < size <= self._slot_bytes:
            return False
        while self._free and not self._is_real(self._free[-1]):
            self._free.pop()
        return bool(self._free)

    def _is_real(self, slot: int) -> bool:
        """Whether it has its pages: one that cannot be had would end the process when it is written to."""
        if slot not in self._real:
            try:
                os.posix_fallocate(self._file, (slot - 1) * self._slot_bytes, self._slot_bytes)
            except OSError:
                return False
            self._real.add(slot)
        return True

    def put(self, parts: Parts, size: int) -> int:
        """Copy data into a slot, which is the other end's then; its number, or 0 where there is no room for it."""
        if not self.has_room_for(size):
            return 0
        slot = self._free.pop()
        start = (slot - 1) * self._slot_bytes
        for part in parts:
            end = start + len(part)
            self._memory[start:end] = part
            start = end
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
        self.done: deque[int] = deque(range(1, memory.slots + 1))  # and these, once it hears of it

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
        self.done.append(view.key)

    def free(self) -> Free:
        """What to tell the other end."""
        slots = [self.done.popleft() for _ in range(len(self.done))]
        self._lent.update(slots)
        return Free(1, slots)


def filled_lane(sock: Any, limits: Limits) -> Lane:
    """The lane of the end that offers memory where that can be."""
    return FilledLane(limits) if can_share(sock, limits) else Lane()


def seen_lane(sock: Any, limits: Limits) -> Lane:
    """The lane of the end that is offered memory where that can be."""
    return SeenLane(sock) if can_share(sock, limits) else Lane()


class FilledLane(Lane):
    """The memory is made, and offered, when there is large data for the first time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._memory: OwnMemory | None = None
        self._may_offer = True
        self._offers: list[Memory] = []
        self.news = self._offers

    def load(self, frame: Body, parts: Parts) -> Parts:
        if self._memory is not None:
            frame.slot = self._memory.put(parts, frame.raw)
            return () if frame.slot else parts
        if self._may_offer and frame.raw > SMALL:
            self._offer()
        return parts

    def _offer(self) -> None:
        self._may_offer = False
        try:
            self._memory = OwnMemory(self._limits)
        except OSError as error:
            log.debug("no memory to share: %s", error)
        else:
            self._offers.append(self._memory.offer())

    def hear(self, frame: Memory | Free) -> None:
        if self._memory is None or not isinstance(frame, Free):
            raise ProtocolError("there are no slots here")
        self._memory.freed(frame.slots)

    def tell(self) -> Memory:
        return self._offers.pop()

    def close(self) -> None:
        self._may_offer = False
        if self._memory is not None:
            self._memory.close()
            self._memory = None


class SeenLane(Lane):
    """The memory is the replica's, once it has been offered and can be reached."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._memory: TheirMemory | None = None
        self._was_offered = False

    def unload(self, frame: Body) -> memoryview | None:
        if not frame.slot:
            return None
        if self._memory is None:
            raise ProtocolError("there are no slots here")
        return self._memory.take(frame.slot, frame.raw)

    def hear(self, frame: Memory | Free) -> None:
        if self._was_offered or not isinstance(frame, Memory):
            raise ProtocolError("memory where none can be, or once more")
        self._was_offered = True
        try:
            self._memory = TheirMemory(self._sock, frame)
        except OSError as error:  # as in another container: everything goes through the socket
            log.debug("the replica's memory is out of reach: %s", error)
        else:
            self.news = self._memory.done

    def tell(self) -> Free:
        assert self._memory is not None
        return self._memory.free()

    def close(self) -> None:
        self._memory = None
        self.news = ()


def _seals() -> int:
    return fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
