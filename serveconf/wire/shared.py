"""Memory that both ends of a connection see, on one node: large data is put there instead of into the socket.

Each end offers memory of its own and fills its slots: the proxy writes answers to its client from where they are, the
replica takes uploads out of theirs. A slot belongs to one end at a time: the offered ones are the other end's until it says
that they are free, a filled one is the other end's again. Where memory cannot be had, or no slot is free, data takes the way
through the socket.
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

SLOTS = 8  # one is under way to a client, or is held by one that does not read
SMALL = 32 << 10  # what is no larger is not worth a slot: the socket is as fast
MAX_SLOTS = 64  # that the other end may offer, and their size
MAX_SLOT_BYTES = 16 << 20
NAME = "serveconf"
OFFER = 0  # among the numbers of slots: memory is to be offered

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

    def __init__(self, sock: Any, memory: Memory, done: deque[int] | None = None) -> None:
        """Map what the other end of ``sock`` offers. OSError when it cannot be reached from here.

        ``done`` gets the slots that the other end may fill again, once it hears of it: all of them, to begin with.
        """
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
        self.done: deque[int] = deque() if done is None else done
        self.done.extend(range(1, memory.slots + 1))

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


def make_lane(sock: Any, limits: Limits) -> Lane:
    """The lane of either end of a connection over ``sock``."""
    return SharedLane(sock, limits) if can_share(sock, limits) else Lane()


class SharedLane(Lane):
    """Both ends may have memory of their own: it is made, and offered, when an end has large data for the first time."""

    def __init__(self, sock: Any, limits: Limits) -> None:
        self._sock = sock
        self._limits = limits
        self._own: OwnMemory | None = None
        self._theirs: TheirMemory | None = None
        self._may_offer = True
        self._was_offered = False
        self._offer: Memory | None = None
        self._news: deque[int] = deque()  # an offer, or slots that are free again
        self.news = self._news

    def load(self, frame: Body, parts: Parts) -> Parts:
        if self._own is not None:
            frame.slot = self._own.put(parts, frame.raw)
            return () if frame.slot else parts
        if self._may_offer and self.is_understood and frame.raw > SMALL:
            self._make_own()
        return parts

    def _make_own(self) -> None:
        self._may_offer = False
        try:
            self._own = OwnMemory(self._limits)
        except OSError as error:
            log.debug("no memory to share: %s", error)
        else:
            self._offer = self._own.offer()
            self._news.append(OFFER)

    def unload(self, frame: Body) -> memoryview | None:
        if not frame.slot:
            return None
        if self._theirs is None:
            raise ProtocolError("there are no slots here")
        return self._theirs.take(frame.slot, frame.raw)

    def hear(self, frame: Memory | Free) -> None:
        if isinstance(frame, Free):
            if self._own is None:
                raise ProtocolError("there are no slots here")
            self._own.freed(frame.slots)
        elif self._was_offered:
            raise ProtocolError("memory is offered once more")
        else:
            self._was_offered = True
            try:
                self._theirs = TheirMemory(self._sock, frame, self._news)
            except OSError as error:  # as in another container: everything goes through the socket
                log.debug("the other end's memory is out of reach: %s", error)

    def tell(self) -> Memory | Free:
        if self._offer is not None:
            offer, self._offer = self._offer, None
            self._news.remove(OFFER)
            return offer
        assert self._theirs is not None
        return self._theirs.free()

    def close(self) -> None:
        self._may_offer = False
        self.news = ()
        self._theirs = None
        if self._own is not None:
            self._own.close()
            self._own = None


def _seals() -> int:
    return fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
