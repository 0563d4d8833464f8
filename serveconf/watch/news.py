"""A bell that can be rung from any thread, and waited for with the count that was heard last, so that no ring is lost."""

from __future__ import annotations

import asyncio


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
