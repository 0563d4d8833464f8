"""Time that is turned by hand, a store that ends with the test, and a preflight that says what it was told to say."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from serveconf.reconcile.ports import Question, TargetReport


class ManualClock:
    """Time that stands still until ``advance``; ``set_wall`` sets the clock on the wall, as an administrator or NTP does."""

    def __init__(self) -> None:
        self._now = 0.0
        self._ahead = 0.0

    def now(self) -> float:
        """Seconds since it was made."""
        return self._now

    def wall(self) -> float:
        """Seconds since the epoch, beginning somewhere."""
        return 1_700_000_000.0 + self._now + self._ahead

    async def sleep(self, seconds: float) -> None:
        """Whoever sleeps moves the time himself."""
        self._now += seconds
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        """Move the time."""
        self._now += seconds

    def set_wall(self, seconds: float) -> None:
        """Put the clock on the wall forward, or back; no time goes by."""
        self._ahead += seconds


class MemoryStore:
    """A store that ends with the test. Every call yields, so that what runs beside comes in between, as with a real one."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""
        await asyncio.sleep(0)
        return self.values.get(key)

    async def put(self, key: str, value: bytes) -> None:
        """Write the value."""
        await asyncio.sleep(0)
        self.values[key] = value

    async def delete(self, key: str) -> None:
        """Forget the key."""
        await asyncio.sleep(0)
        self.values.pop(key, None)

    async def keys(self, prefix: str) -> list[str]:
        """All keys that start so."""
        await asyncio.sleep(0)
        return sorted(key for key in self.values if key.startswith(prefix))


class FakePreflight:
    """Says of every target what it was told to say; by default that it is an ASGI app of one module."""

    def __init__(self, reports: Mapping[str, TargetReport] | None = None) -> None:
        self.reports = dict(reports or {})
        self.asked: list[str] = []

    async def inspect(self, question: Question) -> tuple[list[TargetReport], list[TargetReport]]:
        """What it was told."""
        paths = [target["import_path"] for target in question.targets]
        checked = [middleware["import_path"] for middleware in question.middlewares]
        self.asked += paths
        return [self._report(path) for path in paths], [self._report(path) for path in checked]

    def _report(self, path: str) -> TargetReport:
        module = path.partition(":")[0].replace(".", "/") + ".py"
        return self.reports.get(path, TargetReport(ok=True, kind="asgi", modules=(module,)))
