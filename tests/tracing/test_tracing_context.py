"""The W3C headers, and the templates of routes."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Host, Mount, Route, WebSocketRoute

from serveconf.ingress.operations import Templates
from serveconf.tracing import Kind, Outlet, chained, new_span, parent_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def headers(*said: str) -> list[tuple[bytes, bytes]]:
    return [(b"traceparent", value.encode()) for value in said]


@pytest.mark.parametrize(
    ("said", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be", True),
    ],
)
def test_a_parent_is_read(said: str, sampled: bool) -> None:
    parent = parent_of([(b"host", b"a"), *headers(said), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")])
    assert parent is not None
    assert parent == (int(TRACE, 16), int(SPAN, 16), "a=1,b=2", sampled)


@pytest.mark.parametrize(
    "said",
    [
        (),
        ("",),
        (f"ff-{TRACE}-{SPAN}-01",),
        (f"00-{TRACE}-{SPAN}-01-more",),
        (f"00-{TRACE.upper()}-{SPAN}-01",),
        (f"00-{'0' * 32}-{SPAN}-01",),
        (f"00-{TRACE}-{'0' * 16}-01",),
        (f"00-{TRACE}-{SPAN}",),
        (f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01"),
    ],
)
def test_what_is_no_parent_begins_a_trace_of_its_own(said: tuple[str, ...]) -> None:
    assert parent_of(headers(*said)) is None


def test_the_state_of_a_trace_goes_on_with_it_and_ends_with_it() -> None:
    came = [(b"host", b"a"), *headers(f"00-{TRACE}-{SPAN}-01"), (b"tracestate", b"a=1"), (b"baggage", b"u=1")]
    parent = parent_of(came)
    assert parent is not None
    within = new_span("n", Kind.SERVER, Outlet(), parent[:3])
    assert chained(came, within) == [
        (b"host", b"a"),
        (b"tracestate", b"a=1"),
        (b"baggage", b"u=1"),
        (b"traceparent", f"00-{TRACE}-{within.span_id:016x}-01".encode()),
    ]
    fresh = new_span("n", Kind.SERVER, Outlet(), None)
    assert [name for name, _ in chained(came, fresh)] == [b"host", b"baggage", b"traceparent"]


async def end(*_: Any) -> Response:
    return Response()


def fastapi_app() -> FastAPI:
    app, inner, outer = FastAPI(), APIRouter(prefix="/in"), APIRouter(prefix="/out")
    app.get("/items/new")(end)
    app.get("/items/{item_id:int}")(end)
    app.post("/items/{item_id}")(end)
    inner.get("/x/{y}")(end)
    outer.include_router(inner)
    app.include_router(outer, prefix="/v1")
    app.mount("/admin/{tenant}", Starlette(routes=[Route("/users/{user}", end)]))
    app.websocket("/ws/{room}")(end)
    return app


@pytest.mark.parametrize(
    ("method", "path", "template"),
    [
        ("GET", "/items/new", "/items/new"),
        ("GET", "/items/7", "/items/{item_id}"),
        ("POST", "/items/new", "/items/{item_id}"),
        ("PUT", "/items/new", "/items/new"),
        ("GET", "/v1/out/in/x/1", "/v1/out/in/x/{y}"),
        ("GET", "/admin/a/users/b", "/admin/{tenant}/users/{user}"),
        ("GET", "/admin/a/else", "/admin/{tenant}/{path}"),
        ("WS", "/ws/1", "/ws/{room}"),
        ("GET", "/ws/1", None),
        ("GET", "/unknown/1", None),
    ],
)
def test_the_template_of_a_request_is_its_route_s(method: str, path: str, template: str | None) -> None:
    scope = {"type": "websocket" if method == "WS" else "http", "method": method, "path": path, "root_path": ""}
    assert Templates(fastapi_app).find(scope) == template
    below = {**scope, "path": "/p" + path, "root_path": "/p"}
    assert Templates(fastapi_app).find(below) == (None if template is None else "/p" + template)


def test_other_apps_have_the_templates_that_they_have() -> None:
    app = Starlette(
        routes=[
            Host("a.example", Starlette(routes=[Mount("/m", routes=[Route("/r/{x}", end)])])),
            WebSocketRoute("/w", end),
        ]
    )
    scope = {"type": "http", "method": "GET", "path": "/m/r/1", "root_path": ""}
    assert Templates(lambda: app).find(scope) == "/m/r/{x}"
    assert Templates(lambda: end).find(scope) is None


def test_a_span_lasts_as_long_as_it_does_while_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    sink, clock = Outlet({}), [5_000]
    monkeypatch.setattr("serveconf.tracing.span.monotonic_ns", lambda: clock[0])
    monkeypatch.setattr("serveconf.tracing.span.time_ns", lambda: 1_000_000)
    span = new_span("GET", Kind.SERVER, sink, None)
    span.clock_ns = clock[0]  # msgspec has bound the real one
    span.begin_earlier(300)
    clock[0] += 700
    monkeypatch.setattr("serveconf.tracing.span.time_ns", lambda: 0)
    span.stop()
    assert (span.began_ns, span.ended_ns) == (999_700, 1_000_700)
