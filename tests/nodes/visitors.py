"""A constant load from outside the nodes: some visitors keep their connection, the others make a new one each time."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Sequence

from place import ASK_S

VISITORS = 4
PAUSE_S = 0.02  # between two requests of one visitor: the machine has other things to do
FURTHER = 4 * VISITORS  # visits before the block begins, and anew after it: however short it is, they surround it

Address = tuple[str, int]


class Visitors:
    """They come while the ``with`` block runs, and a little before and after it, to the first of the addresses that lets
    them in.

    ``failures``: whatever was no answer of 200.
    """

    def __init__(self, addresses: Sequence[Address], paths: Sequence[str]) -> None:
        self._addresses = addresses
        self._paths = paths
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(VISITORS)]
        self.answers: dict[Address, int] = dict.fromkeys(addresses, 0)
        self.failures: list[str] = []

    def __enter__(self) -> Visitors:
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
        """Until so many visits more have ended, well or not: each of them does within its connection's time-out."""
        enough = self._ended() + FURTHER
        while self._ended() < enough:
            time.sleep(PAUSE_S)

    def _ended(self) -> int:
        return sum(self.answers.values()) + len(self.failures)

    def _work(self, number: int) -> None:
        connection, turn = None, number
        while not self._stop.is_set():
            turn += 1
            connection = self._ask(connection, self._paths[turn % len(self._paths)], keep=number % 2 == 0)
            time.sleep(PAUSE_S)
        if connection is not None:
            connection.close()

    def _ask(
        self, kept: http.client.HTTPConnection | None, path: str, *, keep: bool
    ) -> http.client.HTTPConnection | None:
        """One visit; the connection, where both sides keep it."""
        try:
            connection = kept or self._connect()
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        except ConnectionError as error:
            if kept is not None:  # it was closed while it was idle: a client asks again (RFC 9112 section 9.3.1)
                kept.close()
                return self._ask(None, path, keep=keep)
            self.failures.append(f"{path}: {error!r} on a new connection")
            return None
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(f"{path}: {error!r}")
            return None
        self.answers[connection.host, connection.port] += 1
        if answer.status != 200:
            self.failures.append(f"{path}: {answer.status} {body[:200]!r}")
        if keep and not answer.will_close:
            return connection
        connection.close()
        return None

    def _connect(self) -> http.client.HTTPConnection:
        for host, port in self._addresses:
            connection = http.client.HTTPConnection(host, port, timeout=ASK_S)
            try:
                connection.connect()
            except ConnectionRefusedError:
                continue
            return connection
        raise ConnectionRefusedError(f"nobody listens on any of {self._addresses}")
