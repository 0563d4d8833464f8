"""What served code finds in its process: its package, the place it stands in, its log, and those that it can call."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from serveconf.cluster.writes import report_writes
from serveconf.handles.following import Following
from serveconf.handles.handle import install_caller
from serveconf.proxy.pool import ReplicaPool
from serveconf.reconcile.packages import Packages
from serveconf.reconcile.ports import ReplicaOrder, Store
from serveconf.routing import CALLERS, beginning_key
from serveconf.runtime.log_lines import set_up_logging


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
