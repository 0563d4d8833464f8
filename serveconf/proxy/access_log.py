"""A line for each request that is over, on the proxy's stdout: JSON, or the combined format that log tools know.

``Tally`` calls ``write`` on the loop, which only notes; a thread makes the lines and writes them. Where stdout takes nothing,
or not fast enough, lines are dropped and counted: a log never holds up an answer.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from serveconf.proxy.tally import Trail

MOST_WAITING = 20_000  # lines; past it they are dropped
GATHER_S = 0.05  # lines are written together: one wake-up and one system call for many
LINES_A_WRITE = 64  # the write lets go of the interpreter, so the loop waits for this many at most

JSON = "json"
COMBINED = "combined"

_UNSAFE = re.compile(r'[\x00-\x1f"\\\x7f-\x9f]')
_encode = msgspec.json.Encoder().encode

_Noted = tuple[Mapping[str, Any], Trail, int, int, int, float]  # scope, trail, status, bytes in, bytes out, seconds


class Line(msgspec.Struct, frozen=True):
    """One line of the JSON log, in the contract's order."""

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
    """The log of one process. ``format`` may be changed at any time; lines that wait are then written in the new one."""

    def __init__(self, descriptor: int = 1, *, most_waiting: int = MOST_WAITING) -> None:
        self.format = JSON
        self.dropped = 0
        self._descriptor = descriptor
        self._most = most_waiting
        self._waiting: deque[_Noted] = deque()
        self._news = threading.Event()
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
        waiting.append((scope, trail, status, bytes_in, bytes_out, seconds))
        if not self._news.is_set():
            self._wake()

    def flush(self, timeout_s: float) -> None:
        """Return when all is written, or after so many seconds."""
        if self._thread is not None:
            self._idle.wait(timeout_s)

    def _wake(self) -> None:
        self._idle.clear()
        self._news.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            self._news.wait()
            time.sleep(GATHER_S)
            self._news.clear()  # what is noted from here on wakes again
            self._write_waiting()
            if not self._waiting:
                self._idle.set()
                if self._news.is_set():  # noted in between
                    self._idle.clear()

    def _write_waiting(self) -> None:
        wall_from_monotonic = time.time() - time.monotonic()
        while self._waiting:
            noted = [self._waiting.popleft() for _ in range(min(LINES_A_WRITE, len(self._waiting)))]
            make = combined_line if self.format == COMBINED else json_line
            try:
                _write_all(self._descriptor, b"".join(make(one, wall_from_monotonic + one[1].began) for one in noted))
            except OSError:  # a full disk, a reader that has gone: the next lines may get through
                self.dropped += len(noted)


def json_line(noted: _Noted, began: float) -> bytes:
    """As a JSON object."""
    scope, trail, status, bytes_in, bytes_out, seconds = noted
    route, client = trail.route, scope.get("client")
    line = Line(  # by place: by keyword it takes half a microsecond more
        f"{_second(int(began), '%Y-%m-%dT%H:%M:%S')}.{int(began % 1 * 1000):03d}Z",
        scope.get("method", "GET"),
        (scope.get("raw_path") or b"-").decode("ascii", "replace"),
        status,
        bytes_in,
        bytes_out,
        round(seconds * 1000, 3),
        round(trail.queue_s * 1000, 3),
        trail.request_id.decode("ascii", "replace") or None,
        client[0] if client else None,
        route.stack if route else None,
        route.deployment if route else None,
        trail.replica or None,
        trail.reason or None,
    )
    return _encode(line) + b"\n"


def combined_line(noted: _Noted, began: float) -> bytes:
    """As Apache's combined log format, which nginx writes too. Quotes and control characters are escaped as ``\\xHH``."""
    scope, _, status, _, bytes_out, _ = noted
    path, query = scope.get("raw_path") or b"", scope.get("query_string", b"")
    target = path.decode("ascii", "replace") + (f"?{query.decode('ascii', 'replace')}" if query else "")
    request = f"{scope.get('method', 'GET')} {target} HTTP/{scope.get('http_version', '1.1')}" if target else "-"
    when = _second(int(began), "%d/%b/%Y:%H:%M:%S +0000")
    headers = scope.get("headers", ())
    referer, agent = _safe(_field(headers, b"referer")), _safe(_field(headers, b"user-agent"))
    client = scope.get("client")
    host = client[0] if client else "-"
    return f'{host} - - [{when}] "{_safe(request)}" {status} {bytes_out} "{referer}" "{agent}"\n'.encode()


@lru_cache(maxsize=8)
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
