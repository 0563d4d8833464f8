"""What counting and the access log cost a request: all that the proxy does for them, and nothing else, in a loop.

    .venv/bin/python benchmarks/counting.py

Prints microseconds for a request, the best of several rounds: what was slower was the machine's doing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from serveconf.figures import DeploymentFigures
from serveconf.proxy.access_log import AccessLog, json_line
from serveconf.proxy.tally import TRAIL, Tally, Trail
from serveconf.routing import Route

ROUNDS = 30
REQUESTS = 20_000
SCOPE = {"type": "http", "method": "GET", "path": "/a", "raw_path": b"/a", "client": ("127.0.0.1", 1), "headers": []}


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
    """What an access log adds on the loop; its lines are made and written by a thread."""
    log = AccessLog(most_waiting=REQUESTS)
    log._wake = lambda: None  # type: ignore[method-assign]
    trail = Trail(0.0, b"id")
    for _ in range(REQUESTS):
        log.write(SCOPE, trail, 200, 0, 12, 0.001)


def write_lines() -> None:
    """What the thread does for a line."""
    trail = Trail(0.0, b"id", route=Route(prefix="/a", stack="s", deployment="d"))
    noted = (SCOPE, trail, 200, 0, 12, 0.001)
    for _ in range(REQUESTS):
        json_line(noted, 1.7e9)


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
    print(f"a line of JSON, in the log's thread: {best_us(write_lines) - loop_us:.2f} us")


if __name__ == "__main__":
    main()
