"""Spans of whole requests, as a collector gets them: proxy, replica and handle over real sockets."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import websockets
from fastapi import APIRouter, FastAPI, HTTPException, Request, WebSocket
from otlp_collector import Collector
from traced_stack import TracedStack, in_loop, traced_stack

from serveconf.local_ray import free_port
from serveconf.routing import Tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"


class Model:
    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def __call__(self) -> None:
        """Nothing is asked of it over HTTP."""

    async def double(self, value: int) -> int:
        return value * 2

    async def fail(self) -> None:
        raise LookupError("no such thing")

    async def wait(self) -> str:
        await self.gate.wait()
        return "done"


def shop(stack: TracedStack, gate: asyncio.Event | None = None) -> FastAPI:
    app = FastAPI()
    inner = APIRouter(prefix="/v2")
    model = stack.handle("model")

    @app.get("/items/{item_id}")
    async def item(item_id: int) -> int:
        result: int = await model.double.remote(item_id)
        return result

    @app.get("/fails")
    async def fails() -> None:
        await model.fail.remote()

    @inner.get("/orders/{order_id}")
    async def order(order_id: str, request: Request) -> dict[str, Any]:
        return {"headers": dict(request.headers), "state": dict(request.state._state)}

    @inner.get("/gone")
    async def gone() -> None:
        raise HTTPException(410)

    @app.get("/slow")
    async def slow() -> str:
        if gate is not None:
            await gate.wait()
        return "slow"

    @app.websocket("/chat/{room}")
    async def chat(websocket: WebSocket, room: str) -> None:
        await websocket.accept()
        value = int(await websocket.receive_text())
        await websocket.send_text(str(await model.double.remote(value)))
        await websocket.close()

    app.include_router(inner)
    return app


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def service(name: str, kind: str = "server") -> Any:
    return lambda span: span["resource"]["service.name"] == name and span["kind"] == kind


@in_loop
async def test_the_spans_of_one_request_through_proxy_replica_and_handle_form_one_chain(collector: Collector) -> None:
    async with traced_stack() as (stack, client):
        await stack.replica("model", Model)
        await stack.replica("shop", shop(stack))
        await stack.serve(Tracing(endpoint=collector.endpoint))
        answer = await client.get("/shop/items/21?token=secret", headers={"user-agent": "test"})
        assert answer.json() == 42
        spans = await asyncio.to_thread(collector.wait_for, 4)
    proxy, replica = collector.find(service("serveconf-proxy")), collector.find(service("shop"))
    call, called = collector.find(service("shop", "client")), collector.find(service("model"))
    assert {span["trace"] for span in spans} == {proxy["trace"]}
    assert [proxy["parent"], replica["parent"], call["parent"], called["parent"]] == [
        "",
        proxy["id"],
        replica["id"],
        call["id"],
    ]
    assert [span["name"] for span in (proxy, replica, call, called)] == [
        "GET /shop",
        "GET /shop/items/{item_id}",
        "model/double",
        "model/double",
    ]
    assert proxy["attributes"] == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/shop",
        "url.scheme": "http",
        "url.path": "/shop/items/21",
        "server.address": "127.0.0.1",
        "server.port": stack.port,
        "client.address": "127.0.0.1",
        "user_agent.original": "test",
        "network.protocol.version": "1.1",
        "serveconf.request_id": answer.headers["x-request-id"],
        "serveconf.stack": "s",
        "serveconf.deployment": "shop",
        "serveconf.replica": "shop#1",
    }
    assert replica["attributes"]["http.route"] == "/shop/items/{item_id}"
    assert replica["attributes"]["http.response.status_code"] == 200
    assert called["attributes"] == {"rpc.system.name": "serveconf", "rpc.method": "model/double"}
    assert replica["resource"]["service.namespace"] == "s"
    assert replica["resource"]["telemetry.sdk.name"] == "opentelemetry"
    assert proxy["ns"] >= replica["ns"] >= call["ns"] >= called["ns"] > 0
    assert collector.paths == {"/v1/traces"}
    assert "secret" not in str(spans)


@in_loop
async def test_a_websocket_s_spans_form_a_chain_too(collector: Collector) -> None:
    async with traced_stack() as (stack, _):
        await stack.replica("model", Model)
        await stack.replica("shop", shop(stack))
        await stack.serve(Tracing(endpoint=collector.endpoint))
        async with websockets.connect(f"ws://127.0.0.1:{stack.port}/shop/chat/42", proxy=None) as ws:
            await ws.send("4")
            assert await ws.recv() == "8"
        await asyncio.to_thread(collector.wait_for, 4)
    proxy, replica = collector.find(service("serveconf-proxy")), collector.find(service("shop"))
    call, called = collector.find(service("shop", "client")), collector.find(service("model"))
    assert [replica["parent"], call["parent"], called["parent"]] == [proxy["id"], replica["id"], call["id"]]
    assert [proxy["name"], replica["name"]] == ["GET /shop", "GET /shop/chat/{room}"]
    assert proxy["attributes"]["http.response.status_code"] == replica["attributes"]["http.response.status_code"] == 101


@in_loop
async def test_a_parent_s_own_decision_counts_before_the_share(collector: Collector) -> None:
    async with traced_stack() as (stack, client):
        await stack.replica("shop", shop(stack))
        await stack.serve(Tracing(endpoint=collector.endpoint, sample=0.0))
        state = {"tracestate": "vendor=1", "baggage": "user=7"}
        await client.get("/shop/v2/orders/1")
        untouched = await client.get("/shop/v2/orders/2", headers={"traceparent": f"{PARENT}-00", **state})
        chained = await client.get("/shop/v2/orders/3", headers={"traceparent": f"{PARENT}-01", **state})
        await asyncio.to_thread(collector.wait_for, 2)
        await stack.serve(Tracing(endpoint=collector.endpoint, sample=1.0))
        await client.get("/shop/v2/orders/4", headers={"traceparent": f"{PARENT}-00"})
        await client.get("/shop/v2/gone")
        await asyncio.to_thread(collector.wait_for, 4)
    said = untouched.json()["headers"]
    assert [said["traceparent"], said["tracestate"], said["baggage"]] == [f"{PARENT}-00", "vendor=1", "user=7"]
    first = collector.spans[:2]
    proxy, replica = sorted(first, key=lambda span: span["parent"] != "b7ad6b7169203331")
    assert {span["trace"] for span in first} == {"0af7651916cd43dd8448eb211c80319c"}
    assert proxy["parent"] == "b7ad6b7169203331" and replica["parent"] == proxy["id"]
    assert proxy["state"] == replica["state"] == "vendor=1"
    said = chained.json()["headers"]
    assert said["traceparent"] == f"00-{replica['trace']}-{replica['id']}-01"  # what the app calls hangs below it
    assert [said["tracestate"], said["baggage"]] == ["vendor=1", "user=7"]
    assert chained.json()["state"] == {}
    assert {span["attributes"]["url.path"] for span in collector.spans[2:]} == {"/shop/v2/gone"}


@in_loop
async def test_of_many_requests_the_share_is_traced_whole(collector: Collector) -> None:
    async with traced_stack() as (stack, client):
        await stack.replica("shop", shop(stack))
        await stack.serve(Tracing(endpoint=collector.endpoint, sample=0.2))
        for _ in range(400):
            assert (await client.get("/shop/v2/orders/1")).status_code == 200
    count = len(collector.spans)  # what was there at the end went out
    proxies = [span for span in collector.spans if service("serveconf-proxy")(span)]
    replicas = [span for span in collector.spans if service("shop")(span)]
    assert 2 * len(proxies) == 2 * len(replicas) == count
    assert {span["id"] for span in proxies} == {span["parent"] for span in replicas}
    assert 30 <= len(proxies) <= 140


@in_loop
async def test_a_wait_in_line_is_an_event_of_the_proxy_s_span(collector: Collector) -> None:
    gate = asyncio.Event()
    async with traced_stack() as (stack, client):
        await stack.replica("shop", shop(stack, gate))
        await stack.serve(Tracing(endpoint=collector.endpoint), max_ongoing_requests=1)
        first = asyncio.create_task(client.get("/shop/slow"))
        while not stack.app.figures().deployments["s/shop"].active:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(client.get("/shop/v2/gone"))
        while not stack.app.figures().deployments["s/shop"].queued:
            await asyncio.sleep(0.01)
        gate.set()
        await asyncio.gather(first, second)
        await asyncio.to_thread(collector.wait_for, 4)
    waited = collector.find(lambda s: service("serveconf-proxy")(s) and s["attributes"]["url.path"] == "/shop/v2/gone")
    other = collector.find(lambda s: service("serveconf-proxy")(s) and s["attributes"]["url.path"] == "/shop/slow")
    assert 0 < waited["events"]["queued"]["serveconf.queue.duration"] <= waited["ns"] / 1e9
    assert other["events"] == {}


@in_loop
async def test_what_failed_is_said_and_no_name_comes_from_a_client(collector: Collector) -> None:
    async with traced_stack() as (stack, client):
        await stack.replica("model", Model)
        await stack.replica("shop", shop(stack))
        await stack.serve(Tracing(endpoint=collector.endpoint))
        assert (await client.get("/shop/fails")).status_code == 500
        assert (await client.request("PROPFIND", "/shop/v2/gone")).status_code == 405
        assert (await client.get("/shop/nothing/here")).status_code == 404
        assert (await client.get("/nowhere/12345")).status_code == 404
        assert (await client.get("/-/healthz")).status_code == 200
        await asyncio.to_thread(collector.wait_for, 9)
    names = sorted((span["resource"]["service.name"], span["name"]) for span in collector.spans)
    assert names == [
        ("model", "model/fail"),
        ("serveconf-proxy", "GET"),
        ("serveconf-proxy", "GET /shop"),
        ("serveconf-proxy", "GET /shop"),
        ("serveconf-proxy", "HTTP /shop"),
        ("shop", "GET"),
        ("shop", "GET /shop/fails"),
        ("shop", "HTTP /shop/v2/gone"),
        ("shop", "model/fail"),
    ]
    called = collector.find(service("model"))
    assert called["failed"] and called["attributes"]["error.type"] == "LookupError"
    replica = collector.find(lambda span: span["name"] == "GET /shop/fails")
    assert replica["failed"] and replica["attributes"]["http.response.status_code"] == 500
    brewed = collector.find(lambda span: span["name"] == "HTTP /shop")
    assert brewed["attributes"]["http.request.method"] == "_OTHER"
    assert brewed["attributes"]["http.request.method_original"] == "PROPFIND"
    assert not brewed["failed"]
    unrouted = collector.find(lambda span: span["name"] == "GET" and service("serveconf-proxy")(span))
    assert unrouted["attributes"]["serveconf.reason"] == "no_route"


@in_loop
async def test_spans_of_the_app_s_own_hang_in_the_chain(collector: Collector) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("mine")
    seen: list[Any] = []

    async with traced_stack() as (stack, client):
        app, model = FastAPI(), stack.handle("model")

        @app.get("/")
        async def mine() -> int:
            with tracer.start_as_current_span("mine") as span:
                seen.append(span)
                result: int = await model.double.remote(1)
                return result

        await stack.replica("model", Model)
        await stack.replica("app", app)
        await stack.serve(Tracing(endpoint=collector.endpoint))
        assert (await client.get("/app")).json() == 2
        await asyncio.to_thread(collector.wait_for, 4)
    replica, call = collector.find(service("app")), collector.find(service("app", "client"))
    assert trace.format_span_id(seen[0].parent.span_id) == replica["id"]
    assert trace.format_trace_id(seen[0].context.trace_id) == replica["trace"]
    assert call["parent"] == trace.format_span_id(seen[0].context.span_id)


@in_loop
async def test_tracing_changes_on_a_proxy_that_runs(collector: Collector) -> None:
    other = Collector()
    try:
        async with traced_stack() as (stack, client):
            await stack.replica("shop", shop(stack))
            await stack.serve(None)
            await client.get("/shop/v2/gone?a")
            await stack.serve(Tracing(endpoint=collector.endpoint))
            await client.get("/shop/v2/gone?b")
            await stack.serve(Tracing(endpoint=f"{other.endpoint}/v1/traces"))
            await client.get("/shop/v2/gone?c")
            await asyncio.to_thread(other.wait_for, 2)
            await stack.serve(None)
            await client.get("/shop/v2/gone?d")
            await asyncio.to_thread(collector.wait_for, 2)
        assert len(collector.spans) == len(other.spans) == 2
    finally:
        other.close()


@in_loop
async def test_a_collector_that_is_away_costs_no_request_and_holds_up_no_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    deaf = socket.create_server(("127.0.0.1", 0))  # takes connections and never answers
    for endpoint in (f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{deaf.getsockname()[1]}"):
        async with traced_stack() as (stack, client):
            await stack.replica("shop", shop(stack))
            await stack.serve(Tracing(endpoint=endpoint))
            for _ in range(300):
                assert (await client.get("/shop/v2/gone")).status_code == 410
            async with asyncio.timeout(120):
                await stack.server.drain(0)
                for outlet in stack.outlets:
                    await asyncio.to_thread(outlet.close, 0.1)
    deaf.close()
    assert len([r for r in caplog.records if r.name.startswith("opentelemetry")]) <= 4


def test_without_tracing_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys, serveconf.cluster.proxy, serveconf.cluster.replica; from serveconf.proxy.edge import Edge; Edge();"
        "print([m for m in sys.modules if m.startswith('opentelemetry.sdk') or m.startswith('opentelemetry.exporter')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
