"""The listener: ports, deadlines, the connection cap, draining, TLS, WebSockets."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import threading
import warnings

import pytest
from edge_server import RawClient, echo, get, post, respond, serving
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as connect_websocket

from serveconf.errors import OperatorError, PortInUse
from serveconf.local_ray import free_port
from serveconf.proxy.certificate import ends_at
from serveconf.proxy.edge import Limits
from serveconf.proxy.ports import listen, port_is_free, refuse_new
from serveconf.proxy.tls import Tls, TlsFiles
from serveconf.routing import Front


class Gate:
    """An app that waits until the test lets it go on."""

    def __init__(self):
        self.entered = threading.Event()
        self.release = threading.Event()

    async def __call__(self, scope, receive, send):
        self.entered.set()
        while not self.release.is_set():
            await asyncio.sleep(0.001)
        await respond(send, b"finished")


# Ports


def test_port_in_use_names_the_port_the_program_and_the_key():
    with serving(echo) as running, pytest.raises(PortInUse) as caught, serving(echo, port=running.port):
        pass
    assert str(running.port) in caught.value.message
    assert f"(pid {os.getpid()})" in caught.value.message
    assert "http_options.port" in caught.value.hint


def test_host_that_is_not_ours_is_an_operators_error():
    with pytest.raises(OperatorError, match=r"203\.0\.113\.1") as caught, serving(echo, host="203.0.113.1"):
        pass
    assert "http_options.host" in caught.value.hint


def test_workers_share_a_port_and_a_foreign_one_is_still_seen():
    port = free_port()
    assert port_is_free("127.0.0.1", port)
    with serving(echo, port=port, reuse_port=True), serving(echo, port=port, reuse_port=True):
        assert not port_is_free("127.0.0.1", port)
    assert port_is_free("127.0.0.1", port)


def test_ipv6_is_listened_on(ipv6):
    with serving(echo, host="::1") as running, running.connect() as client:
        assert client.ask(get()).status == 200


# Deadlines and caps


def test_slow_head_gets_408_and_others_feel_nothing():
    with (
        serving(echo) as running,
        running.connect() as slow,
        running.connect() as other,
    ):
        slow.send("GET / HTTP/1.1\r\nHost: local")
        assert other.ask(get()).status == 200
        running.limit(head_timeout_s=0.2)
        assert slow.answer().status == 408
        assert slow.is_closed()
        assert other.ask(get()).status == 200


def test_head_that_drips_is_cut_although_it_never_pauses():
    with serving(echo) as running, running.connect() as client:
        assert client.ask(get()).status == 200
        running.limit(head_timeout_s=0.2)
        stop = threading.Event()

        def drip():
            client.send("GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
            while not stop.wait(0.02):
                try:
                    client.send("x")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        answer = client.answer()
        stop.set()
        dripping.join()
        assert answer is None or answer.status == 408


def test_slow_body_is_not_a_slow_head():
    reads = threading.Event()

    async def app(scope, receive, send):
        reads.set()
        await echo(scope, receive, send)

    with serving(app) as running, running.connect() as client:
        text = post("hello")
        client.send(text[:-5])
        assert reads.wait(120)
        running.limit(head_timeout_s=0.05)
        for letter in "hello":
            threading.Event().wait(0.05)
            client.send(letter)
        assert client.answer().body == b"hello"


def test_connection_on_which_nothing_comes_is_closed():
    with serving(echo, limits=Limits(head_timeout_s=0.1)) as running, running.connect() as client:
        assert client.is_closed()


def test_idle_connection_is_closed_after_the_keep_alive_timeout_that_holds_now():
    with serving(echo) as running, running.connect() as client:
        assert client.ask(get()).status == 200
        running.use(Front(keep_alive_timeout_s=0.1))
        assert client.is_closed()


def test_connection_beyond_the_cap_gets_503_and_the_others_stay():
    with serving(echo, limits=Limits(max_connections=1)) as running, running.connect() as first:
        assert first.ask(get()).status == 200
        with running.connect() as second:
            assert second.answer().status == 503
            assert second.is_closed()
        assert first.ask(get()).status == 200


# Draining


def drain_in_background(running, timeout_s, **options):
    drained = asyncio.run_coroutine_threadsafe(running.server.drain(timeout_s, **options), running.loop)
    running.run(asyncio.sleep(0))  # it has begun
    return drained


def test_drain_finishes_what_is_in_flight_and_closes_its_connection():
    gate = Gate()
    with serving(gate) as running, running.connect() as client:
        client.send(get())
        assert gate.entered.wait(120)
        drained = drain_in_background(running, 120)
        gate.release.set()
        answer = client.answer()
        assert (answer.body, answer.get("connection")) == (b"finished", "close")
        assert client.is_closed()
        drained.result(120)
        with pytest.raises(ConnectionRefusedError):
            running.connect()


def test_drain_answers_the_next_request_of_a_busy_connection_and_then_closes_it():
    with serving(echo) as running, running.connect() as client:
        client.ask(get())
        drained = drain_in_background(running, 120)
        answer = client.ask(get())
        assert (answer.status, answer.get("connection")) == (200, "close")
        drained.result(120)


def test_drain_closes_idle_connections():
    with serving(echo) as running, running.connect() as client:
        client.ask(get())
        drained = drain_in_background(running, 120)
        assert client.is_closed()
        drained.result(120)


def test_drain_cuts_what_does_not_end_in_time():
    began = threading.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"tick", "more_body": True})
        began.set()
        await asyncio.Event().wait()

    with serving(app) as running, running.connect() as client:
        client.send(get())
        assert began.wait(120)
        drained = drain_in_background(running, 0.1)
        answer = client.answer()
        assert (answer.body, answer.whole) == (b"tick", False)
        drained.result(120)


def test_drain_takes_over_connections_that_were_waiting_to_be_accepted():
    with serving(echo) as running:
        blocked, go = threading.Event(), threading.Event()

        async def hold_the_loop():
            blocked.set()
            go.wait(120)
            await running.server.drain(120)

        drained = asyncio.run_coroutine_threadsafe(hold_the_loop(), running.loop)
        assert blocked.wait(120)
        clients = [running.connect().send(get()) for _ in range(20)]
        go.set()
        assert [client.answer().status for client in clients] == [200] * 20
        for client in clients:
            client.sock.close()
        drained.result(120)


# WebSockets


async def websocket_echo(scope, receive, send):
    if scope["type"] == "http":
        await respond(send, b"plain")
        return
    if scope["path"] == "/denied":
        await send({"type": "websocket.http.response.start", "status": 418, "headers": [(b"x-why", b"tea")]})
        await send({"type": "websocket.http.response.body", "body": b"no"})
        return
    assert (await receive())["type"] == "websocket.connect"
    accept = {"type": "websocket.accept", "subprotocol": (scope["subprotocols"] or [None])[0]}
    await send(accept)
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "headers":
            await send({"type": "websocket.send", "text": str(sorted(name.decode() for name, _ in scope["headers"]))})
        elif message.get("text") == "bye":
            await send({"type": "websocket.close", "code": 4001, "reason": "asked"})
            return
        elif message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


@pytest.fixture(scope="module")
def websocket_server():
    with serving(websocket_echo) as running:
        yield running


def url(running, path="/"):
    return f"ws://{running.host}:{running.port}{path}"


def test_websocket_carries_text_and_bytes_compressed_where_the_client_can(websocket_server):
    with connect_websocket(url(websocket_server), subprotocols=["chat"]) as websocket:
        assert websocket.subprotocol == "chat"
        assert "permessage-deflate" in websocket.response.headers["Sec-WebSocket-Extensions"]
        websocket.send("häl" * 1000)
        assert websocket.recv() == "häl" * 1000
        websocket.send(bytes(range(256)))
        assert websocket.recv() == bytes(range(256))
        websocket.send(["frag", "ments"])
        assert websocket.recv() == "fragments"


def test_websocket_close_codes_pass(websocket_server):
    with connect_websocket(url(websocket_server)) as websocket:
        websocket.send("bye")
        with pytest.raises(ConnectionClosed) as caught:
            websocket.recv()
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "asked")


def test_websocket_can_be_denied_with_a_whole_answer(websocket_server):
    with pytest.raises(InvalidStatus) as caught:
        connect_websocket(url(websocket_server, "/denied"))
    assert caught.value.response.status_code == 418
    assert caught.value.response.headers["x-why"] == "tea"


def test_websocket_gets_a_request_id_and_no_hop_by_hop_fields(websocket_server):
    headers = {"X-Request-ID": "ws-1"}
    with connect_websocket(url(websocket_server), additional_headers=headers, compression=None) as websocket:
        assert websocket.response.headers["x-request-id"] == "ws-1"
        websocket.send("headers")
        assert eval(websocket.recv()) == [
            "host",
            "sec-websocket-key",
            "sec-websocket-version",
            "user-agent",
            "x-request-id",
        ]


@pytest.mark.parametrize(
    "head",
    [
        "POST / HTTP/1.1\r\nContent-Length: 0\r\n",
        "GET / HTTP/1.0\r\n",
        "GET / HTTP/1.1\r\nSec-WebSocket-Version: 99\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 3\r\n",
    ],
)
def test_what_is_no_handshake_switches_no_protocol(websocket_server, head):
    text = (
        f"{head}Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {'A' * 22}==\r\n\r\n"
    )
    with websocket_server.connect() as client:
        assert client.ask(text).status != 101


@pytest.mark.parametrize("code", [1012, 1001])
def test_drain_closes_websockets_with_the_code_that_says_why(code):
    with serving(websocket_echo) as running, connect_websocket(url(running)) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
        assert running.edge.tally.open_streams == 1
        drained = drain_in_background(running, 120, websocket_code=code)
        with pytest.raises(ConnectionClosed) as caught:
            websocket.recv()
        assert caught.value.rcvd.code == code
        drained.result(120)
        assert (running.edge.tally.open_streams, running.edge.tally.streams_closed) == (0, 1)


# TLS


def make_certificate(folder, name, common_name="localhost", days=2):
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    names = ["-subj", f"/CN={common_name}", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-days", str(days), "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    return cert, key


def trusting(cert):
    return ssl.create_default_context(cafile=str(cert))


def test_tls_serves_https_and_a_changed_certificate_without_a_restart(tmp_path):
    cert, key = make_certificate(tmp_path, "first", "one")
    new_cert, new_key = make_certificate(tmp_path, "second", "two", days=90)

    async def scheme(scope, receive, send):
        await respond(send, scope["scheme"].encode())

    with serving(scheme, tls=TlsFiles(certfile=str(cert), keyfile=str(key))) as running:
        both = trusting(cert)
        both.load_verify_locations(str(new_cert))

        def common_name(client):
            return dict(field[0] for field in client.sock.getpeercert()["subject"])["commonName"]

        def ends_at(client):
            return ssl.cert_time_to_seconds(client.sock.getpeercert()["notAfter"])

        with RawClient(running.host, running.port, both) as client:
            assert client.ask(get()).body == b"https"
            assert common_name(client) == "one"
            assert running.server.certificate_ends_at == ends_at(client)
            cert.write_bytes(new_cert.read_bytes())
            assert running.server._tls.reload_if_changed() is False  # the key does not fit yet
            with RawClient(running.host, running.port, both) as other:
                assert common_name(other) == "one"
                assert running.server.certificate_ends_at == ends_at(other)
            key.write_bytes(new_key.read_bytes())
            assert running.server._tls.reload_if_changed() is True
            with RawClient(running.host, running.port, both) as other:
                assert common_name(other) == "two"
                assert running.server.certificate_ends_at == ends_at(other)
            assert client.ask(get()).body == b"https"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_changed_authorities_hold_from_the_next_connection_on_and_no_session_outlives_them(tmp_path, version):
    cert, key = make_certificate(tmp_path, "server")
    clients = {name: make_certificate(tmp_path, name) for name in ("old", "new")}  # each its own authority
    authorities = tmp_path / "authorities.pem"
    authorities.write_bytes(clients["old"][0].read_bytes())

    async def app(scope, receive, send):
        await respond(send, b"hello")

    def showing(name):
        context = trusting(cert)
        context.maximum_version = version
        context.load_cert_chain(*map(str, clients[name]))
        return context

    def is_let_in(running, context, session=None):
        with socket.create_connection((running.host, running.port), timeout=120) as plain:
            try:
                with context.wrap_socket(plain, server_hostname="localhost", session=session) as sock:
                    sock.sendall(get().encode())
                    return sock.recv(10_000).startswith(b"HTTP/1.1 200"), sock.session
            except OSError:  # a refused certificate is heard of at the first read
                return False, None

    files = TlsFiles(certfile=str(cert), keyfile=str(key), ca_certs=str(authorities))
    with serving(app, tls=files) as running:
        old, new = showing("old"), showing("new")
        let_in, session = is_let_in(running, old)
        assert let_in and not is_let_in(running, new)[0]
        authorities.write_text("half of a")
        assert running.server._tls.reload_if_changed() is False
        assert is_let_in(running, old)[0]
        authorities.write_bytes(clients["new"][0].read_bytes())
        assert running.server._tls.reload_if_changed() is True
        assert is_let_in(running, new)[0]
        assert not is_let_in(running, old)[0] and not is_let_in(running, old, session)[0]


@pytest.mark.parametrize("days", [2, 20_000])  # before and after 2050 it is written in two ways
def test_when_a_certificate_ends_is_read_from_the_first_one_of_its_file(tmp_path, days):
    cert, key = make_certificate(tmp_path, "own", "a name " * 9, days)
    above, _ = make_certificate(tmp_path, "above", days=7)
    told = subprocess.run(["openssl", "x509", "-in", cert, "-noout", "-enddate"], capture_output=True, text=True)
    cert.write_bytes(key.read_bytes() + cert.read_bytes() + above.read_bytes())
    tls = Tls(TlsFiles(certfile=str(cert)))
    assert tls.ends_at == ssl.cert_time_to_seconds(told.stdout.strip().removeprefix("notAfter="))


@pytest.mark.parametrize("body", ["", "AAAA", "MIIB", "?"])
def test_what_is_no_certificate_has_no_end(tmp_path, body):
    file = tmp_path / "a.pem"
    file.write_text(f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    assert ends_at(str(file)) is None
    assert ends_at(str(tmp_path / "missing.pem")) is None


def encrypt(key, password):
    command = ["openssl", "pkcs8", "-topk8", "-v2", "aes256", "-in", str(key), "-out", f"{key}.enc"]
    subprocess.run([*command, "-passout", f"pass:{password}"], check=True, capture_output=True)
    return f"{key}.enc"


@pytest.mark.parametrize("password", ["secret", "a $ ecret", "p" * 200])
def test_tls_opens_an_encrypted_key_with_its_password_alone(tmp_path, password):
    cert, key = make_certificate(tmp_path, "a")
    encrypted = encrypt(key, password)
    files = TlsFiles(certfile=str(cert), keyfile=encrypted, password=password)
    assert password not in repr(files)
    with serving(echo, tls=files) as running, RawClient(running.host, running.port, trusting(cert)) as client:
        assert client.ask(get()).status == 200
        os.utime(encrypted)
        assert running.server._tls.reload_if_changed() is True
    for wrong in (None, "", password + "x", "x" * 2000):
        with pytest.raises(OperatorError, match="cannot be used") as failed:
            Tls(TlsFiles(certfile=str(cert), keyfile=encrypted, password=wrong))
        assert "ssl_keyfile_password" in failed.value.hint


def test_tls_below_1_2_is_refused(tmp_path):
    cert, key = make_certificate(tmp_path, "a")
    old = trusting(cert)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with serving(echo, tls=TlsFiles(certfile=str(cert), keyfile=str(key))) as running, pytest.raises(ssl.SSLError):
        RawClient(running.host, running.port, old)


def test_tls_with_ca_certs_asks_clients_for_a_certificate(tmp_path):
    cert, key = make_certificate(tmp_path, "server")
    client_cert, client_key = make_certificate(tmp_path, "client")
    files = TlsFiles(certfile=str(cert), keyfile=str(key), ca_certs=str(client_cert))
    with serving(echo, tls=files) as running:
        known = trusting(cert)
        known.load_cert_chain(str(client_cert), str(client_key))
        with RawClient(running.host, running.port, known) as client:
            assert client.ask(get()).status == 200
        try:
            with RawClient(running.host, running.port, trusting(cert)) as client:
                assert client.ask(get()) is None
        except OSError:
            pass  # refused while it was still being sent: as good


def test_tls_files_that_cannot_be_used_are_an_operators_error(tmp_path):
    with (
        pytest.raises(OperatorError, match=r"missing\.pem"),
        serving(echo, tls=TlsFiles(certfile=str(tmp_path / "missing.pem"))),
    ):
        pass


# HTTP/2


def curl(running, cert, *options):
    address = f"https://localhost:{running.port}/path"
    command = [
        "curl",
        "-s",
        "--cacert",
        str(cert),
        "--resolve",
        f"localhost:{running.port}:127.0.0.1",
        *options,
        address,
    ]
    done = subprocess.run(
        [*command, "-w", "\n%{http_version} %{http_code}"], capture_output=True, text=True, check=True
    )
    body, _, summary = done.stdout.rpartition("\n")
    return body, summary


def test_http2_and_http1_share_a_tls_port_and_the_edges_rules(tmp_path):
    pytest.importorskip("zttp", reason="the extra http2 is not installed")
    cert, key = make_certificate(tmp_path, "a")
    with serving(echo, tls=TlsFiles(certfile=str(cert), keyfile=str(key)), http2=True) as running:
        assert curl(running, cert, "--http2") == ("GET /path ", "2 200")
        assert curl(running, cert, "--http1.1") == ("GET /path ", "1.1 200")
        (tmp_path / "body").write_text("x" * 300_000)
        assert curl(running, cert, "--http2", "-d", f"@{tmp_path}/body") == ("x" * 300_000, "2 200")
        heads, _ = curl(running, cert, "--http2", "-i", "-H", "X-Request-ID: mine")
        assert "x-request-id: mine" in heads
        assert heads.count("date: ") == 1
        running.use(Front(max_request_body_bytes=10))
        assert curl(running, cert, "--http2", "-d", "x" * 11)[1] == "2 413"
        assert running.edge.tally.requests == 5


@pytest.mark.parametrize("size", [30_000, 45_000, 60_000])
def test_http2_takes_queries_as_long_as_http1_does(tmp_path, size):
    pytest.importorskip("zttp", reason="the extra http2 is not installed")
    cert, key = make_certificate(tmp_path, "a")
    with serving(echo, tls=TlsFiles(certfile=str(cert), keyfile=str(key)), http2=True) as running:
        assert curl(running, cert, "--http2", "--get", "--data", "q" * size)[1] == "2 200"


def test_http2_without_tls_is_an_operators_error():
    with pytest.raises(OperatorError, match="needs TLS"), serving(echo, http2=True):
        pass


def test_edge_imports_no_ray():
    code = "import sys, serveconf.proxy.app, serveconf.proxy.server; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.skipif(sys.platform != "linux", reason="socket filters are Linux's")
def test_a_listener_that_refuses_new_connections_completes_none() -> None:
    listener = listen("127.0.0.1", 0)
    refuse_new(listener)
    client = socket.socket()
    client.settimeout(0.2)
    with client, listener, pytest.raises(TimeoutError):
        client.connect(listener.getsockname())
