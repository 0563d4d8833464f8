"""A constant load: eight connections that ask one path after the other, and remember every answer that was no success."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections.abc import Callable, Sequence

from place import ASK_S

CONNECTIONS = 8
PAUSE_S = 0.01  # between two requests of one connection: the machine has other things to do


FURTHER = 4 * CONNECTIONS  # requests before the block begins, and anew after it: however short it is, they surround it


class Load:
    """Runs while its ``with`` block does, and some requests before and after it. ``failures``: what went wrong, with the path."""

    def __init__(self, port: int, paths: Sequence[str], good: Callable[[int, bytes], bool] | None = None) -> None:
        self._port = port
        self._paths = paths
        self._good = good or (lambda status, body: status == 200)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(CONNECTIONS)]
        self.answers = 0
        self.failures: list[str] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self._wait_for_further()
        return self

    def __exit__(self, *raised: object) -> None:
        self._wait_for_further()
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _wait_for_further(self) -> None:
        """Until so many requests more have ended, well or not: each of them does within its connection's time-out."""
        enough = self.answers + len(self.failures) + FURTHER
        while self.answers + len(self.failures) < enough:
            time.sleep(PAUSE_S)

    def _work(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ASK_S)
        paths = itertools.islice(itertools.cycle(self._paths), number, None)
        while not self._stop.is_set():
            self._ask(connection, next(paths))
            time.sleep(PAUSE_S)
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, path: str) -> None:
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self.failures.append(f"{path}: {error!r}")
            return
        self.answers += 1
        if not self._good(answer.status, body):
            self.failures.append(f"{path}: {answer.status} {body[:200]!r}")
