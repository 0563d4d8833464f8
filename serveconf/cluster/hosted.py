"""A plain object on an event loop of its own, called by name: what runs in every actor's process.

The object knows nothing of actors. Its ``run`` is started when it is made; its methods are coroutines that run on that
loop, beside the user's code where there is any. What must answer although that loop is blocked is answered here.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import resource
from typing import Any

from msgspec.structs import replace

from serveconf.cluster.engine import Surroundings
from serveconf.cluster.logs import write_logs
from serveconf.cluster.loopthread import LoopThread
from serveconf.cluster.own_log import read_log_of, read_own_log

KINDS = {
    "controller": "serveconf.cluster.controller:Controller",
    "proxy": "serveconf.cluster.proxy:Proxy",
    "replica": "serveconf.cluster.replica:Replica",
    "process": "serveconf.cluster.shared:SharedProcess",
    "standby": "serveconf.cluster.standby:Standby",
}


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
        if method == "become":
            self._surroundings = replace(self._surroundings, was_standby=True)
            return self._become(*args)
        if method == "room" and not hasattr(self._object, "room"):  # a standby that never became a process of several
            _, method, args = args
        return await self._thread.run(getattr(self._object, method)(*args))

    def _become(self, kind: str, args: tuple[Any, ...]) -> None:
        module, _, name = KINDS[kind].partition(":")
        make = getattr(importlib.import_module(module), name)
        self._object = make(*args, self._surroundings)
        self._thread.start(self._object.run())

    async def closed(self) -> None:
        """Never returns; who waits for it hears of the process's end at once."""
        await asyncio.Event().wait()


def set_up_process() -> None:
    """Write our log lines; allow as many open files as the system lets us, for each connection is one."""
    write_logs()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # some systems say "unlimited" and refuse it
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
