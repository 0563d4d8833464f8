"""Calls to the engine's bookkeeping, Ray's GCS: they block, and without a GCS for a minute and more.

They run in threads of their own. When none has come back for some seconds the GCS is silent: what is asked then is refused
at once, and who has asked before hears of it, until one of the calls that are under way is answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from serveconf.errors import EngineSilent
from serveconf.reconcile.ports import Store

SILENT_S = 4.0  # a call takes a millisecond, on a node that has too much to do a second
GIVE_UP_S = 10.0  # where others are answered
LOOK_S = 0.2
THREADS = 8


class Gcs:
    """One in a process. ``unanswered``: errors that say that nobody answered; any other one is an answer."""

    def __init__(
        self, unanswered: tuple[type[Exception], ...] = (), *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._unanswered = (*unanswered, EngineSilent)
        self._now = now
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gcs")
        self._pending: dict[Future[Any], float] = {}
        self._answered = now()
        self._since: float | None = None

    def silent_for(self) -> float | None:
        """For how many seconds nothing has been answered that should have been; None: it answers."""
        if self._since is None and self._pending:
            since = max(self._answered, min([*self._pending.values()]))
            if self._now() - since >= SILENT_S:
                self._since = since
        return None if self._since is None else self._now() - self._since

    async def ask(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What it returns or raises. Raises EngineSilent where there is no answer, or there will be none."""
        self._check()
        call = self._begin(function, *args, **kwargs)
        answer = asyncio.wrap_future(call)
        answer.add_done_callback(_heard)
        for _ in range(round(GIVE_UP_S / LOOK_S)):
            done, _ = await asyncio.wait((answer,), timeout=LOOK_S)
            if done:
                return await answer
            if self.silent_for() is not None:
                break
        raise EngineSilent(self.silent_for())

    async def do(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """As ``ask``, for what must not be left half done: it waits for the answer, and for somebody who could give it."""
        while self._pending and self.silent_for() is not None:  # noqa: ASYNC110 - answered in other threads, for many loops
            await asyncio.sleep(LOOK_S)
        return await asyncio.wrap_future(self._begin(function, *args, **kwargs))

    def beside(self, function: Callable[..., Any], *args: Any) -> None:
        """As ``do``, for what nobody waits for."""
        self._begin(function, *args)

    def _check(self) -> None:
        silent_s = self.silent_for()
        if silent_s is not None and self._pending:  # else this one finds out whether it is there again
            raise EngineSilent(silent_s)

    def _begin(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        call = self._threads.submit(function, *args, **kwargs)
        self._pending[call] = self._now()
        call.add_done_callback(self._end)
        return call

    def _end(self, call: Future[Any]) -> None:
        self.silent_for()  # before this one counts no more
        self._pending.pop(call, None)
        if not call.cancelled() and not isinstance(call.exception(), self._unanswered):
            self._answered, self._since = self._now(), None


class Patient:
    """A store for who can't begin without what is in it: it is waited for where nobody answers. Implements ``Store``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.put, self.delete, self.keys = store.put, store.delete, store.keys

    async def get(self, key: str) -> bytes | None:
        """The value, or None; when somebody answers."""
        while True:
            try:
                return await self._store.get(key)
            except EngineSilent:
                await asyncio.sleep(LOOK_S)


def _heard(answer: asyncio.Future[Any]) -> None:
    """What comes of a call that nobody waits for any more is no error of anybody."""
    if not answer.cancelled():
        answer.exception()
