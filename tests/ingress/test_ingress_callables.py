from __future__ import annotations

import asyncio
import dataclasses
import datetime
import json
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from starlette.responses import JSONResponse
from starlette.websockets import WebSocketDisconnect

from serveconf.errors import AuthorError
from serveconf.ingress.app import build
from serveconf.ingress.callables import as_response


class Item(BaseModel):
    name: str
    when: datetime.date


@dataclasses.dataclass
class Point:
    x: int
    y: float


@pytest.mark.parametrize(
    ("returned", "content_type", "body"),
    [
        (None, None, b""),
        ("grüß", "text/plain; charset=utf-8", "grüß".encode()),
        (b"\x00\xff", "text/plain", b"\x00\xff"),
        (bytearray(b"ab"), "text/plain", b"ab"),
        ({"a": [1, None]}, "application/json", b'{"a":[1,null]}'),
        ([], "application/json", b"[]"),
        (0, "application/json", b"0"),
        (False, "application/json", b"false"),
        (Item(name="x", when=datetime.date(2024, 1, 2)), "application/json", b'{"name":"x","when":"2024-01-02"}'),
        (Point(1, 2.5), "application/json", b'{"x":1,"y":2.5}'),
        (np.float32(1.5), "application/json", b"1.5"),
        (np.int64(3), "application/json", b"3"),
        (np.bool_(True), "application/json", b"true"),
        ({"m": np.array([[1, 2], [3, 4]])}, "application/json", b'{"m":[[1,2],[3,4]]}'),
        (
            [Item(name="y", when=datetime.date(2024, 1, 2)), {1}],
            "application/json",
            b'[{"name":"y","when":"2024-01-02"},[1]]',
        ),
    ],
)
def test_a_return_value_becomes_the_response_that_the_contract_says(client, returned, content_type, body):
    answer = client(build(lambda: returned).app).get("/")
    assert (answer.status_code, answer.headers.get("content-type"), answer.content) == (200, content_type, body)
    assert answer.headers["content-length"] == str(len(body))


def test_a_response_is_sent_as_it_is(client):
    app = build(lambda request: JSONResponse({"a": 1}, status_code=418, headers={"x-a": "b"})).app
    answer = client(app).get("/")
    assert (answer.status_code, answer.headers["x-a"], answer.json()) == (418, "b", {"a": 1})


class Echo:
    async def __call__(self, request: Any) -> Any:
        return [request.method, request.url.path, request.scope["root_path"], (await request.body()).decode()]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
def test_any_path_and_any_method_below_the_prefix_reach_a_callable(client, method):
    answer = client(build(Echo).app, "/p").request(method, "/p/any/where", content="body")
    assert answer.json() == [method, "/p/any/where", "/p", "body"]


def test_functions_may_be_sync_or_async_and_take_nothing(client):
    async def with_request(request):
        return request.method

    async def without():
        return "async"

    def lazily(request):
        return without()

    assert client(build(with_request).app).get("/").text == "GET"
    assert client(build(without).app).get("/").text == "async"
    assert client(build(lazily).app).get("/").text == "async"
    assert client(build(lambda *, flag=1: "keyword").app).get("/").text == "keyword"


def test_a_ready_made_object_with_call_is_served(client):
    served = build(Echo())
    assert served.kind == "function"
    assert client(served.app).get("/x").json()[1] == "/x"


def test_sync_code_runs_outside_the_event_loop_thread(client):
    async def on_loop():
        return threading.get_ident()

    def in_pool():
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return "no loop here"
        return "on the loop"

    assert client(build(in_pool).app).get("/").text == "no loop here"


def test_an_exception_is_a_plain_500_and_is_raised_on_to_the_log(client):
    def fails():
        raise ValueError("secret")

    app = build(fails).app
    answer = client(app).get("/")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    strict = client(app)
    strict._transport.raise_server_exceptions = True
    with pytest.raises(ValueError, match="secret"):
        strict.get("/")


def test_a_value_that_json_cannot_say_is_a_500(client):
    assert client(build(lambda: float("nan")).app).get("/").status_code == 500


def test_a_websocket_on_a_callable_is_refused(client):
    with pytest.raises(WebSocketDisconnect), client(build(Echo).app).websocket_connect("/"):
        pass


def test_generators_are_streamed_whatever_they_yield(client):
    def sync():
        yield "ä"
        yield b"\x01"
        yield {"n": 1}

    async def asynchronous(request):
        for part in ("a", "b"):
            yield part

    answer = client(build(sync).app).get("/")
    assert answer.content == "ä".encode() + b"\x01" + b'{"n":1}\n'
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "content-length" not in answer.headers
    assert client(build(asynchronous).app).get("/").text == "ab"


def test_an_empty_generator_is_an_empty_answer(client):
    def nothing():
        yield from ()

    answer = client(build(nothing).app).get("/")
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_generator_that_raises_before_its_first_chunk_is_a_500(client):
    async def early():
        raise ValueError
        yield

    assert client(build(early).app).get("/").status_code == 500


async def _call_and_leave(app: Any) -> list[Any]:
    """Ask, take one chunk, go away as the wire does it: by cancelling the handler."""
    sent: list[Any] = []
    got_chunk = asyncio.Event()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)
        if message.get("body"):
            got_chunk.set()
            await asyncio.Event().wait()

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [],
        "query_string": b"",
        "asgi": {"spec_version": "2.4"},
    }
    task = asyncio.create_task(app(scope, receive, send))
    await got_chunk.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return sent


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_generator_is_closed_when_the_client_leaves(kind):
    ended = []

    def sync():
        try:
            while True:
                yield "x"
        finally:
            ended.append("sync")

    async def asynchronous():
        try:
            while True:
                yield "x"
        finally:
            await asyncio.sleep(0)  # clean-up may await
            ended.append("async")

    asyncio.run(_call_and_leave(build(sync if kind == "sync" else asynchronous).app))
    assert ended == [kind]


def test_a_client_that_leaves_during_a_blocking_step_lets_it_end_and_closes_the_generator():
    inside, release, ended = threading.Event(), threading.Event(), []

    def source():
        try:
            inside.set()
            release.wait()
            yield "late"
        finally:
            ended.append(1)

    async def main():
        async def nothing(*message):
            await asyncio.Event().wait()

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
        task = asyncio.create_task(build(source).app(scope, nothing, nothing))
        await asyncio.to_thread(inside.wait)
        task.cancel()
        await asyncio.sleep(0)
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert ended == [1]


@given(
    value=st.recursive(
        st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: (
            st.lists(inner | st.text() | st.none()) | st.dictionaries(st.text(), inner | st.text() | st.none())
        ),
    )
)
def test_whatever_json_can_say_arrives_as_it_was_returned(value):
    assert json.loads(as_response(value).body) == value


def test_a_function_with_parameters_that_nobody_gives_is_refused():
    with pytest.raises(AuthorError, match=r"takes 2 parameters \(request, database\)"):
        build(lambda request, database: None)

    class Wrong:
        def __call__(self, request, database): ...

    with pytest.raises(AuthorError, match="takes 2 parameters"):
        build(Wrong)
