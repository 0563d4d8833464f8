"""One request that cannot be, or an application that answers nonsense, ends its own stream and nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_harness import Peer, answer, get, http_scope, in_loop, pair, until, websocket_scope

from serveconf.wire import Limits, StreamCut
from serveconf.wire.frames import Accept, Cancel, Close, Credit, Open, Reply

CONNECT = {"type": "websocket.connect"}
WAIT = {"type": "wait"}


async def beside(app: Any, scope: dict[str, Any], *messages: dict[str, Any]) -> Any:
    """Run one call of ``app`` while another one is under way on the same connection; what became of the first."""
    release = asyncio.Event()

    async def both(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/other":
            await app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await release.wait()
        await send({"type": "http.response.body", "body": b" and ended"})

    async with pair(both) as (server, client):
        other = get()
        under_way = asyncio.create_task(client(http_scope("/other"), other.receive, other.send))
        await other.until(2)
        peer = Peer(*messages)
        result: Any
        try:
            result = await asyncio.wait_for(client(scope, peer.receive, peer.send), 120)
        except TimeoutError:
            result = "nothing came"
        except Exception as error:
            result = error
        release.set()
        assert await under_way == 200
        assert other.body == b"begun and ended"
        await until(lambda: server.ongoing == 0 and client.ongoing == 0)
        assert client.open
        return peer, result


@pytest.mark.parametrize("client", [("1.2.3.4", 10**23), ("1.2.3.4", -1), ("a", None), (b"a", 1), "x:1"])
@in_loop
async def test_a_scope_whose_client_is_none_ends_its_own_request(client: Any) -> None:
    scope = {**http_scope(), "client": client}
    _, result = await beside(lambda scope, receive, send: answer(send), scope)
    assert isinstance(result, TypeError | ValueError)


@in_loop
async def test_half_a_surrogate_pair_in_a_path_ends_its_own_request() -> None:
    _, result = await beside(lambda scope, receive, send: answer(send), {**http_scope(), "path": "/\ud800"})
    assert isinstance(result, StreamCut)


@pytest.mark.parametrize(
    ("code", "reason"), [(999, ""), (5000, ""), (1005, ""), (1000, 7), (1000, "x" * 124), ("1000", "")]
)
@in_loop
async def test_a_close_that_cannot_be_said_is_the_applications_error(code: Any, reason: Any) -> None:
    raised: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        try:
            await send({"type": "websocket.close", "code": code, "reason": reason})
        except RuntimeError as error:
            raised.append(error)
            raise

    peer, result = await beside(app, websocket_scope(), CONNECT)
    assert result == 101
    assert peer.got[-1] == {"type": "websocket.close", "code": 1011, "reason": ""}
    assert raised


@pytest.mark.parametrize("subprotocol", [b"a", 7, "", "a b", "a\r\nset-cookie: x"])
@in_loop
async def test_a_subprotocol_that_is_none_is_the_applications_error(subprotocol: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept", "subprotocol": subprotocol})

    _, result = await beside(app, websocket_scope(), CONNECT)
    assert isinstance(result, StreamCut)


@pytest.mark.parametrize("trailers", [False, True])
@in_loop
async def test_too_many_header_fields_are_the_applications_error(trailers: bool) -> None:
    many = [(b"a", b"b")] * (Limits().max_headers + 1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        start = {
            "type": "http.response.start",
            "status": 200,
            "headers": [] if trailers else many,
            "trailers": trailers,
        }
        await send(start)
        await send({"type": "http.response.body", "body": b"x"})
        await send({"type": "http.response.trailers", "headers": many})

    scope = {**http_scope(), "extensions": {"http.response.trailers": {}}}
    peer, result = await beside(app, scope)
    assert isinstance(result, StreamCut) if trailers else (result, peer.status) == (500, 500)


ANYTHING: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=5),
    st.just("\ud800"),
    st.binary(max_size=5),
    st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=3)), max_size=3),
    st.lists(st.integers(), max_size=2),
    st.just([(b"a", b"b")] * 12_000),
    st.just({"a": object()}),
)
KEYS = ("status", "headers", "body", "more_body", "trailers", "subprotocol", "code", "reason", "bytes", "text")
KINDS = (
    *("http.response.start", "http.response.body", "http.response.trailers"),
    *("websocket.accept", "websocket.send", "websocket.close"),
    *("websocket.http.response.start", "websocket.http.response.body"),
)
MESSAGES = st.lists(
    st.builds(
        lambda kind, fields: {"type": kind, **fields},
        st.sampled_from(KINDS),
        st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=4),
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.booleans(), MESSAGES)
def test_whatever_an_application_answers_the_connection_stays(is_websocket: bool, messages: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    scope = websocket_scope() if is_websocket else http_scope()
    asyncio.run(beside(app, scope, CONNECT, {"type": "websocket.disconnect", "code": 1000}))


SCOPES = st.dictionaries(
    st.sampled_from(
        ["path", "raw_path", "query_string", "root_path", "method", "scheme", "client", "server", "http_version"]
    ),
    ANYTHING,
    max_size=3,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.booleans(), SCOPES)
def test_whatever_a_scope_holds_the_connection_stays(is_websocket: bool, fields: dict[str, Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.close"} if scope["type"] == "websocket" else WAIT)

    scope = {**(websocket_scope() if is_websocket else http_scope()), **fields}
    asyncio.run(beside(app, scope, CONNECT, {"type": "websocket.disconnect", "code": 1000}))


@pytest.mark.parametrize(
    "frame",
    [Reply(2, 99, []), Close(2, 7), Accept(2, b"a", []), Credit(2, 1 << 50)],  # type: ignore[arg-type]
)
@in_loop
async def test_a_replica_that_says_what_is_no_frame_ends_that_stream_alone(frame: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        connection = send.__self__.connection
        connection.queue(frame)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    _, result = await beside(app, http_scope())
    assert isinstance(result, StreamCut)


@in_loop
async def test_a_proxy_that_says_what_is_no_frame_ends_that_stream_alone() -> None:
    async with pair(lambda scope, receive, send: answer(send)) as (server, client):
        client._newest = 5
        bad = Open(5, False, "GET", "http", "1.1", b"/", b"/", b"", "", [], None, None)  # type: ignore[arg-type]
        client.queue(bad)
        client.queue(Open(6, False, "GET", "http", "1.1", "/", b"", b"", "", [], None, None, extras=b"{"))
        client.queue(Cancel(6))
        client._newest = 6
        peer = get()
        assert await client(http_scope(), peer.receive, peer.send) == 200
        assert server.ongoing == 0
