"""A controller that answers as a test says, over a real socket: what dies, what is of another version, what is none at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from serveconf import __version__
from serveconf.credentials import prove

RESULT = {
    "event": "result",
    "stack": "shop",
    "revision": 2,
    "changed": True,
    "outcome": "applied",
    "actions": [],
    "receipt": {"requests": 3, "failed": 0, "max_gap_ms": 1.0, "duration_s": 0.5},
    "problems": [],
}


class Odd:
    """What it answers: ``said`` by method and path, each a list of which one goes after the other, and the last one stays."""

    def __init__(self) -> None:
        self.said: dict[str, list[tuple[int, bytes] | Callable[[Any], None]]] = {}
        self.asked: list[str] = []
        self.heard: list[tuple[dict[str, list[str]], dict[str, str], bytes]] = []  # of each: query, headers, body
        self.health: Any = None  # what it says there instead
        self.version = __version__
        odd = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                odd.heard.append((parse_qs(url.query), headers, body))
                what = f"{self.command} {url.path.removeprefix('/api/v1')}"
                if what == "GET /health" and odd.health is not None:
                    odd.answer(self, 200, odd.health)
                    return
                if what == "GET /health":
                    proofs = [prove("secret", parse_qs(url.query)["challenge"][0])]
                    odd.answer(self, 200, {"service": "serveconf", "version": odd.version, "api": 1, "proofs": proofs})
                    return
                odd.asked.append(what)
                answers = odd.said[what]
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                if callable(answer):
                    answer(self)
                else:
                    odd.answer(self, *answer)

            do_POST = do_PUT = do_DELETE = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, handler: BaseHTTPRequestHandler, status: int, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def lines(*events: dict[str, Any] | bytes, dies: bool = False) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer of one JSON object a line; ``dies``: as from a process that is killed after the last one."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        for event in events:
            line = event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n"
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        if not dies:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    return send
