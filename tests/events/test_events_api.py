"""The log of events over HTTP: as a list, from a time on, of a stack, followed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI

from serveconf.admin.events import events_router
from serveconf.reconcile.events import EventLog
from serveconf.testing import ManualClock, MemoryStore

pytestmark = pytest.mark.anyio

START = "2023-11-14T22:13:20"


class Api:
    """The log, its clock, and a client of its API."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log = EventLog(MemoryStore(), self.clock)
        self.app = FastAPI()
        self.app.include_router(events_router(self.log), prefix="/api/v1")
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://controller")

    async def messages(self, **params: str) -> list[str]:
        answer = await self.http.get("/api/v1/events", params=params)
        assert answer.status_code == 200, answer.text
        return [event["message"] for event in answer.json()]


@pytest.fixture
def api() -> Api:
    api = Api()
    api.log.note(kind="apply", stack="shop", message="one")
    api.clock.advance(60)
    api.log.note(kind="node", message="two", data={"node": "n1"})
    api.clock.advance(60)
    api.log.note(kind="heal", stack="blog", deployment="web", message="three")
    return api


async def test_the_events_are_a_list_in_the_contracts_shape(api: Api) -> None:
    found = (await api.http.get("/api/v1/events")).json()
    assert [event["message"] for event in found] == ["one", "two", "three"]
    assert found[1] == {
        "time": f"{START[:-5]}14:20.000+00:00",
        "kind": "node",
        "stack": None,
        "deployment": None,
        "message": "two",
        "data": {"node": "n1"},
        "count": 1,
    }


async def test_they_are_asked_for_by_stack_and_from_a_time_on(api: Api) -> None:
    assert await api.messages(stack="shop") == ["one"]
    assert await api.messages(since=f"{START}Z") == ["one", "two", "three"]
    assert await api.messages(since=f"{START[:-5]}14:20") == ["two", "three"]  # no zone: UTC
    assert await api.messages(since="2023-11-14T23:15:00+01:00") == ["three"]
    assert (await api.http.get("/api/v1/events", params={"since": "yesterday"})).status_code == 422


async def test_a_follower_hears_what_was_and_what_comes_one_json_object_a_line(api: Api) -> None:
    lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    task = asyncio.create_task(_ask(api.app, lines.put_nowait))
    assert [(await lines.get())["message"] for _ in range(3)] == ["one", "two", "three"]
    api.log.note(kind="heal", stack="blog", deployment="web", message="three")
    again = await lines.get()
    assert (again["message"], again["count"]) == ("three", 2)
    task.cancel()


async def test_a_watcher_adds_what_it_has_seen_and_nothing_else(api: Api) -> None:
    told = {"kind": "drift", "message": "revision 2 serves instead", "data": {"author": "a@b"}}
    answer = await api.http.post("/api/v1/stacks/shop/events", json=told)
    assert answer.status_code == 204, answer.text
    event = (await api.http.get("/api/v1/events", params={"stack": "shop"})).json()[-1]
    assert (event["kind"], event["message"], event["data"]) == (
        "drift",
        told["message"],
        {"author": "a@b", "token": ""},
    )
    for wrong in ({"kind": "apply"}, {"message": ""}, {"message": "x" * 2_001}, {"stack": "other"}):
        assert (await api.http.post("/api/v1/stacks/shop/events", json={**told, **wrong})).status_code == 422


async def _ask(app: Callable[..., Awaitable[None]], take: Callable[[dict[str, Any]], None]) -> None:
    """A GET with follow=true; httpx's transport for apps would wait for its end."""
    forever: asyncio.Event = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await forever.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        for line in message.get("body", b"").splitlines():
            take(msgspec.json.decode(line))

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/api/v1/events",
        "root_path": "",
        "query_string": b"follow=true",
        "headers": [],
        "scheme": "http",
        "server": ("a", 80),
        "client": ("b", 1),
    }
    await app(scope, receive, send)
