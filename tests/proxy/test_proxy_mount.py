"""What is open on a route that no generation names any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serveconf.proxy.call import ResponseCut
from serveconf.proxy.mount import Mount
from serveconf.routing import Route

Message = dict[str, Any]


def mounted(app: Any, *, drain_s: float) -> Mount:
    route = Route(prefix="/a", stack="s", deployment="a", graceful_shutdown_timeout_s=drain_s)
    mount = Mount(route, app, None, lambda freed: None)
    mount.generations.add(1)
    return mount


async def nothing() -> Message:
    await asyncio.Event().wait()
    return {}


def test_a_stream_of_a_changed_route_is_cut_when_its_time_is_over() -> None:
    async def run() -> list[str]:
        sent: list[str] = []
        begun = asyncio.Event()

        async def endless(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                begun.set()
                await asyncio.sleep(0.01)

        async def send(message: Message) -> None:
            sent.append(message["type"])

        mount = mounted(endless, drain_s=0.05)
        request = asyncio.ensure_future(mount.serve({"type": "http"}, nothing, send))
        await begun.wait()
        mount.let_go(1)
        with pytest.raises(ResponseCut):
            await asyncio.wait_for(request, 120)
        return sent

    assert asyncio.run(run()).count("http.response.body") >= 1


def test_a_websocket_of_a_changed_route_is_told_to_come_again_and_one_that_is_served_again_stays() -> None:
    async def run(*, again: bool) -> Message | None:
        closed: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        entered = asyncio.Event()

        async def waiting(scope: Any, receive: Any, send: Any) -> None:
            entered.set()
            await asyncio.wait([closed], timeout=0.3)

        async def send(message: Message) -> None:
            closed.set_result(message)

        mount = mounted(waiting, drain_s=0.05)
        socket = asyncio.ensure_future(mount.serve({"type": "websocket"}, nothing, send))
        await entered.wait()
        mount.let_go(1)
        if again:
            mount.hold(2)
        await socket
        return closed.result() if closed.done() else None

    assert asyncio.run(run(again=False)) == {"type": "websocket.close", "code": 1012}
    assert asyncio.run(run(again=True)) is None
