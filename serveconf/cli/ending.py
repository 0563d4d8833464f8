"""Commands that run until they are told to end: SIGINT, SIGTERM and SIGHUP end them with 0, once, whatever they are at.

While something must not be interrupted (what was started is being stopped) the signals are only noted.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

SAME_S = (
    1.0  # a signal so soon after the first is the same wish: a terminal, a wrapper and a supervisor may all send theirs
)
INSIST_S = 0.1
ENDS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


class Ending:
    """A context manager: inside of it the signals raise KeyboardInterrupt, or cancel what ``until_told`` runs."""

    def __init__(self, on_held: Callable[[], None] = lambda: None) -> None:
        """``on_held`` is called for each signal that comes while it is held off."""
        self.told = False
        self._on_held = on_held
        self._held = 0
        self._first = 0.0
        self._cancel: Callable[[], object] | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._insisting: _Insisting | None = None

    def __enter__(self) -> Ending:
        self._insisting = _Insisting()
        for number in ENDS:
            before = signal.getsignal(number)
            # nohup means it: who says so wants to outlive the terminal
            if not (number is getattr(signal, "SIGHUP", None) and before is signal.SIG_IGN):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._insisting is not None:
            self._insisting.end()
        for number, before in self._before.items():
            signal.signal(number, before)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Signals are only noted in here."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def until_told(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """Run it on an event loop of its own; None where a signal has ended it."""

        async def main() -> T:
            loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work())
            self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
            if self.told:
                task.cancel()
            return await task

        try:
            return asyncio.run(main())
        except (asyncio.CancelledError, KeyboardInterrupt):
            if not self.told:
                raise
            return None
        finally:
            self._cancel = None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        again, self.told = self.told, True
        if self._insisting is not None:
            self._insisting.heard_at = time.monotonic()
        if not again:
            self._first = time.monotonic()
        if again and time.monotonic() - self._first < SAME_S:
            return
        if self._held or (again and self._cancel is not None):
            self._on_held()
        elif self._cancel is not None:
            self._cancel()
        else:
            raise KeyboardInterrupt


class _Insisting:
    """Sees to it that a signal is heard: one that comes just before the main thread begins to wait for something would be
    heard only when that is over, as Python looks for signals between its own steps."""

    def __init__(self) -> None:
        self.heard_at = 0.0
        self._main = threading.main_thread().ident or 0
        self._ended = False
        self._lock = threading.Lock()
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        threading.Thread(target=self._run, name="signals", daemon=True).start()

    def end(self) -> None:
        """The signals are somebody else's from here on."""
        with self._lock:
            self._ended = True
        signal.set_wakeup_fd(self._before)
        os.close(self._write)

    def _run(self) -> None:
        while number := os.read(self._read, 1):
            came = time.monotonic()
            time.sleep(INSIST_S)
            with self._lock:
                if not self._ended and self.heard_at < came - INSIST_S and number[0] in ENDS:
                    signal.pthread_kill(self._main, number[0])
        os.close(self._read)
