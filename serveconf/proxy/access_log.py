"""A line for each request that is over, on the proxy's stdout: JSON, or the combined format that log tools know.

``Tally`` calls ``write`` on the loop, which notes what a line says; a thread turns many of them into bytes at once and writes
them. Where stdout takes nothing, or not fast enough, lines are dropped and counted: a log never holds up an answer.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import groupby
from typing import Any

import msgspec

from serveconf.proxy.tally import Trail

MOST_WAITING = 20_000  # lines; past it they are dropped
GATHER_S = 0.05  # lines are written together: one wake-up and one system call for many
LINES_A_WRITE = 512  # the loop waits while so many are encoded: a tenth of a millisecond

JSON = "json"
COMBINED = "combined"

_UNSAFE = re.compile(r'[\x00-\x1f"\\\x7f-\x9f]')
_MILLISECONDS = tuple(f".{number:03d}Z" for number in range(1000))
_encode_lines = msgspec.json.Encoder().encode_lines


class Line(msgspec.Struct, gc=False):
    """One line of the JSON log, in the contract's order. A struct of texts: it keeps no request alive, and costs no collection."""

    time: str  # when the request began
    method: str
    path: str  # as the client sent it, without its query: that is where secrets are
    status: int  # 101: a WebSocket; 499: the client did not wait for the answer
    bytes_in: int
    bytes_out: int
    duration_ms: float
    queue_ms: float
    request_id: str | None
    client: str | None
    stack: str | None
    deployment: str | None
    replica: str | None
    reason: str | None


class AccessLog:
    """The log of one process. ``format`` may be changed at any time; lines that wait stay in the old one."""

    def __init__(self, descriptor: int = 1, *, most_waiting: int = MOST_WAITING) -> None:
        self.format = JSON
        self.dropped = 0
        self._descriptor = descriptor
        self._most = most_waiting
        self._waiting: deque[Line | bytes] = deque()
        self._wall_from_monotonic = 0.0  # looked at anew for each wake-up, as the wall clock may be set
        self._news = threading.Event()
        self._is_awake = False  # the same, for the loop: asking an Event costs more than the rest of the look
        self._idle = threading.Event()
        self._idle.set()
        self._thread: threading.Thread | None = None

    def write(
        self, scope: Mapping[str, Any], trail: Trail, status: int, bytes_in: int, bytes_out: int, seconds: float
    ) -> None:
        """The request is over. Called on the loop, for each: what it costs is in ``benchmarks/counting.py``."""
        waiting = self._waiting
        if len(waiting) >= self._most:
            self.dropped += 1
            return
        if not self._is_awake:
            self._wall_from_monotonic = time.time() - time.monotonic()
        began = trail.began + self._wall_from_monotonic
        if self.format == JSON:
            waiting.append(json_line(scope, trail, status, bytes_in, bytes_out, seconds, began))
        else:
            waiting.append(combined_line(scope, status, bytes_out, began))
        if not self._is_awake:
            self._wake()

    def flush(self, timeout_s: float) -> None:
        """Return when all is written, or after so many seconds."""
        if self._thread is not None:
            self._idle.wait(timeout_s)

    def _wake(self) -> None:
        self._idle.clear()
        self._is_awake = True
        self._news.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            self._news.wait()
            time.sleep(GATHER_S)
            self._news.clear()
            self._is_awake = False  # what is noted from here on wakes again
            self._write_waiting()
            if not self._waiting:
                self._idle.set()
                if self._waiting or self._news.is_set():  # noted in between
                    self._idle.clear()

    def _write_waiting(self) -> None:
        while self._waiting:
            lines = [self._waiting.popleft() for _ in range(min(LINES_A_WRITE, len(self._waiting)))]
            try:
                _write_all(self._descriptor, encoded(lines))
            except OSError:  # a full disk, a reader that has gone: the next lines may get through
                self.dropped += len(lines)


def encoded(lines: list[Line | bytes]) -> bytes:
    """Of one format, as nearly always, in one go."""
    return b"".join(
        _encode_lines(list(group)) if kind is Line else b"".join(group)  # type: ignore[arg-type]
        for kind, group in groupby(lines, type)
    )


def json_line(
    scope: Mapping[str, Any],
    trail: Trail,
    status: int,
    bytes_in: int,
    bytes_out: int,
    seconds: float,
    began: float,
) -> Line:
    """As a JSON object. ``began``: by the wall clock."""
    route, client, queue_s, second = trail.route, scope.get("client"), trail.queue_s, int(began)
    return Line(  # by place: by keyword it takes half a microsecond more
        _second(second, "%Y-%m-%dT%H:%M:%S") + _MILLISECONDS[int((began - second) * 1000)],
        scope.get("method", "GET"),
        (scope.get("raw_path") or b"-").decode("ascii", "replace"),
        status,
        bytes_in,
        bytes_out,
        int(seconds * 1e6 + 0.5) / 1000,  # round() takes four times as long
        int(queue_s * 1e6 + 0.5) / 1000 if queue_s else 0.0,
        trail.request_id.decode("ascii", "replace") or None,
        client[0] if client else None,
        route.stack if route else None,
        route.deployment if route else None,
        trail.replica or None,
        trail.reason or None,
    )


def combined_line(scope: Mapping[str, Any], status: int, bytes_out: int, began: float) -> bytes:
    """As Apache's combined log format, which nginx writes too. Quotes and control characters are escaped as ``\\xHH``."""
    path, query = scope.get("raw_path") or b"", scope.get("query_string", b"")
    target = path.decode("ascii", "replace") + (f"?{query.decode('ascii', 'replace')}" if query else "")
    request = f"{scope.get('method', 'GET')} {target} HTTP/{scope.get('http_version', '1.1')}" if target else "-"
    when = _second(int(began), "%d/%b/%Y:%H:%M:%S +0000")
    headers = scope.get("headers", ())
    referer, agent = _safe(_field(headers, b"referer")), _safe(_field(headers, b"user-agent"))
    client = scope.get("client")
    host = client[0] if client else "-"
    return f'{host} - - [{when}] "{_safe(request)}" {status} {bytes_out} "{referer}" "{agent}"\n'.encode()


@lru_cache(maxsize=64)
def _second(second: int, layout: str) -> str:
    """Most lines are of the same second."""
    return time.strftime(layout, time.gmtime(second))


def _field(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in headers if name == wanted), "-")


def _safe(text: str) -> str:
    return _UNSAFE.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
