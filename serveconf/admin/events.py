"""``/api/v1/events``: the log of events over HTTP, as a list, or followed as one JSON object a line; watchers add theirs."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import StreamingResponse

from serveconf.admin.guard import Calling
from serveconf.admin.models import EventModel, WatchedBody
from serveconf.reconcile.events import EventLog
from serveconf.reconcile.journal import EventKind

NDJSON = "application/x-ndjson"

Since = Annotated[datetime.datetime | None, Query(description="Only what happened at or after this time (ISO 8601).")]
OfStack = Annotated[str | None, Query(description="Only events of this stack.")]
OfWhich = Annotated[str, Path(description="Name of the stack.", max_length=200)]
Follow = Annotated[bool, Query(description="Go on with what happens, one JSON object a line.")]


def events_router(events: EventLog) -> APIRouter:
    """To read it, and for watchers to write to it."""
    router = APIRouter(tags=["look"])

    @router.get(
        "/events",
        response_model=list[EventModel],
        responses={200: {"content": {NDJSON: {}}, "description": "The oldest first; with follow one a line."}},
    )
    async def look(stack: OfStack = None, since: Since = None, follow: Follow = False) -> Response:
        """What was done, and what the system did by itself, with why. An event that repeats comes again, counted up."""
        begin = _seconds(since)
        if follow:
            return StreamingResponse(_lines(events, stack, begin), media_type=NDJSON)
        found = [event.as_json() for event in events.recent(stack=stack, since=begin)]
        return Response(msgspec.json.encode(found), media_type="application/json")

    @router.post("/stacks/{stack}/events", status_code=204, tags=["change"])
    async def tell(stack: OfWhich, body: WatchedBody, caller: Calling) -> None:
        """What a watcher has seen or done: it lives outside, and who asks later should find it here."""
        data = {**caller.told(), **body.data, "token": caller.token}
        events.note(kind=EventKind(body.kind), stack=stack, message=body.message, data=data)

    return router


def _seconds(since: datetime.datetime | None) -> float:
    """Since the epoch. A time that does not say where it holds is UTC, as those that we print."""
    if since is None:
        return 0.0
    return (since if since.tzinfo else since.replace(tzinfo=datetime.UTC)).timestamp()


async def _lines(events: EventLog, stack: str | None, since: float) -> AsyncIterator[bytes]:
    async for event in events.follow(stack=stack, since=since):
        told: dict[str, Any] = event.as_json()
        yield msgspec.json.encode(told) + b"\n"
