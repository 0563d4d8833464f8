"""A plain object on an event loop of its own, called by name: what runs in every actor's process.

The object knows nothing of actors. Its ``run`` is started when it is made; its methods are coroutines that run on that
loop, beside the user's code where there is any. What must answer although that loop is blocked is answered here.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import resource
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop
from msgspec.structs import replace

from serveconf.cluster.engine import Surroundings
from serveconf.cluster.logs import write_logs
from serveconf.cluster.niceness import work_as_it_started
from serveconf.cluster.own_log import read_log_of, read_own_log
from serveconf.runtime.shared_output import be_patient

BLOCKED_S = 2.0  # a loop that has not turned for so long is blocked
LOOK_S = 1.0
LOOKS = 60  # then it is asked anew: who had asked may be gone
END_S = 5.0  # for the engine to end this process, before it ends by itself

KINDS = {
    "controller": "serveconf.cluster.controller:Controller",
    "proxy": "serveconf.cluster.proxy:Proxy",
    "replica": "serveconf.cluster.replica:Replica",
    "process": "serveconf.cluster.shared:SharedProcess",
    "standby": "serveconf.cluster.standby:Standby",
}
T = TypeVar("T")


class Hosted:
    """Makes the object of a kind, starts it, and passes calls on."""

    def __init__(self, kind: str, args: tuple[Any, ...], surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._thread = LoopThread("replica" if kind in ("standby", "process") else kind)
        self._become(kind, args)

    async def call(self, method: str, args: tuple[Any, ...]) -> Any:
        """What the object's method returns or raises."""
        if method == "read_log":
            return read_own_log(*args)
        if method == "read_log_of":
            return read_log_of(*args)
        if method == "end_soon":
            return _end_soon()
        if method == "room" and args[1] == "blocked":  # of a process that is shared: it has but one loop
            _, method, args = args
        if method == "blocked":
            return await self._blocked(*args)
        if method == "become":
            self._surroundings = replace(self._surroundings, was_standby=True)
            return self._become(*args)
        if method == "room" and not hasattr(self._object, "room"):  # a standby that never became a process of several
            _, method, args = args
        return await self._thread.run(getattr(self._object, method)(*args))

    async def _blocked(self, told: bool) -> float:
        """For how many seconds the loop has stood still; 0: it turns. Returns when that is other than the caller was told,
        or after a while.
        """
        for _ in range(LOOKS):
            turn = asyncio.ensure_future(self._thread.run(asyncio.sleep(0)))
            try:
                async with asyncio.timeout(LOOKS * LOOK_S if told else BLOCKED_S):
                    await turn
            except TimeoutError:
                return LOOKS * LOOK_S if told else BLOCKED_S
            if told:
                break
            await asyncio.sleep(LOOK_S)
        return 0.0

    def _become(self, kind: str, args: tuple[Any, ...]) -> None:
        module, _, name = KINDS[kind].partition(":")
        make = getattr(importlib.import_module(module), name)
        self._object = make(*args, self._surroundings)
        self._thread.start(self._object.run())

    async def closed(self) -> None:
        """Never returns; who waits for it hears of the process's end at once."""
        await asyncio.Event().wait()


def _end_soon() -> None:
    """The engine is about to end this process. Should it only forget it, as one does whose head was lost meanwhile, it ends."""
    timer = threading.Timer(END_S, os._exit, (0,))
    timer.daemon = True
    timer.start()


def set_up_process() -> None:
    """Write our log lines, which are lost where their disk is full; take as large a share of the cores as what starts, and as
    many open files as the system lets us: each connection is one.
    """
    work_as_it_started()
    be_patient()
    write_logs()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # some systems say "unlimited" and refuse it
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class LoopThread:
    """Runs coroutines on a uvloop loop in a daemon thread that lives as long as the process."""

    def __init__(self, name: str) -> None:
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> None:
        """Run it there; who wants its result asks with ``run``."""
        asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it there and wait for it here, on whatever loop the caller has."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.loop))

    def call(self, function: Callable[[], object]) -> None:
        """Call it there soon."""
        self.loop.call_soon_threadsafe(function)
