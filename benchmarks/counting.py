"""What counting costs a request: all that the proxy does for its metrics, and nothing else, in a loop.

    .venv/bin/python benchmarks/counting.py

Prints microseconds for a request, the best of several rounds: what was slower was the machine's doing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from serveconf.figures import DeploymentFigures
from serveconf.proxy.tally import TRAIL, Tally, Trail
from serveconf.routing import Route

ROUNDS = 30
REQUESTS = 20_000


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


def nothing() -> None:
    """The loop itself."""
    for _ in range(REQUESTS):
        pass


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(f"counting a request: {best_us(count_requests) - best_us(nothing):.2f} us")


if __name__ == "__main__":
    main()
