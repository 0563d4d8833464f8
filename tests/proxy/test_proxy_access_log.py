"""The access log: one line for each request, in either format, live; and what happens where nobody reads it."""

from __future__ import annotations

import datetime
import os
import re
import threading

import msgspec
import pytest
from edge_server import get, post
from test_proxy_counting import figures, hello, wait_until
from test_proxy_to_replica import Stack
from websockets.sync.client import connect as connect_websocket

from serveconf.proxy.access_log import AccessLog
from serveconf.proxy.tally import Trail
from serveconf.routing import Front, Generation, ReplicaAddress, Route

KEYS = (
    "time method path status bytes_in bytes_out duration_ms queue_ms request_id client stack deployment replica reason"
)


@pytest.fixture
def log(tmp_path):
    descriptor = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    yield AccessLog(descriptor)
    os.close(descriptor)


@pytest.fixture
def stack(tmp_path, log):
    stack = Stack(tmp_path)
    stack.running.edge.access_log = log
    stack.start_replica("one", hello)
    yield stack
    stack.stop()


def use(stack, log_format):
    stack.number += 1
    address = ReplicaAddress(id="one", node_id="n", uds=str(stack.folder / "one"))
    route = Route(prefix="/app", stack="s", deployment="d", replicas=(address,))
    front = Front(access_log=log_format)

    async def switch():
        await stack.app.stage(Generation(number=stack.number, front=front, routes=(route,)))
        stack.app.commit(stack.number)

    stack.running.run(switch())


def lines(log, tmp_path):
    log.flush(10)
    return (tmp_path / "log").read_text().splitlines()


def test_each_request_is_one_json_line_with_the_contracts_keys(stack, log, tmp_path):
    use(stack, "json")
    began = datetime.datetime.now(datetime.UTC)
    with stack.running.connect() as client:
        client.ask(post("12345", path="/app/201?secret=1", headers="X-Request-ID: mine\r\n"))
        client.ask(get("/nowhere"))
    found = [msgspec.json.decode(line) for line in lines(log, tmp_path)]
    assert [" ".join(line) for line in found] == [KEYS, KEYS]
    one, other = found
    assert datetime.timedelta(seconds=-1) < datetime.datetime.fromisoformat(one.pop("time")) - began
    assert one.pop("duration_ms") > 0
    assert one == {
        "method": "POST",
        "path": "/app/201",
        "status": 201,
        "bytes_in": 5,
        "bytes_out": 5,
        "queue_ms": 0.0,
        "request_id": "mine",
        "client": "127.0.0.1",
        "stack": "s",
        "deployment": "d",
        "replica": "one",
        "reason": None,
    }
    assert (other["status"], other["deployment"], other["replica"], other["reason"]) == (404, None, None, "no_route")


def test_the_combined_format_is_what_log_tools_read_and_a_client_cannot_forge_a_line(stack, log, tmp_path):
    use(stack, "combined")
    with stack.running.connect() as client:
        client.ask(get("/app/200?q=1", headers='User-Agent: a"b\\c\xe9\x85\r\nReferer: http://x/\r\n'))
        client.ask(get("/app/204", version="1.1"))
    one, other = lines(log, tmp_path)
    pattern = r'127\.0\.0\.1 - - \[\d\d/[A-Z][a-z][a-z]/\d{4}:\d\d:\d\d:\d\d \+0000\] "([^"]*)" (\d+) (\d+) "([^"]*)" "([^"]*)"'
    assert re.fullmatch(pattern, one).groups() == (
        "GET /app/200?q=1 HTTP/1.1", "200", "5", "http://x/", "a\\x22b\\x5cc\xe9\\x85",
    )  # fmt: skip
    assert re.fullmatch(pattern, other).groups() == ("GET /app/204 HTTP/1.1", "204", "0", "-", "-")


def test_it_is_switched_on_and_off_by_a_generation_and_no_connection_ends(stack, log, tmp_path):
    use(stack, None)
    with stack.running.connect() as client:
        client.ask(get("/app/200"))
        use(stack, "json")
        client.ask(get("/app/201"))
        client.ask(get("/app/202"))
        log.flush(10)
        use(stack, None)
        client.ask(get("/app/203"))
    assert [msgspec.json.decode(line)["status"] for line in lines(log, tmp_path)] == [201, 202]


def test_a_request_that_cannot_be_taken_and_a_websocket_have_their_lines_too(stack, log, tmp_path):
    use(stack, "json")
    with stack.running.connect() as client:
        assert client.ask("GET / HTTP/1.1\r\n\r\n").status == 400
    with connect_websocket(f"ws://127.0.0.1:{stack.running.port}/app/ws?a=1") as websocket:
        websocket.send("a")
    wait_until(lambda: figures(stack).deployments["s/d"].active == 0)
    wait_until(lambda: len(lines(log, tmp_path)) == 2)
    one, other = (msgspec.json.decode(line) for line in lines(log, tmp_path))
    assert (one["method"], one["path"], one["status"], one["reason"]) == ("-", "-", 400, "malformed")
    assert (other["path"], other["status"], other["deployment"], other["replica"]) == ("/app/ws", 101, "d", "one")


def test_where_nobody_reads_lines_are_dropped_and_counted_and_nobody_waits():
    reader, writer = os.pipe()
    log = AccessLog(writer, most_waiting=100)
    scope = {"type": "http", "method": "GET", "raw_path": b"/" + b"x" * 4000, "client": ("10.0.0.1", 1)}
    done = threading.Event()

    def write_many():
        while log.dropped < 50:
            log.write(scope, Trail(0.0), 200, 0, 0, 0.001)
        done.set()

    threading.Thread(target=write_many, daemon=True).start()
    assert done.wait(120)
    dropped = log.dropped
    with os.fdopen(reader, "rb") as file:  # it reads on: what was not dropped comes, whole
        threading.Thread(target=lambda: (log.flush(10), os.close(writer)), daemon=True).start()
        found = [msgspec.json.decode(line) for line in file]
    assert log.dropped == dropped
    assert found
    assert {line["client"] for line in found} == {"10.0.0.1"}


def test_what_cannot_be_written_is_counted_and_the_log_goes_on(tmp_path):
    descriptor = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
    read_only = os.open(tmp_path / "log", os.O_RDONLY)
    log = AccessLog(read_only)
    log.write({"type": "http"}, Trail(0.0), 200, 0, 0, 0.0)
    log.flush(10)
    assert log.dropped == 1
    os.dup2(descriptor, read_only)
    log.write({"type": "http"}, Trail(0.0), 200, 0, 0, 0.0)
    log.flush(10)
    assert log.dropped == 1
    assert (tmp_path / "log").read_bytes().count(b"\n") == 1
    os.close(read_only)
    os.close(descriptor)


def test_every_line_is_written_whole_and_in_order_however_many_wait(log, tmp_path):
    for number in range(3000):
        log.write({"type": "http", "raw_path": b"/%d" % number}, Trail(1.0 + number), 200, 0, 0, 0.0015)
    found = [msgspec.json.decode(line) for line in lines(log, tmp_path)]
    assert [line["path"] for line in found] == [f"/{number}" for number in range(3000)]
    assert {line["duration_ms"] for line in found} == {1.5}
    assert log.dropped == 0


def test_lines_that_wait_while_the_format_changes_stay_as_they_were_noted(log, tmp_path):
    for log.format in ("json", "combined", "json"):
        log.write({"type": "http", "raw_path": b"/a", "client": ("10.0.0.1", 1)}, Trail(0.0), 200, 0, 0, 0.0)
    assert [line[0] for line in lines(log, tmp_path)] == ["{", "1", "{"]
