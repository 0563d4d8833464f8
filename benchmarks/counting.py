"""What counting, the access log and tracing cost a request: all that the proxy does for them, and nothing else, in a loop.

    .venv/bin/python benchmarks/counting.py

Prints microseconds for a request, the best of several rounds: what was slower was the machine's doing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from serveconf.figures import DeploymentFigures
from serveconf.proxy.access_log import LINES_A_WRITE, AccessLog, Line, encoded, json_line
from serveconf.proxy.tally import TRAIL, Tally, Trail
from serveconf.proxy.traced import Tracer, end_span
from serveconf.routing import Route, Tracing
from serveconf.tracing import Outlet

ROUNDS = 200
REQUESTS = 2_048
SCOPE = {"type": "http", "method": "GET", "path": "/a", "raw_path": b"/a", "client": ("127.0.0.1", 1), "headers": []}

LINES: list[Line | bytes] = [json_line(SCOPE, Trail(0.0, b"id"), 200, 0, 12, 0.001, 1.7e9)] * LINES_A_WRITE
HEADERS = [(name.encode(), b"a value") for name in ("host", "accept", "user-agent", "accept-encoding", "connection")]


def best_us(run: Callable[[], None]) -> float:
    """The fastest round, per request."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - began)
    return best / REQUESTS * 1e6


def count_requests() -> None:
    """As ``Exchange``, ``Mount`` and ``Tally`` do it."""
    tally, figures, route = Tally(), DeploymentFigures(), Route(prefix="/a", stack="s", deployment="d")
    scope = {"type": "http", "method": "GET", "path": "/a", "headers": [], "http_version": "1.1"}
    monotonic = time.monotonic
    for _ in range(REQUESTS):
        trail = scope[TRAIL] = Trail(monotonic(), b"id")
        found = scope.get(TRAIL)
        if found is not None:
            found.route, found.figures = route, figures
        tally.ended(scope, trail, 200, 0, 12)


def note_requests() -> None:
    """What an access log adds on the loop; a thread makes bytes of it and writes them."""
    log = AccessLog(most_waiting=REQUESTS)
    log._wake = lambda: None  # type: ignore[method-assign]
    trail = Trail(0.0, b"id", route=Route(prefix="/a", stack="s", deployment="d"))
    for _ in range(REQUESTS):
        log.write(SCOPE, trail, 200, 0, 12, 0.001)


def encode_lines() -> None:
    """What the thread does for a line."""
    for _ in range(REQUESTS // LINES_A_WRITE):
        encoded(LINES)


def look_at_requests() -> None:
    """What tracing costs a request that is not sampled."""
    tracer = Tracer(Tracing(endpoint="http://127.0.0.1:4318", sample=0.0), Outlet())
    scope = {**SCOPE, "headers": HEADERS, TRAIL: Trail(0.0)}
    for _ in range(REQUESTS):
        tracer.begin(scope)


def trace_requests() -> None:
    """... and one that is: its span is made, filled and ended; a thread sends it."""
    tracer = Tracer(Tracing(endpoint="http://127.0.0.1:4318", sample=1.0), Outlet())
    route = Route(prefix="/a", stack="s", deployment="d")
    for _ in range(REQUESTS):
        trail = Trail(0.0, b"id", route=route)
        scope = {**SCOPE, "scheme": "http", "http_version": "1.1", "headers": HEADERS, TRAIL: trail}
        tracer.begin(scope)
        assert trail.span is not None
        end_span(trail.span, scope, trail, 200, 0.001)


def nothing() -> None:
    """The loop itself."""
    for _ in range(REQUESTS):
        pass


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    loop_us = best_us(nothing)
    print(f"counting a request: {best_us(count_requests) - loop_us:.2f} us")
    print(f"noting it for the access log: {best_us(note_requests) - loop_us:.2f} us")
    print(f"seeing that it is not traced: {best_us(look_at_requests) - loop_us:.2f} us")
    print(f"its span, where it is traced: {best_us(trace_requests) - loop_us:.2f} us")
    print(f"its line of JSON, in the log's thread: {best_us(encode_lines) - loop_us:.2f} us")


if __name__ == "__main__":
    main()
