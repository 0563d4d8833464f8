"""A real ``ProxyServer`` on a free port of 127.0.0.1, in a thread of its own, and a raw client for it."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import threading
from contextlib import contextmanager
from dataclasses import replace

import uvloop

from serveconf.proxy.edge import Edge, Limits
from serveconf.proxy.server import ProxyServer


class RunningServer:
    """``server.port`` is open; ``run`` runs a coroutine in the server's loop; ``seen`` is for the app under test."""

    def __init__(self, app, **options):
        self.seen = []
        limits = options.pop("limits", None) or Limits()
        self.edge = options.pop("edge", None) or Edge(limits)
        self.loop = uvloop.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server = ProxyServer(
            app, options.pop("host", "127.0.0.1"), options.pop("port", 0), edge=self.edge, **options
        )
        try:
            self.host, self.port = self.run(self.server.start())
        except BaseException:
            self._end_loop()
            raise

    def run(self, coroutine, timeout_s=120):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout_s)

    def use(self, front):
        """Set the front's live settings, from within the loop."""

        async def change():
            self.edge.use(front)

        self.run(change())

    def limit(self, **limits):
        """From now on these hold: a client that must have sent something in time has done so before."""

        async def change():
            self.edge.limits = replace(self.edge.limits, **limits)

        self.run(change())

    def stop(self):
        self.run(self.server.drain(0))
        self._end_loop()

    def _end_loop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def connect(self):
        return RawClient(self.host, self.port)


@contextmanager
def serving(app, **options):
    running = RunningServer(app, **options)
    try:
        yield running
    finally:
        running.stop()


class Answer:
    """One answer as it came: status, header fields in order, body, and whether its body was whole."""

    def __init__(self, status, fields, body, whole):
        self.status = status
        self.fields = fields
        self.body = body
        self.whole = whole

    def all(self, name):
        return [value for key, value in self.fields if key == name]

    def get(self, name):
        values = self.all(name)
        return values[0] if values else None


class RawClient:
    """Sends bytes, reads answers by the rules of RFC 9112 §6.3; knows when the server has closed."""

    def __init__(self, host, port, context=None, timeout_s=120):
        self.sock = socket.create_connection((host, port), timeout=timeout_s)
        if context is not None:
            self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode("latin1"))
        return self

    def _more(self):
        try:
            data = self.sock.recv(65536)
        except (ConnectionResetError, ssl.SSLError):
            return False
        self.buffer += data
        return bool(data)

    def _until(self, mark):
        while mark not in self.buffer:
            if not self._more():
                return None
        part, _, self.buffer = self.buffer.partition(mark)
        return part

    def _exactly(self, size):
        while len(self.buffer) < size:
            if not self._more():
                break
        part, self.buffer = self.buffer[:size], self.buffer[size:]
        return part

    def head(self):
        """Status and fields of the next answer, None when the server closes without one."""
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        first, *lines = head.decode("latin1").split("\r\n")
        status = int(re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", first).group(1))
        return status, [tuple(line.split(": ", 1)) for line in lines]

    def answer(self, method="GET"):
        """The next answer, None when the server closes without one."""
        head = self.head()
        if head is None:
            return None
        status, fields = head
        names = dict(fields)
        if method == "HEAD" or status in (100, 204, 304):
            return Answer(status, fields, b"", True)
        if names.get("transfer-encoding") == "chunked":
            return Answer(status, fields, *self._chunks())
        if "content-length" in names:
            size = int(names["content-length"])
            body = self._exactly(size)
            return Answer(status, fields, body, len(body) == size)
        while self._more():
            pass
        body, self.buffer = self.buffer, b""
        return Answer(status, fields, body, True)

    def _chunks(self):
        body = b""
        while True:
            size = self._until(b"\r\n")
            if size is None:
                return body, False
            if int(size, 16) == 0:
                self.trailer = self._until(b"\r\n") if not self.buffer.startswith(b"\r\n") else b""
                return body, self._until(b"\r\n") is not None
            chunk = self._exactly(int(size, 16))
            body += chunk
            if self._exactly(2) != b"\r\n":
                return body, False

    def is_closed(self):
        """Whether the server closes now, with nothing more to say."""
        try:
            return self.buffer == b"" and self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def ask(self, data, method="GET"):
        return self.send(data).answer(method)


def get(path="/", headers="", version="1.1", method="GET"):
    return f"{method} {path} HTTP/{version}\r\nHost: localhost\r\n{headers}\r\n"


def post(body, headers="", path="/"):
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{headers}\r\n{body}"


async def read_body(receive):
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body, more = body + message["body"], message["more_body"]
    return body


async def respond(send, body=b"", status=200, headers=()):
    fields = [(b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def echo(scope, receive, send):
    """Answers with the body it got, or for GET with its method, path and query."""
    body = await read_body(receive)
    if body is None:
        return
    if scope["method"] == "GET" and not body:
        body = b" ".join([scope["method"].encode(), scope["path"].encode(), scope["query_string"]])
    await respond(send, body)


async def show_headers(scope, receive, send):
    """Answers with the request's header fields, one on a line."""
    await respond(send, b"".join(name + b": " + value + b"\n" for name, value in scope["headers"]))
