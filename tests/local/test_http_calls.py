"""The client's own HTTP: connections are kept while the server keeps them, and what breaks off is never taken for whole."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from serveconf.http_calls import Answer, AnswerLate, AnswerLost, CallFailed, HttpCalls
from serveconf.proxy.ports import listen

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@contextmanager
def server(*connections: list[bytes], reads_body: bool = True) -> Iterator[tuple[HttpCalls, list[bytes]]]:
    """One connection after the other; on each, an answer for each request, then its end. Gives the requests' heads, too."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)
    heads: list[bytes] = []

    def serve() -> None:
        for answers in connections:
            line, _ = listener.accept()
            with line, line.makefile("rb") as read:
                for answer in answers:
                    head = b"".join(iter(read.readline, b"\r\n"))
                    heads.append(head)
                    length = [int(row.split(b":")[1]) for row in head.lower().splitlines() if b"content-length" in row]
                    if length and reads_body:
                        read.read(*length)
                    line.sendall(answer)
                line.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve)
    thread.start()
    calls = HttpCalls(
        f"http://127.0.0.1:{listener.getsockname()[1]}/below", {"x-said": "yes", "secret": "s"}, timeout_s=5
    )
    try:
        yield calls, heads
    finally:
        calls.close()
        thread.join()
        listener.close()


def test_who_waits_for_ever_has_the_system_ask_whether_the_other_end_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[socket.socket] = []
    connect = socket.create_connection

    def noted(*args: Any, **options: Any) -> socket.socket:
        opened.append(connect(*args, **options))
        return opened[-1]

    monkeypatch.setattr(socket, "create_connection", noted)
    with server([OK]) as (calls, _), calls.stream("GET", "/events"):
        (line,) = opened
        assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) <= 15  # the system's own patience is two hours
        assert line.gettimeout() is None


def test_a_connection_is_used_again() -> None:
    with server([OK, OK]) as (calls, heads):
        assert calls.call("GET", "/a b/c", params={"n": 1, "deep": True, "of": ["x", "y&"]}).text == "ok"
        assert calls.call("POST", "/d", json={"ä": 1}, without="secret") == Answer(status=200, content=b"ok")
    assert heads[0].startswith(b"GET /below/a%20b/c?n=1&deep=true&of=x&of=y%26 HTTP/1.1\r\n")
    assert b"secret: s" in heads[0] and b"x-said: yes" in heads[1] and b"secret" not in heads[1]


def test_one_that_the_server_has_ended_is_replaced() -> None:
    with server([OK], [OK]) as (calls, _):
        assert calls.call("GET", "/").status == 200
        assert calls.call("GET", "/").status == 200


def take_lines(calls: HttpCalls, got: list[bytes]) -> None:
    with calls.stream("GET", "/") as (_, lines):
        for line in lines:
            got.append(line)


def test_lines_come_as_they_are_sent_and_a_break_is_told() -> None:
    got: list[bytes] = []
    with server([CHUNKED + b"4\r\na\nb\n\r\n2\r\nc\n\r\n"]) as (calls, _), pytest.raises(CallFailed):
        take_lines(calls, got)
    assert got == [b"a", b"b", b"c"]
    with server([CHUNKED + b"4\r\na\nb\n\r\n0\r\n\r\n"]) as (calls, _), calls.stream("GET", "/") as (_, lines):
        assert list(lines) == [b"a", b"b"]


def test_an_answer_to_a_body_that_is_not_read_is_heard() -> None:
    refused = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n"
    with server([refused], reads_body=False) as (calls, _):
        assert calls.call("PUT", "/", content=b"x" * 1_000).status == 413


@pytest.mark.parametrize("answer", [b"", b"no HTTP\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhal"])
def test_what_is_no_whole_answer_is_a_failure_and_the_next_call_stands_for_itself(answer: bytes) -> None:
    with server([answer], [OK]) as (calls, _):
        with pytest.raises(AnswerLost):
            calls.call("GET", "/")
        assert calls.call("GET", "/").text == "ok"


@pytest.mark.parametrize("address", ["127.0.0.1:8001", "ftp://127.0.0.1", "http://", "http://127.0.0.1:1"])
def test_where_nobody_can_answer_it_says_so(address: str) -> None:
    with pytest.raises(CallFailed):
        HttpCalls(address, {}, timeout_s=5).call("GET", "/")


def test_what_listens_and_says_nothing_is_late_and_not_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        calls = HttpCalls(f"http://127.0.0.1:{listener.getsockname()[1]}", {}, timeout_s=20)
        with pytest.raises(AnswerLate):
            calls.call("GET", "/", timeout_s=0.05, connect_s=20)
    with pytest.raises(CallFailed) as gone:
        calls.call("GET", "/", timeout_s=20)
    assert not isinstance(gone.value, AnswerLate)


def test_what_only_informs_is_passed_over_and_what_says_no_length_ends_with_the_connection() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    with server([early + OK, b"HTTP/1.1 200 OK\r\n\r\nall of it"], [OK]) as (calls, _):
        assert [calls.call("GET", "/").text for _ in range(3)] == ["ok", "all of it", "ok"]


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "ключ"])
def test_a_header_that_can_be_none_is_never_sent(value: str) -> None:
    with server([OK]) as (calls, heads):
        with pytest.raises(CallFailed):
            calls.call("GET", "/", headers={"authorization": value})
        assert not heads and calls.call("GET", "/").text == "ok"


@pytest.mark.anyio
async def test_a_listener_of_ours_has_small_answers_sent_at_once() -> None:
    """An answer in two pieces would wait for the client's acknowledgement of the first: 40 ms (RFC 896, RFC 9293 §3.8.6.3)."""
    accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listener = listen("127.0.0.1", 0)
    async with await asyncio.start_server(take, sock=listener):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        assert await asyncio.wait_for(accepted, 120)
        writer.close()
