"""What processes write, over HTTP: of a deployment's replicas, the proxies, the controller; one JSON object a line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse

from serveconf.reconcile.control import ControlPlane
from serveconf.reconcile.events import EventLog
from serveconf.reconcile.logs import check_deployment, read_previous

NDJSON = "application/x-ndjson"
LINES: dict[int | str, dict[str, Any]] = {
    200: {"content": {NDJSON: {}}, "description": "Lines, one JSON object a line."}
}

Stack = Annotated[str, Path(description="Name of the stack.")]
Tail = Annotated[int, Query(ge=0, le=100_000, description="Lines of each process to begin with.")]
Follow = Annotated[bool, Query(description="Go on with what is written.")]
Previous = Annotated[bool, Query(description="Of the replica that died last instead.")]


def logs_router(plane: ControlPlane, events: EventLog | None) -> APIRouter:
    """``{"replica" or "process", "time", "line"}``; ``time`` is null where no line has said one yet."""
    router = APIRouter(tags=["look"])

    @router.get("/stacks/{stack}/deployments/{deployment}/logs", response_class=StreamingResponse, responses=LINES)
    async def logs(
        stack: Stack, deployment: str, tail: Tail = 100, follow: Follow = False, previous: Previous = False
    ) -> StreamingResponse:
        """What the replicas of a deployment write, merged by the times that the lines say."""
        check_deployment(plane.ledger, stack, deployment)
        if previous:
            return await _begun(read_previous(plane.cluster, events, stack, deployment, tail=tail))
        return _lines(plane.logs(stack, deployment, tail=tail, follow=follow))

    @router.get("/logs/proxies", response_class=StreamingResponse, responses=LINES)
    async def proxies(tail: Tail = 100, follow: Follow = False) -> StreamingResponse:
        """What the proxies write: their own lines and, where it is on, the access log."""
        return _lines(plane.proxy_logs(tail=tail, follow=follow))

    @router.get("/logs/controller", response_class=StreamingResponse, responses=LINES)
    async def controller(tail: Tail = 100, follow: Follow = False) -> StreamingResponse:
        """What the controller writes."""
        return _lines(plane.controller_log(tail=tail, follow=follow))

    return router


def _lines(rows: AsyncIterator[dict[str, Any]]) -> StreamingResponse:
    return StreamingResponse(_encoded(rows), media_type=NDJSON)


async def _begun(rows: AsyncIterator[dict[str, Any]]) -> StreamingResponse:
    """What can't be read is an answer of its own, not one that breaks off."""
    found = [row async for row in rows]
    return StreamingResponse((msgspec.json.encode(row) + b"\n" for row in found), media_type=NDJSON)


async def _encoded(rows: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    async for row in rows:
        yield msgspec.json.encode(row) + b"\n"
