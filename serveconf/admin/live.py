"""``GET /api/v1/live``: status and figures as server-sent events, once a second, and only what has changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse

from serveconf.admin import models
from serveconf.figures import BOUNDS
from serveconf.reconcile.curves import TICK_S
from serveconf.reconcile.pulse import Pulse
from serveconf.reconcile.records import Ledger

EVENT_STREAM = "text/event-stream"

ReadStatus = Callable[[], Awaitable[dict[str, Any]]]
Kept = Annotated[bool, Query(description="Begin with the kept curves, not with the newest point.")]
Stack = Annotated[str, Path(description="Name of the stack.")]
Deployment = Annotated[str, Path(description="Name of the deployment.")]


def live_router(pulse: Pulse, read_status: ReadStatus, ledger: Ledger) -> APIRouter:
    """The stream, and one deployment's figures."""
    router = APIRouter(tags=["look"])

    @router.get(
        "/live",
        response_class=StreamingResponse,
        responses={
            200: {"content": {EVENT_STREAM: {}}, "description": "Events ``status``, ``curves`` and ``points``."}
        },
    )
    async def live(kept: Kept = True) -> StreamingResponse:
        """Status and figures as they change.

        ``curves``: by ``stack/deployment`` the points of the last minutes, ``[requests/s, errors/s, p50 ms, p99 ms, active,
        queued]``; ``points``: the next one of each that is not idle; ``status``: as ``/status``, where it has changed.
        """
        return StreamingResponse(_stream(pulse, read_status, kept=kept), media_type=EVENT_STREAM)

    @router.get("/stacks/{stack}/deployments/{deployment}/figures")
    async def figures(stack: Stack, deployment: Deployment) -> models.FiguresModel:
        """How long a deployment's requests have taken in the last minutes, what it has answered, and what it offers."""
        key = f"{stack}/{deployment}"
        counted: dict[str, dict[str, int]] = {}
        for proxy in pulse.kept.proxies().values():
            found = proxy.deployments.get(key)
            for method, statuses in found.durations.items() if found else ():
                for status, histogram in statuses.items():
                    row = counted.setdefault(method, {})
                    row[str(status)] = row.get(str(status), 0) + histogram.count
        desired = ledger.current(stack)
        offered = [one.operations for one in desired.deployments if one.name == deployment] if desired else []
        return models.FiguresModel(
            bounds_s=list(BOUNDS),
            buckets=list(pulse.curves.buckets(key)),
            answers=counted,
            operations=[operation for operations in offered for operation in operations],
        )

    return router


async def _stream(pulse: Pulse, read_status: ReadStatus, *, kept: bool) -> AsyncIterator[bytes]:
    curves = pulse.curves
    status = msgspec.json.encode(await read_status())
    yield b"retry: 1000\n\n" + _event("status", status)
    if kept:
        yield _event("curves", msgspec.json.encode({"tick_s": TICK_S, "points": curves.points()}))
    while True:
        await pulse.next_beat()
        before, status = status, msgspec.json.encode(await read_status())
        if status != before:
            yield _event("status", status)
        yield _event("points", msgspec.json.encode(curves.newest()))


def _event(kind: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)
