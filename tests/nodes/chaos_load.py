"""Visitors at the proxies of many nodes at once, for as long as it takes; what they met is counted by cause."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

PATHS = ("/spread", "/pair", "/spread/slow", "/pair/slow")
PORT = 8000
REQUEST_S = 120.0


@dataclass
class Counts:
    """What the visitors met."""

    requests: int = 0
    excused: int = 0
    worst_s: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)


class Load:
    """Visitors at every node's proxy, each with a connection that it keeps. ``gone``: nodes whose proxy is not to be judged."""

    def __init__(self, connections: int, paths: tuple[str, ...] = PATHS) -> None:
        self.counts = Counts()
        self.gone: set[str] = set()
        self._since: dict[str, float] = {}  # when a proxy was last given up or taken back
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._connections = connections
        self._paths = paths
        self._threads: list[threading.Thread] = []

    def visit(self, ips: list[str]) -> None:
        """Begin."""
        for number in range(self._connections):
            thread = threading.Thread(target=self._work, args=(ips[number % len(ips)], number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def end(self) -> None:
        """Every visitor has had its last answer."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def excuse(self, ip: str) -> None:
        """The proxy there is about to be killed, frozen or cut off."""
        with self._lock:
            self.gone.add(ip)

    def judge(self, ip: str) -> None:
        """It lives again."""
        with self._lock:
            self.gone.discard(ip)
            self._since[ip] = time.monotonic()

    def window(self) -> float:
        """The slowest answer since the last look, in seconds."""
        with self._lock:
            worst, self.counts.worst_s = self.counts.worst_s, 0.0
        return worst

    def _work(self, ip: str, number: int) -> None:
        connection: http.client.HTTPConnection | None = None
        turn = number
        while not self._stop.is_set():
            turn += 1
            began, path = time.monotonic(), self._paths[turn % len(self._paths)]
            kept, connection, cause = connection is not None, *_ask(connection, ip, path)
            if kept and cause == "closed while idle":
                continue
            self._count(ip, began, cause and f"{path}: {cause}")
            if cause:
                time.sleep(0.2)
            time.sleep(0.02)
        if connection is not None:
            connection.close()

    def _count(self, ip: str, began: float, cause: str) -> None:
        with self._lock:
            self.counts.requests += 1
            if ip in self.gone or began < self._since.get(ip, 0.0):
                self.counts.excused += bool(cause)
                return
            self.counts.worst_s = max(self.counts.worst_s, time.monotonic() - began)
            if cause:
                self.counts.failed[f"{ip}{cause}"] += 1


def _ask(
    connection: http.client.HTTPConnection | None, ip: str, path: str
) -> tuple[http.client.HTTPConnection | None, str]:
    """The connection, where it goes on, and what is wrong with the answer."""
    kept = connection is not None
    connection = connection or http.client.HTTPConnection(ip, PORT, timeout=REQUEST_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        if kept and isinstance(error, ConnectionError):
            return None, "closed while idle"  # a client asks again (RFC 9112 section 9.3.1)
        return None, f"{type(error).__name__}"
    if answer.will_close:
        connection.close()
    cause = "" if answer.status == 200 else f"{answer.status} {body[:60].decode(errors='replace')}"
    return (None if answer.will_close else connection), cause
