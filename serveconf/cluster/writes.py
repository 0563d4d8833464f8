"""What this replica's app is seen to write goes to the store: its data, below app_dir, for whoever takes the next snapshot;
and what it writes beside its modules, for whoever looks for that later."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from serveconf.errors import ServeconfError
from serveconf.ingress.written import Written, forget, is_cache, is_code, watch_writes
from serveconf.reconcile.data import Beside, add_beside, add_data
from serveconf.reconcile.ports import Store

TOGETHER_S = 0.1  # paths that come within are told at once
AGAIN_S = 2.0


def report_writes(store: Store, stack: str, *, app_dir: str | None, code: Path | None) -> list[asyncio.Task[None]]:
    """From now on what this process writes below either folder is told to the store; on the loop that this is called on."""

    async def beside(paths: set[str]) -> None:
        node = socket.gethostname()
        await add_beside(store, stack, [Beside(node=node, folder=str(code), path=path) for path in paths])

    tasks = []
    if app_dir:
        tasks.append(_watched(app_dir, is_code, lambda paths: add_data(store, stack, paths)))
    if code is not None:
        tasks.append(_watched(str(code), is_cache, beside))
    return tasks


def _watched(
    folder: str, left_out: Callable[[str], bool], tell: Callable[[set[str]], Awaitable[None]]
) -> asyncio.Task[None]:
    loop, news = asyncio.get_running_loop(), asyncio.Event()
    written = watch_writes(folder, lambda: loop.call_soon_threadsafe(news.set), left_out=left_out)
    return loop.create_task(_report(written, news, tell), name=f"written below {folder}")


async def _report(written: Written, news: asyncio.Event, tell: Callable[[set[str]], Awaitable[None]]) -> None:
    try:
        while True:
            await news.wait()
            await asyncio.sleep(TOGETHER_S)
            news.clear()
            try:
                await tell(set(written.paths))
            except ServeconfError:  # the store is away just now
                await asyncio.sleep(AGAIN_S)
                news.set()
    finally:
        forget(written)
