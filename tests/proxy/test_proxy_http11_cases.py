"""What a client may send, and what the edge makes of it: cases from RFC 9110 and RFC 9112."""

from __future__ import annotations

import asyncio

import pytest
from edge_server import echo, get, post, read_body, respond, serving

HOST = "Host: localhost\r\n"
SMUGGLED = f"GET /smuggled HTTP/1.1\r\n{HOST}\r\n"
CHUNKED = f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def server():
    seen = []

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        body = await read_body(receive)
        if body is None:
            return
        seen.append((scope["method"], scope["path"], body))
        await respond(send, body)

    with serving(app) as running:
        running.seen = seen
        yield running


@pytest.mark.parametrize(
    "request_text",
    [
        pytest.param("GET / HTTP/1.1\r\n\r\n", id="no host"),
        pytest.param(f"GET / HTTP/1.1\r\n{HOST}{HOST}\r\n", id="two hosts"),
        pytest.param("GET / HTTP/1.1\r\nHost: \r\n\r\n", id="empty host"),
        pytest.param("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", id="list of hosts"),
        pytest.param("GET / HTTP/1.1\r\nHost: user@localhost\r\n\r\n", id="host with userinfo"),
        pytest.param("GET / HTTP/1.1\r\nHost: localhost/path\r\n\r\n", id="host with path"),
        pytest.param("GET / HTTP/1.1\r\nHost: localhost:port\r\n\r\n", id="port that is no number"),
        pytest.param("GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", id="absolute target with userinfo"),
        pytest.param("GET http://localhost/ HTTP/1.1\r\n\r\n", id="absolute target without host"),
        pytest.param(f"GET * HTTP/1.1\r\n{HOST}\r\n", id="asterisk for GET"),
        pytest.param(f"GET path HTTP/1.1\r\n{HOST}\r\n", id="target without slash"),
        pytest.param(f"GET /a#b HTTP/1.1\r\n{HOST}\r\n", id="target with fragment"),
        pytest.param(f"GET /a b HTTP/1.1\r\n{HOST}\r\n", id="target with blank"),
        pytest.param(f"GET /caf\xe9 HTTP/1.1\r\n{HOST}\r\n", id="target with raw octets"),
        pytest.param(f"GET / http/1.1\r\n{HOST}\r\n", id="version in lower case"),
        pytest.param(f"GET / HTTP/1.1\r\n{HOST}X : y\r\n\r\n", id="blank before colon"),
        pytest.param(f"GET / HTTP/1.1\r\n{HOST}X: y\r\n folded\r\n\r\n", id="folded line"),
        pytest.param(f"GET / HTTP/1.1\r\n{HOST}X: a\x00b\r\n\r\n", id="NUL in value"),
        pytest.param(f"GET / HTTP/1.1\r\n{HOST}X: a\rb\r\n\r\n", id="bare CR in value"),
        pytest.param(f"GET / HTTP/1.1\r\n{HOST}: y\r\n\r\n", id="empty name"),
        pytest.param(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", id="two lengths"),
        pytest.param(f"POST / HTTP/1.1\r\n{HOST}Content-Length: +5\r\n\r\nhello", id="signed length"),
        pytest.param(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 5, 6\r\n\r\nhello", id="list of lengths"),
        pytest.param(
            f"POST / HTTP/1.1\r\n{HOST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="length and coding",
        ),
        pytest.param(f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip\r\n\r\n", id="unknown coding"),
        pytest.param(f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked, gzip\r\n\r\n", id="chunked not last"),
        pytest.param(f"{CHUNKED}0x5\r\nhello\r\n0\r\n\r\n", id="chunk size with prefix"),
        pytest.param(f"{CHUNKED}5\r\nhello!\r\n0\r\n\r\n", id="chunk longer than its size"),
        pytest.param(f"{CHUNKED}5\nhello\n0\n\n", id="chunks by bare LF"),
        pytest.param(f"{CHUNKED}fffffffffffffffff\r\nhello\r\n0\r\n\r\n", id="chunk size past 64 bits"),
        pytest.param("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\x00" * 32, id="a TLS hello"),
    ],
)
def test_malformed_request_gets_400_reaches_no_app_and_ends_the_connection(server, request_text):
    server.seen.clear()
    with server.connect() as client:
        answer = client.ask(request_text + SMUGGLED)
        assert answer.status == 400
        assert answer.get("connection") == "close"
        assert client.is_closed()
    assert server.seen == []


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (get("/" + "a" * 70_000), 414),
        (get(headers="X-Big: " + "b" * 70_000 + "\r\n"), 431),
        (get(headers="".join(f"X-{n}: v\r\n" for n in range(1_100))), 431),
        (get(headers="Expect: 200-ok\r\n"), 417),
        ("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", 501),
        ("CONNECT http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", 501),
        (f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (f"POST / HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        (f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (get(version="2.0"), 505),
        (get(version="0.9"), 505),
    ],
    ids=[
        *("long target", "large field", "many fields", "unknown expectation", "connect", "connect to a path"),
        *("another coding", "coding in HTTP/1.0", "coded twice", "two codings", "HTTP/2.0 in clear", "HTTP/0.9"),
    ],
)
def test_what_the_edge_does_not_do_is_refused_with_the_status_that_says_so(server, request_text, status):
    with server.connect() as client:
        assert client.ask(request_text).status == status
        assert client.is_closed()


def test_endless_head_in_small_packets_is_refused(server):
    with server.connect() as client:
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
        refused = None
        for _ in range(200):
            try:
                client.send("a" * 4096)
            except OSError:
                break
        refused = client.answer()
        assert refused is None or refused.status == 431


def test_endless_trailers_are_refused(server):
    with server.connect() as client:
        client.send(CHUNKED + "5\r\nhello\r\n0\r\n" + "".join(f"X-{n}: v\r\n" for n in range(1_100)) + "\r\n")
        assert client.answer().status == 431


def test_trailers_do_not_become_headers():
    late = []

    async def app(scope, receive, send):
        body = await read_body(receive)
        late.append([name for name, _ in scope["headers"]])
        await respond(send, body)

    with serving(app) as running, running.connect() as client:
        text = CHUNKED + "5\r\nhello\r\n0\r\nAuthorization: Bearer x\r\nHost: evil\r\n\r\n"
        assert client.ask(text).body == b"hello"
        assert client.ask(get()).status == 200
    assert late[0] == [b"host", b"transfer-encoding", b"x-request-id"]


def test_bodies_arrive_whole_however_they_are_framed(server):
    with server.connect() as client:
        assert client.ask(post("hello")).body == b"hello"
        assert client.ask(CHUNKED + "5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX: y\r\n\r\n").body == b"hello world"
        assert client.ask(post("")).body == b""
        assert client.ask(get()).status == 200


def test_body_of_a_get_is_not_the_next_request(server):
    server.seen.clear()
    with server.connect() as client:
        text = f"GET / HTTP/1.1\r\n{HOST}Content-Length: {len(SMUGGLED)}\r\n\r\n{SMUGGLED}"
        assert client.ask(text).body == SMUGGLED.encode()
        assert client.ask(get()).status == 200
    assert [path for _, path, _ in server.seen] == ["/", "/"]


@pytest.mark.parametrize(
    "framing", ["Content-Length: {}\r\n\r\n{}", "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n"]
)
@pytest.mark.parametrize("split", [False, True])
def test_body_after_an_ignored_upgrade_is_not_the_next_request(server, framing, split):
    server.seen.clear()
    head = f"POST / HTTP/1.1\r\n{HOST}Connection: Upgrade\r\nUpgrade: h2c\r\n"
    framed = framing.format(len(SMUGGLED), SMUGGLED)
    with server.connect() as client:
        if split:
            cut = framed.index("\r\n\r\n") + 4
            client.send(head + framed[:cut])
            assert client.ask(framed[cut:]).body == SMUGGLED.encode()
        else:
            assert client.ask(head + framed + get("/next")).body == SMUGGLED.encode()
            assert client.answer().status == 200
        assert client.ask(get("/last")).status == 200
    assert "/smuggled" not in [path for _, path, _ in server.seen]


def test_get_with_an_upgrade_nobody_knows_is_answered_and_the_connection_goes_on(server):
    with server.connect() as client:
        assert client.ask(get(headers="Connection: Upgrade\r\nUpgrade: made-up/1\r\n") + get()).status == 200
        assert client.answer().status == 200


def test_pipelined_requests_are_answered_in_order():
    async def app(scope, receive, send):
        await echo(scope, receive, send)

    with serving(app) as running, running.connect() as client:
        client.send("".join(get(f"/{n}") for n in range(50)))
        assert [client.answer().body for _ in range(50)] == [f"GET /{n} ".encode() for n in range(50)]


def test_refusal_of_a_pipelined_request_waits_for_the_answers_before_it(server):
    with server.connect() as client:
        client.send(post("one") + post("two") + "BROKEN\r\n\r\n" + SMUGGLED)
        assert [client.answer().body for _ in range(2)] == [b"one", b"two"]
        assert client.answer().status == 400
        assert client.is_closed()


def test_nothing_after_connection_close_is_answered(server):
    server.seen.clear()
    with server.connect() as client:
        assert client.ask(get(headers="Connection: close\r\n") + SMUGGLED).get("connection") == "close"
        assert client.is_closed()
    assert [path for _, path, _ in server.seen] == ["/"]


def test_http_1_0_gets_no_chunks_no_100_and_a_closed_connection():
    async def app(scope, receive, send):
        await read_body(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    with serving(app) as running, running.connect() as client:
        client.send("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi")
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"ab")
        assert answer.get("transfer-encoding") is None
        assert answer.get("connection") == "close"


def test_absolute_target_replaces_the_host():
    async def app(scope, receive, send):
        await respond(send, dict(scope["headers"])[b"host"] + b" " + scope["raw_path"] + b"?" + scope["query_string"])

    with serving(app) as running, running.connect() as client:
        assert client.ask("GET http://real.example/a?b HTTP/1.1\r\nHost: other\r\n\r\n").body == b"real.example /a?b"


def test_raw_path_arrives_byte_for_byte_and_path_decoded():
    async def app(scope, receive, send):
        await respond(send, scope["raw_path"] + b" " + scope["path"].encode())

    with serving(app) as running, running.connect() as client:
        assert client.ask(get("/a%2Fb/%C3%A4//c/../%zz")).body == "/a%2Fb/%C3%A4//c/../%zz /a/b/ä//c/../%zz".encode()


def test_options_asterisk_reaches_the_app_as_it_is(server):
    server.seen.clear()
    with server.connect() as client:
        assert client.ask("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n").status == 200
    assert server.seen == [("OPTIONS", "*", b"")]


def test_large_head_that_comes_in_two_parts_is_refused_too(server):
    head = get(headers="X-Big: " + "b" * 70_000 + "\r\n")
    with server.connect() as client:
        client.send(head[:60_000])
        server.run(asyncio.sleep(0.05))
        assert client.ask(head[60_000:]).status == 431
