"""What served code finds in its process: its package, the place it stands in, its log, and those that it can call.

What its app is seen to write goes to the store: its data, below app_dir, for whoever takes the next snapshot; and what it writes
beside its modules, for whoever looks for that later.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from serveconf.errors import ServeconfError
from serveconf.handles.following import Following
from serveconf.handles.handle import install_caller
from serveconf.ingress.written import Written, forget, is_cache, is_code, watch_writes
from serveconf.proxy.pool import ReplicaPool
from serveconf.reconcile.data import Beside, add_beside, add_data
from serveconf.reconcile.packages import Packages
from serveconf.reconcile.ports import ReplicaOrder, Store
from serveconf.routing import CALLERS, beginning_key
from serveconf.runtime.log_lines import set_up_logging

TOGETHER_S = 0.1  # paths that come within are told at once
AGAIN_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What a process has once, however many replicas are in it."""

    code: Path | None  # where the code package lies
    following: Following  # of the calls that its code makes by handle
    writes: list[asyncio.Task[None]]  # tells what is written below app_dir


async def enter(
    order: ReplicaOrder,
    store: Store,
    packages: Packages,
    pool: ReplicaPool,
    names: Callable[[], Mapping[str, str]],
    *,
    process: str,
) -> Ground:
    """Make this process, which the controller knows by its name, one that the order's code can run in."""
    deployment = order.deployment
    code = await packages.folder(deployment.code) if deployment.code else None
    _enter(deployment.app_dir, code)
    writes = report_writes(store, order.stack, app_dir=deployment.app_dir, code=code)
    set_up_logging(deployment.spec.get("logging"), names)
    following = Following(
        pool,
        lambda: store.get("generation"),
        lambda stack: store.get(beginning_key(stack)),
        join=lambda: store.put(CALLERS + process, b""),
    )
    install_caller(following.caller)
    return Ground(code=code, following=following, writes=writes)


def _enter(app_dir: str | None, code: Path | None) -> None:
    """Stand where the app expects to: in app_dir where this node has it, else in the package; with no arguments of Ray's."""
    place = app_dir if app_dir and Path(app_dir).is_dir() else code
    if place is not None:
        os.chdir(place)
    sys.argv = ["serveconf"]


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
