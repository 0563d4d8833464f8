"""What this replica's app is seen to write below app_dir goes to the store, for whoever takes the next snapshot."""

from __future__ import annotations

import asyncio

from serveconf.errors import ServeconfError
from serveconf.ingress.written import Written, forget, watch_writes
from serveconf.reconcile.data import add_data
from serveconf.reconcile.ports import Store

TOGETHER_S = 0.1  # paths that come within are told at once
AGAIN_S = 2.0


def report_writes(store: Store, stack: str, app_dir: str | None) -> asyncio.Task[None] | None:
    """From now on what this process writes below app_dir is told to the store; on the loop that this is called on."""
    if not app_dir:
        return None
    loop, news = asyncio.get_running_loop(), asyncio.Event()
    written = watch_writes(app_dir, lambda: loop.call_soon_threadsafe(news.set))
    return loop.create_task(_report(store, stack, written, news), name="written")


async def _report(store: Store, stack: str, written: Written, news: asyncio.Event) -> None:
    try:
        while True:
            await news.wait()
            await asyncio.sleep(TOGETHER_S)
            news.clear()
            try:
                await add_data(store, stack, set(written.paths))
            except ServeconfError:  # the store is away just now
                await asyncio.sleep(AGAIN_S)
                news.set()
    finally:
        forget(written)
