"""Wait until files have settled, and give what they say then.

A lone save is believed after a short quiet, one of a burst after a longer one, and what does not even parse after one
longer still, as its writer is most likely not done: what it says then is still the same save. What never rests (an app or a
job that keeps writing a file) does not hold everything else up: it is named, and does not count until it has been quiet for
a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from serveconf.watch.look import Look

LONE_S = 0.1
BURST_S = 0.4
BROKEN_S = 0.6
BREATH_S = 0.05  # between two looks, however much news there is
LONGEST_S = 5.0  # a file that was written in each of so many seconds is restless
REST_S = 4.0  # quiet for so long, it counts again

Looking = Callable[[frozenset[str]], Awaitable[Look]]  # with the files that do not count just now


@dataclass
class Restless:
    """Files that keep changing: what they held at the last look, and when that was first seen (seconds of the loop)."""

    held: dict[str, tuple[str, float]] = field(default_factory=dict)

    @property
    def files(self) -> frozenset[str]:
        """Their names."""
        return frozenset(self.held)

    def add(self, files: frozenset[str], look: Look, now: float) -> None:
        """From now on they do not count."""
        self.held |= {file: (look.files.get(file, ""), now) for file in files}

    def seen(self, look: Look, now: float) -> bool:
        """Note what they hold now. True where one has been quiet for long enough, and counts again."""
        rested = []
        for file, (content, since) in list(self.held.items()):
            found = look.files.get(file, "")
            if found != content:
                self.held[file] = (found, now)
            elif now - since >= REST_S:
                rested.append(file)
        for file in rested:
            del self.held[file]
        return bool(rested)


async def settled(look: Looking, news: News, restless: Restless, known: str = "") -> tuple[Look, int, frozenset[str]]:
    """What the files say once they are quiet, the count of news it is good for, and those found restless just now.

    ``known``: the key of what they said before: where they still do, there is no save yet.
    """
    now = asyncio.get_running_loop().time
    heard = news.count
    found = await look(restless.files)
    if restless.seen(found, now()):
        found = await look(restless.files)
    began = changed = now()
    saves = int(found.key != known and not found.half_written)
    writes: dict[str, list[float]] = {}
    while (rest := changed + _quiet(found, saves) - now()) > 0:
        if now() - began > LONGEST_S:
            busy = frozenset(file for file, times in writes.items() if _never_rests(times, began, now()))
            if busy and found.snapshot is not None and not busy.isdisjoint(found.snapshot.files):
                restless.add(busy, found, now())
                return await look(restless.files), heard, busy
            if now() - began > 4 * LONGEST_S:  # the spec itself never rests: better a state of it than none
                return found, heard, frozenset()
        if await news.wait(heard, rest):
            await asyncio.sleep(BREATH_S)
        heard = news.count
        again = await look(restless.files)
        restless.seen(again, now())
        if again.key != found.key:
            for file in _differing(found, again):
                writes.setdefault(file, []).append(now())
            found, changed = again, now()
            saves += not again.half_written
    return found, heard, frozenset()


def _quiet(found: Look, saves: int) -> float:
    if found.half_written:
        return BROKEN_S
    return BURST_S if saves > 1 else LONE_S


def _never_rests(times: list[float], began: float, now: float) -> bool:
    """Whether it was written in nearly each second since it began."""
    return len({int(time - began) for time in times}) >= LONGEST_S - 1 and now - times[-1] < 1.0


def _differing(one: Look, other: Look) -> list[str]:
    names = one.files.keys() | other.files.keys()
    return [name for name in names if one.files.get(name) != other.files.get(name)]


class News:
    """``count`` grows with every ring. All but ``ring`` belongs to one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()
        self.count = 0

    def ring(self) -> None:
        """Something may have changed; from any thread, also when the loop has ended."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._count_up)

    async def wait(self, after: int, timeout: float | None) -> bool:
        """Until it has rung more than ``after`` times; False where ``timeout`` seconds have passed without."""
        try:
            async with asyncio.timeout(timeout):
                while self.count <= after:
                    await self._rung.wait()
        except TimeoutError:
            return False
        return True

    def _count_up(self) -> None:
        self.count += 1
        rung, self._rung = self._rung, asyncio.Event()
        rung.set()
