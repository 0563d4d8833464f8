"""Requests on one connection, in any order and in any pieces: each is answered as if it had come alone and at once."""

from __future__ import annotations

import asyncio

import pytest
from edge_server import get, read_body, respond, serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ANSWERS = {
    "/none": (204, b""),
    "/same": (304, b""),
    "/long": (200, b"x" * 3000),
    "/gone": (410, b"gone"),
}


async def app(scope, receive, send):
    """Says what it was asked, by length, in chunks or by its status alone."""
    body = await read_body(receive)
    if body is None:
        return
    path = scope["path"]
    if path in ANSWERS:
        status, content = ANSWERS[path]
        await respond(send, content or b"not to be sent", status)
        return
    said = b"%b %b %b" % (scope["method"].encode(), scope["query_string"], body)
    if path == "/length":
        await respond(send, said)
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for at in range(0, len(said), 7):
        await send({"type": "http.response.body", "body": said[at : at + 7], "more_body": True})
        if path == "/slow":
            await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture(scope="module")
def server():
    with serving(app) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with server.connect() as client:
        yield client


@st.composite
def requests(draw):
    """The bytes of a request, its method, and status and body of its answer."""
    path = draw(st.sampled_from(["/length", "/chunks", "/slow", *ANSWERS]))
    method = draw(st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE"]))
    framing = draw(st.sampled_from(["none", "length", "chunks"])) if method != "HEAD" else "none"
    number = draw(st.integers(0, 99))
    body, head, after = b"", f"{method} {path}?{number} HTTP/1.1\r\nHost: localhost\r\n", b""
    if framing == "length":
        body = draw(st.binary(max_size=40))
        after = body
        head += f"Content-Length: {len(body)}\r\n"
    elif framing == "chunks":
        pieces = draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4))
        body = b"".join(pieces)
        extension = draw(st.sampled_from([b"", b";a=b", b';q="x;y"']))
        trailers = draw(st.sampled_from([b"", b"X-Sum: 1\r\n"]))
        after = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
        after += b"0\r\n" + trailers + b"\r\n"
        head += "Transfer-Encoding: chunked\r\n"
    said = b"%b %d %b" % (method.encode(), number, body)
    status, content = ANSWERS.get(path, (200, said))
    return head.encode() + b"\r\n" + after, method, status, b"" if method == "HEAD" else content


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(asked=st.lists(requests(), min_size=1, max_size=5), cuts=st.lists(st.integers(1, 600), max_size=8))
def test_each_gets_its_own_answer_in_turn_however_the_bytes_come(client, asked, cuts):
    sent, before = b"".join(request for request, *_ in asked), 0
    for cut in sorted(set(cuts)):
        client.send(sent[before:cut])
        before = max(before, min(cut, len(sent)))
    client.send(sent[before:])
    answers = [client.answer(method) for _, method, _, _ in asked]
    assert [(answer.status, answer.body, answer.whole) for answer in answers] == [
        (status, body, True) for *_, status, body in asked
    ]
    assert client.buffer == b""


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(request=requests(), at=st.integers(0, 10_000))
def test_a_request_that_breaks_off_is_answered_with_nothing_that_looks_whole(server, request, at):
    text, method, _status, _body = request
    cut = at % len(text)
    with server.connect() as other:
        other.send(text[:cut])
        other.sock.shutdown(1)
        answer = other.answer(method)
        assert answer is None or answer.status in (400, 408)


@pytest.mark.parametrize(
    ("version", "connection", "goes_on"),
    [
        ("1.1", "", True),
        ("1.1", "close", False),
        ("1.1", "Close", False),
        ("1.1", "keep-alive", True),
        ("1.1", "x-y, close", False),
        ("1.0", "", False),
        ("1.0", "keep-alive", True),
        ("1.0", "Keep-Alive", True),
        ("1.0", "keep-alive, close", False),
    ],
)
@pytest.mark.parametrize("path", ["/length", "/none"])
def test_a_connection_goes_on_as_its_version_and_its_client_say(server, version, connection, goes_on, path):
    field = f"Connection: {connection}\r\n" if connection else ""
    with server.connect() as other:
        answer = other.ask(get(path, field, version))
        assert answer.status == (200 if path == "/length" else 204)
        if answer.get("connection") == "close" or (version == "1.0" and answer.get("connection") != "keep-alive"):
            assert other.is_closed()
            assert not goes_on or version == "1.0"  # who speaks 1.0 may always be let go
        else:
            assert goes_on
            assert other.ask(get(path)).status == answer.status


@pytest.mark.parametrize("path", ["/chunks", "/slow"])
def test_what_1_0_cannot_be_told_in_chunks_ends_with_the_connection(server, path):
    with server.connect() as other:
        answer = other.ask(get(f"{path}?1", "Connection: keep-alive\r\n", "1.0"))
        assert (answer.body, answer.get("transfer-encoding"), answer.get("connection")) == (b"GET 1 ", None, "close")
        assert other.is_closed()


@pytest.mark.parametrize("expect", ["100-continue", "100-Continue"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_only_who_speaks_1_1_is_told_to_go_on_and_once(server, version, expect):
    head = f"POST /length HTTP/{version}\r\nHost: a\r\nExpect: {expect}\r\nContent-Length: 5\r\n\r\n"
    with server.connect() as other:
        other.send(head)
        if version == "1.1":
            assert other.answer().status == 100
        other.send("hello")
        assert other.answer().body == b"POST  hello"


def test_an_expectation_that_nobody_knows_is_refused_or_passed_over_but_never_waited_for(server):
    with server.connect() as other:
        answer = other.ask("POST /length HTTP/1.1\r\nHost: a\r\nExpect: a-miracle\r\nContent-Length: 2\r\n\r\nhi")
        assert answer.status in (200, 417)


WRONG = {
    "status 99": [{"type": "http.response.start", "status": 99, "headers": []}],
    "status 600": [{"type": "http.response.start", "status": 600, "headers": []}],
    "status 101": [{"type": "http.response.start", "status": 101, "headers": []}],
    "status as text": [{"type": "http.response.start", "status": "200", "headers": []}],
    "header as text": [{"type": "http.response.start", "status": 200, "headers": [("a", "b")]}],
    "header of three": [{"type": "http.response.start", "status": 200, "headers": [(b"a", b"b", b"c")]}],
    "headers that are none": [{"type": "http.response.start", "status": 200, "headers": 5}],
    "two lengths": [
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", b"1"), (b"content-length", b"2")],
        }
    ],
    "body first": [{"type": "http.response.body", "body": b"x"}],
    "no type": [{"status": 200}],
    "no message": [None],
}


@pytest.fixture(scope="module")
def wrong():
    async def sends(scope, receive, send):
        for message in WRONG[scope["query_string"].decode().replace("%20", " ")]:
            await send(message)

    with serving(sends) as running, running.connect() as client:
        yield client


@pytest.mark.parametrize("what", WRONG)
def test_an_app_whose_first_words_are_none_is_a_500_and_the_connection_goes_on(wrong, what, caplog):
    for _ in range(2):
        answer = wrong.ask(get(f"/?{what.replace(' ', '%20')}"))
        assert (answer.status, answer.body, answer.whole) == (500, b"Internal Server Error", True)


START = {"type": "http.response.start", "status": 200, "headers": []}


@pytest.mark.parametrize(
    "then",
    [
        [{**START}],
        [{"type": "http.response.body", "body": "text"}],
        [{"type": "http.response.body", "body": 5}],
        [{"type": "http.response.nonsense"}],
        [{"type": "http.response.trailers", "headers": []}],
        [{"type": "websocket.send", "text": "x"}],
        [],
    ],
    ids=lambda then: then[0]["type"] + str(then[0].get("body", "")) if then else "nothing",
)
def test_an_app_whose_next_words_are_none_is_cut_and_counted(then, caplog):
    async def sends(scope, receive, send):
        await send({**START})
        await send({"type": "http.response.body", "body": b"partly", "more_body": True})
        for message in then:
            await send(message)

    with serving(sends) as running, running.connect() as client:
        answer = client.ask(get())
        assert (answer.body, answer.whole) == (b"partly", False)
        assert (running.edge.tally.failed, running.edge.tally.open_streams) == (1, 0)


def test_what_an_app_sends_after_its_end_is_its_own_error_and_no_part_of_the_next_answer(caplog):
    async def sends(scope, receive, send):
        await respond(send, b"whole")
        await send({"type": "http.response.body", "body": b"HTTP/1.1 200 OK\r\n\r\n"})

    with serving(sends) as running, running.connect() as client:
        client.send(get() + get())
        assert [client.answer().body, client.answer().body] == [b"whole", b"whole"]
        assert client.ask(get()).body == b"whole"
        assert running.edge.tally.failed == 0
    assert "after the answer was complete" in caplog.text


def test_background_work_after_an_answer_holds_up_no_next_one():
    ended = []

    async def works(scope, receive, send):
        await respond(send, b"done")
        while (await receive())["type"] != "http.disconnect":
            pass
        await asyncio.sleep(0)
        ended.append(scope["path"])

    with serving(works) as running, running.connect() as client:
        assert [client.ask(get(f"/{number}")).body for number in range(3)] == [b"done"] * 3
        while running.edge.tasks:
            running.run(asyncio.sleep(0.01))
    assert sorted(ended) == ["/0", "/1", "/2"]
