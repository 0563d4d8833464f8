"""A request with a small body begins when that is whole, or a moment later: the app cannot tell, but for the pieces it gets."""

from __future__ import annotations

import time

import pytest
from edge_server import get, post, read_body, respond, serving

from serveconf.proxy import protocol
from serveconf.proxy.edge import Limits

FOR_GOOD = 60.0


async def pieces(scope, receive, send):
    """Answers with the sizes of the pieces that the body came in."""
    sizes, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        sizes.append(len(message["body"]))
        more = message["more_body"]
    await respond(send, repr(sizes).encode())


async def does_not_read(scope, receive, send):
    await respond(send, b"no need")


@pytest.fixture
def held(monkeypatch):
    monkeypatch.setattr(protocol, "HOLD_S", FOR_GOOD)


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("size", [2, 1000, 65_536])
def test_a_small_body_that_comes_in_parts_is_one_piece(size):
    with serving(pieces) as running, running.connect() as client:
        request = post("x" * size)
        for _ in range(2):
            head = len(request) - size
            for start, end in ((0, head), (head, head + 1), (head + 1, len(request))):
                client.send(request[start:end])
                time.sleep(0.01)
            assert client.answer().body == b"[%d]" % size
        assert running.edge.kept_bytes == 0


@pytest.mark.usefixtures("held")
def test_what_follows_a_held_request_is_answered_after_it():
    with serving(pieces) as running, running.connect() as client:
        request = post("x" * 1000)
        client.send(request[:-1])
        time.sleep(0.01)
        client.send(request[-1:] + request + get("/"))
        assert [client.answer().body for _ in range(3)] == [b"[1000]", b"[1000]", b"[0]"]


def test_an_app_that_answers_without_the_body_is_heard_though_the_rest_never_comes():
    with serving(does_not_read) as running, running.connect() as client:
        client.send(post("x" * 1000)[:-1])
        assert client.answer().body == b"no need"


@pytest.mark.usefixtures("held")
def test_nobody_waits_for_a_client_that_waits_for_us():
    with serving(does_not_read) as running, running.connect() as client:
        client.send(post("x" * 1000, "Expect: 100-continue\r\n")[:-1000])
        assert client.answer().body == b"no need"


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("length", ["Transfer-Encoding: chunked", "Content-Length: 65537"])
def test_a_body_that_is_not_known_to_be_small_begins_at_once(length):
    with serving(does_not_read) as running, running.connect() as client:
        client.send(f"POST / HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n1")
        assert client.answer().body == b"no need"


@pytest.mark.usefixtures("held")
def test_nothing_is_held_for_more_than_may_wait_when_memory_is_short():
    with (
        serving(does_not_read, limits=Limits(max_unread_bytes=65_536, max_kept_bytes=0)) as running,
        running.connect() as client,
    ):
        client.send(post("x" * 4097)[:-1])
        assert client.answer().body == b"no need"


@pytest.mark.usefixtures("held")
def test_a_client_that_leaves_within_a_small_body_is_told_to_its_app_and_counted():
    heard = []

    async def app(scope, receive, send):
        heard.append(await read_body(receive))

    with serving(app) as running:
        with running.connect() as client:
            client.send(post("x" * 1000)[:-1])
            wait_for(lambda: running.edge.kept_bytes == 999)
            assert heard == []
        wait_for(lambda: heard)
        assert heard == [None]
        assert running.edge.kept_bytes == 0
        assert running.edge.tally.refused == {"client_left": 1}


@pytest.mark.usefixtures("held")
def test_a_held_request_is_answered_when_the_proxy_ends():
    async def app(scope, receive, send):
        await read_body(receive)
        await respond(send, b"never")

    with serving(app) as running, running.connect() as client:
        client.send(post("x" * 1000)[:-1])
        wait_for(lambda: running.edge.kept_bytes == 999)

        async def abort():
            for connection in list(running.edge.connections):
                connection.abort()

        running.run(abort())
        assert client.answer().status == 503


@pytest.mark.usefixtures("held")
def test_a_limit_that_a_small_body_breaks_is_told_without_the_app():
    called = []

    async def app(scope, receive, send):
        called.append(scope)

    with serving(app) as running, running.connect() as client:
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\nContent-Length: 1\r\n\r\n")
        assert client.answer().status == 400
        assert called == []


def wait_for(holds):
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)
