"""One request and its answer: framing, what the edge adds and takes away, limits, clients that go."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import uuid

import pytest
from edge_server import echo, get, post, read_body, respond, serving, show_headers

from serveconf.routing import Front


def answering(status=200, headers=(), parts=(b"",)):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        for part in parts[:-1]:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": parts[-1]})

    return app


def test_answer_of_unknown_length_is_chunked():
    with serving(answering(parts=(b"ab", b"", b"cd"))) as running, running.connect() as client:
        answer = client.ask(get())
        assert answer.get("transfer-encoding") == "chunked"
        assert (answer.body, answer.whole) == (b"abcd", True)
        assert client.ask(get()).body == b"abcd"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_answers_that_have_no_body_have_none_and_the_connection_goes_on(method, status):
    headers = [(b"content-length", b"4")]
    with serving(answering(status, headers, (b"body",))) as running, running.connect() as client:
        for _ in range(2):
            answer = client.ask(get(method=method), method)
            assert answer.status == status
            assert answer.get("content-length") == (None if status == 204 else "4")
            assert answer.get("transfer-encoding") is None
        assert client.buffer == b""


def test_repeated_headers_keep_their_order_both_ways():
    cookies = [(b"set-cookie", b"a=1"), (b"x-between", b"1"), (b"set-cookie", b"b=2")]

    async def app(scope, receive, send):
        assert [value for name, value in scope["headers"] if name == b"accept"] == [b"a", b"b"]
        await respond(send, headers=cookies)

    with serving(app) as running, running.connect() as client:
        answer = client.ask(get(headers="Accept: a\r\nX-Y: z\r\nAccept: b\r\n"))
        assert answer.status == 200
        assert [field for field in answer.fields if field[0] in ("set-cookie", "x-between")] == [
            ("set-cookie", "a=1"),
            ("x-between", "1"),
            ("set-cookie", "b=2"),
        ]


def test_hop_by_hop_fields_of_a_request_end_at_the_edge():
    sent = (
        "Connection: keep-alive, X-Mine, X-Forwarded-For\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nUpgrade: h2c\r\n"
        "Proxy-Connection: keep-alive\r\nX-Mine: secret\r\nX-Forwarded-For: 10.0.0.1\r\nX-Theirs: kept\r\n"
    )
    with serving(show_headers) as running, running.connect() as client:
        body = client.ask(get(headers=sent)).body.decode()
        names = [line.partition(":")[0] for line in body.splitlines()]
        assert names == ["host", "x-forwarded-for", "x-theirs", "x-request-id"]


def test_hop_by_hop_fields_of_an_answer_are_the_edges_own():
    headers = [
        (b"connection", b"close, x-y"),
        (b"keep-alive", b"timeout=1"),
        (b"upgrade", b"h2c"),
        (b"transfer-encoding", b"gzip"),
        (b"content-length", b"2"),
        (b"content-length", b"2"),
    ]
    with serving(answering(headers=headers, parts=(b"ok",))) as running, running.connect() as client:
        answer = client.ask(get())
        assert [name for name, _ in answer.fields] == ["date", "x-request-id", "content-length"]
        assert client.ask(get()).body == b"ok"


def test_date_of_the_app_is_kept_and_not_doubled():
    with serving(answering(headers=[(b"Date", b"yesterday")])) as running, running.connect() as client:
        assert client.ask(get()).all("date") == ["yesterday"]


def test_request_id_is_taken_over_handed_on_and_echoed():
    with serving(show_headers) as running, running.connect() as client:
        answer = client.ask(get(headers="X-Request-ID: abc-123\r\n"))
        assert answer.all("x-request-id") == ["abc-123"]
        assert b"x-request-id: abc-123\n" in answer.body


@pytest.mark.parametrize("value", ["with blank", "x" * 129, "caf\xe9", ""], ids=["blank", "long", "not ascii", "empty"])
def test_request_id_that_is_none_is_replaced_by_a_uuid4(value):
    with serving(show_headers) as running, running.connect() as client:
        answer = client.ask(get(headers=f"X-Request-ID: {value}\r\n"))
        (made,) = answer.all("x-request-id")
        assert uuid.UUID(made).version == 4
        assert str(uuid.UUID(made)) == made
        assert re.findall(rb"x-request-id: (.*)\n", answer.body) == [made.encode()]


def test_request_id_that_the_app_sets_is_the_only_one():
    with serving(answering(headers=[(b"X-Request-Id", b"mine")])) as running, running.connect() as client:
        assert client.ask(get()).all("x-request-id") == ["mine"]


@pytest.mark.parametrize(
    "header",
    [(b"x-y", b"a\r\nset-cookie: b"), (b"x-y", b"a\nb"), (b"x-y", b"a\0"), (b"x y", b"a"), (b"x:y", b"a"), (b"", b"a")],
)
def test_header_of_an_answer_cannot_inject_another(header, caplog):
    with serving(answering(headers=[header])) as running, running.connect() as client:
        answer = client.ask(get())
        assert answer.status == 500
        assert answer.get("set-cookie") is None
        assert client.ask(get()).status == 500


@pytest.mark.parametrize("length", [b"3", b"9", b"-1", b"x"])
def test_answer_that_is_not_as_long_as_it_says_never_looks_whole(length, caplog):
    with serving(answering(headers=[(b"content-length", length)], parts=(b"hello",))) as running:
        with running.connect() as client:
            answer = client.ask(get())
            assert answer.status == 500 or not answer.whole
        assert running.edge.tally.failed == 1


def test_app_that_raises_gives_500_without_its_words(caplog):
    async def app(scope, receive, send):
        raise RuntimeError("secret words")

    with serving(app) as running, running.connect() as client:
        answer = client.ask(get())
        assert (answer.status, answer.body) == (500, b"Internal Server Error")
        assert client.ask(get()).status == 500
        assert running.edge.tally.failed == 2
    assert "secret words" in caplog.text


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"100")]], ids=["chunked", "by length"])
def test_answer_that_began_and_cannot_be_finished_is_cut(headers, caplog):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"partly", "more_body": True})
        raise RuntimeError

    with serving(app) as running, running.connect() as client:
        answer = client.ask(get())
        assert (answer.body, answer.whole) == (b"partly", False)
        assert running.edge.tally.failed == 1
        assert running.edge.tally.streams_closed == 1


def test_answer_delimited_by_its_end_is_cut_with_a_reset(caplog):
    began = threading.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"partly", "more_body": True})
        while not began.is_set():
            await asyncio.sleep(0)
        raise RuntimeError

    with serving(app) as running, running.connect() as client:
        client.send("GET / HTTP/1.0\r\n\r\n")
        client.head()
        began.set()
        with pytest.raises(ConnectionResetError):
            client.sock.recv(100, socket.MSG_WAITALL)


def test_what_an_app_does_after_its_answer_hurts_no_one(caplog):
    async def app(scope, receive, send):
        await respond(send, b"done")
        raise RuntimeError("afterwards")

    with serving(app) as running, running.connect() as client:
        assert client.ask(get()).body == b"done"
        assert client.ask(get()).body == b"done"
        assert running.edge.tally.failed == 0


def test_expected_body_is_asked_for_only_when_the_app_reads():
    async def app(scope, receive, send):
        if scope["path"] == "/read":
            await echo(scope, receive, send)
        else:
            await respond(send, b"no thanks")

    head = "POST {} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    with serving(app) as running:
        with running.connect() as client:
            assert client.ask(head.format("/read")).status == 100
            assert client.ask("hello").body == b"hello"
            refused = client.ask(head.format("/skip"))
            assert (refused.status, refused.get("connection")) == (200, "close")
            assert client.is_closed()
        with running.connect() as client:
            assert client.ask(head.format("/read") + "hello").body == b"hello"


def test_body_limit_refuses_a_declared_length_before_the_app():
    calls = []

    async def app(scope, receive, send):
        calls.append(scope["path"])
        await echo(scope, receive, send)

    with serving(app) as running:
        running.use(Front(max_request_body_bytes=5))
        with running.connect() as client:
            assert client.ask(post("hello", path="/fits")).body == b"hello"
            assert client.ask(post("hello!", path="/large")).status == 413
            assert client.is_closed()
    assert calls == ["/fits"]


def test_body_limit_cuts_chunks_at_the_limit():
    with serving(echo) as running:
        running.use(Front(max_request_body_bytes=5))
        with running.connect() as client:
            client.send("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            assert client.ask("1\r\n!\r\n").status == 413
            assert client.is_closed()


def test_refused_upload_still_reads_the_answer():
    with serving(echo) as running:
        running.use(Front(max_request_body_bytes=5))
        with running.connect() as client:
            client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n")
            client.send(b"x" * 3_000_000)
            assert client.answer().status == 413


def test_unread_upload_is_dropped_and_the_connection_goes_on():
    async def app(scope, receive, send):
        await respond(send, b"early")

    with serving(app) as running, running.connect() as client:
        text = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
        assert client.ask(text).body == b"early"
        client.send(b"x" * 1_000_000)
        assert client.ask(get()).body == b"early"


def test_large_bodies_pass_whole_both_ways():
    data = bytes(range(256)) * 20_000
    with serving(echo) as running, running.connect() as client:
        sender = threading.Thread(
            target=client.send,
            args=(f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data,),
        )
        sender.start()
        assert client.answer().body == data
        sender.join()


def test_client_that_goes_away_is_told_to_a_listening_app():
    told = threading.Event()

    async def app(scope, receive, send):
        await receive()
        if (await receive())["type"] == "http.disconnect":
            told.set()

    with serving(app) as running:
        with running.connect() as client:
            client.send(get())
        assert told.wait(120)


def test_client_that_goes_away_cancels_an_app_that_waits_elsewhere():
    waiting, cancelled = threading.Event(), threading.Event()

    async def app(scope, receive, send):
        waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with serving(app) as running:
        with running.connect() as client:
            client.send(get())
            assert waiting.wait(120)
        assert cancelled.wait(120)
        assert running.edge.tally.requests == 0


def test_pipelined_request_whose_client_left_reaches_no_app():
    calls = []
    first, release = threading.Event(), threading.Event()

    async def app(scope, receive, send):
        calls.append(scope["path"])
        first.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        release.set()

    with serving(app) as running:
        with running.connect() as client:
            client.send(get("/1") + get("/2"))
            assert first.wait(120)
        assert release.wait(120)
    assert calls == ["/1"]


def test_slow_reader_stalls_the_app_that_sends_to_it_and_nobody_else():
    progress = []

    async def app(scope, receive, send):
        if scope["path"] == "/quick":
            await respond(send, b"quick")
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(1000):
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            progress.append(number)

    with serving(app) as running, running.connect() as slow, running.connect() as other:
        slow.send(get("/slow"))
        slow.head()
        for _ in range(20):
            assert other.ask(get("/quick")).body == b"quick"
        assert len(progress) < 1000


def test_trailers_of_an_answer_reach_a_client_that_takes_them():
    async def app(scope, receive, send):
        takes = "http.response.trailers" in scope.get("extensions", {})
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": takes})
        await send({"type": "http.response.body", "body": b"body"})
        if takes:
            await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"4")]})

    with serving(app) as running, running.connect() as client:
        assert client.ask(get(headers="TE: trailers\r\n")).body == b"body"
        assert client.trailer == b"x-sum: 4"
        assert client.ask(get()).body == b"body"
        assert client.trailer == b""


async def show_client(scope, receive, send):
    await respond(send, f"{scope['client'][0]} {scope['scheme']}".encode())


def test_forwarded_fields_of_a_trusted_peer_are_believed():
    with serving(show_client) as running, running.connect() as client:
        sent = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n"
        assert client.ask(get(headers=sent)).body == b"203.0.113.7 https"
        assert client.ask(get()).body == b"127.0.0.1 http"


def test_forwarded_fields_of_anyone_else_are_not_believed():
    with serving(show_client) as running:
        running.use(Front(forwarded_allow_ips="10.0.0.0/8"))
        with running.connect() as client:
            sent = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n"
            assert client.ask(get(headers=sent)).body == b"127.0.0.1 http"


def test_body_comes_in_parts_as_it_arrives():
    parts = []
    arrived = threading.Semaphore(0)

    async def app(scope, receive, send):
        more = True
        while more:
            message = await receive()
            parts.append(message["body"])
            arrived.release()
            more = message["more_body"]
        await respond(send, b"".join(parts))

    with serving(app) as running, running.connect() as client:
        client.send("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        assert arrived.acquire(timeout=120)
        client.send("3\r\ntwo\r\n")
        assert arrived.acquire(timeout=120)
        assert client.ask("0\r\n\r\n").body == b"onetwo"
    assert parts[:2] == [b"one", b"two"]


def test_body_that_breaks_off_in_its_framing_is_no_body_for_the_app():
    got = []

    async def app(scope, receive, send):
        got.append(await read_body(receive))

    with serving(app) as running, running.connect() as client:
        client.send("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        assert client.ask("zz\r\n").status == 400
    assert got in ([], [None])
