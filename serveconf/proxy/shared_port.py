"""One listening socket that several processes hold and one of them serves; when that one ends, the next goes on with it.

Who serves has a lock on a file, and sends its listener to whoever connects to a socket beside that file. The kernel lets go
of both when the process ends, however it ends: a line that closes is the news, the lock says who is next. Clients that
connect in between wait in the listener's queue, which lives as long as anybody holds it: none is refused.

``cluster.proxy`` is the one who calls; all of it runs on one loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from weakref import WeakSet

log = logging.getLogger("serveconf.proxy")

TAKE, FORGET, TAKEN, NOT_TAKEN = b"t", b"f", b"y", b"n"
ANSWER_S = 2.0
SOON_S, LATER_S = 0.001, 0.05  # between two tries: what has just ended lets go within milliseconds
MANY = 200


class SharedPort:
    """This process's share in a listening socket."""

    def __init__(self, place: Path, bind: Callable[[], socket.socket]) -> None:
        """``place``: what all processes that share it agree on, in a folder that is ours alone; ``bind``: make the socket."""
        self.listener: socket.socket | None = None
        self._bind = bind
        self._lock_file = place.with_suffix(".lock")
        self._address = str(place.with_suffix(".port"))
        self._lock: int | None = None
        self._line: socket.socket | None = None  # to who serves
        self._server: socket.socket | None = None
        self._sending: asyncio.Task[None] | None = None
        self._heirs: list[socket.socket] = []
        _all.add(self)

    @property
    def is_held_by_another(self) -> bool:
        """Whether another process has the lock, and this one the same listener."""
        return self._line is not None

    async def enter(self) -> bool:
        """Whether the listener is this process's to serve; else another one serves it, and this one holds it too.

        Raises what ``bind`` raises.
        """
        tries = 0
        while not self._take_lock():
            if await asyncio.to_thread(self._hold):
                return False
            tries += 1
            await asyncio.sleep(SOON_S if tries < MANY else LATER_S)
        try:
            if self.listener is None:
                self.listener = self._bind()
            self._let_others_in()
        except BaseException:  # a cancel too: whoever waits for the port must not wait for this one
            self._let_go()
            raise
        return True

    async def wait(self, serve: Callable[[], Awaitable[None]]) -> None:
        """Until it is this process's turn, and then have it served."""
        loop = asyncio.get_running_loop()
        while True:
            line = self._line
            assert line is not None
            try:
                word = await loop.sock_recv(line, 1)
            except OSError:
                word = b""
            if word == TAKE:
                if self._take_lock():
                    self._let_others_in()
                    await serve()
                    with contextlib.suppress(OSError):
                        await loop.sock_sendall(line, TAKEN)
                    self._hang_up()
                    return
                with contextlib.suppress(OSError):
                    await loop.sock_sendall(line, NOT_TAKEN)
                continue
            if word == FORGET:
                self._forget_listener()
            self._hang_up()
            if await self.enter():
                await serve()
                return

    async def hand_over(self) -> bool:
        """Have another one serve it. False where nobody does: then it is to be closed like any listener."""
        self._let_go()
        heirs, self._heirs = self._heirs, []
        taken = False
        for heir in heirs:
            taken = taken or await self._offer(heir)
        for heir in heirs:
            if not taken:
                with contextlib.suppress(OSError):
                    heir.send(FORGET)
            heir.close()
        self._forget_listener()
        return taken

    def leave(self) -> None:
        """Hold it no more, whatever becomes of it."""
        self._hang_up()
        self._let_go()
        self._forget_listener()

    # -- who serves ---------------------------------------------------------------------------------------------------

    def _take_lock(self) -> bool:
        lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def _let_others_in(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._address)
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(self._address)
        self._server.listen(8)
        self._server.setblocking(False)
        self._sending = asyncio.get_running_loop().create_task(self._send_listener(self._server))

    async def _send_listener(self, server: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                heir, _ = await loop.sock_accept(server)
            except OSError as error:  # no file left, say: who waits asks again
                log.warning("nobody can be sent the listener", extra={"reason": repr(error)})
                await asyncio.sleep(LATER_S)
                continue
            self._heirs = [other for other in self._heirs if _is_there(other)]
            assert self.listener is not None
            try:
                socket.send_fds(heir, [b"p"], [self.listener.fileno()])
            except OSError:
                heir.close()
                continue
            self._heirs.append(heir)

    async def _offer(self, heir: socket.socket) -> bool:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ANSWER_S):
                await loop.sock_sendall(heir, TAKE)
                return await loop.sock_recv(heir, 1) == TAKEN
        except (OSError, TimeoutError):
            return False

    def _let_go(self) -> None:
        """Of the lock, and of the socket beside it."""
        if self._sending is not None:
            self._sending.cancel()
        if self._server is not None:
            self._server.close()
        if self._lock is not None:
            os.close(self._lock)
        self._sending = self._server = self._lock = None

    # -- who waits ----------------------------------------------------------------------------------------------------

    def _hold(self) -> bool:
        """Have the listener sent; False where nobody sends it. Blocks for a moment."""
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        line.settimeout(1.0)
        try:
            line.connect(self._address)
            _, found, _, _ = socket.recv_fds(line, 1, 1)
        except OSError:
            found = []
        if not found:
            line.close()
            return False
        line.setblocking(False)
        self._forget_listener()
        self.listener, self._line = socket.socket(fileno=found[0]), line
        self.listener.setblocking(False)
        return True

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def _forget_listener(self) -> None:
        if self.listener is not None:
            self.listener.close()
            self.listener = None

    def be_forked(self) -> None:
        """In a child that the user's code has forked: it must not keep up what the kernel closes when its parent ends."""
        for sock in (self._line, self._server, *self._heirs):
            if sock is not None:
                sock.close()
        if self._lock is not None:
            os.close(self._lock)


def _is_there(heir: socket.socket) -> bool:
    try:
        return heir.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _be_forked() -> None:
    for one in list(_all):
        one.be_forked()


_all: WeakSet[SharedPort] = WeakSet()
os.register_at_fork(after_in_child=_be_forked)
