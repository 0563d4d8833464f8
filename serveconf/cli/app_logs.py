"""What the apps write, and how they are, for whoever looks at a running ``run``: a thread asks, others read the logs."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from serveconf.errors import ServeconfError

if TYPE_CHECKING:
    from serveconf.client import Client

LOOK_S = 1.0
TAIL = 100  # lines of a deployment that was just started

_OURS = re.compile(r"\d{4}-\d\d-\d\d [\d:,.]+ (?:DEBUG|INFO) serveconf\.|\{.*\"logger\": \"serveconf\.")
Line = Callable[[str, str, str], None]  # stack, deployment, line


class AppLogs:
    """Asks for the status once a second; follows the logs of each deployment of the stacks that are ``ours``."""

    def __init__(
        self,
        client: Callable[[], Client],
        ours: Callable[[], Iterable[str]],
        status: Callable[[Mapping[str, Any]], None],
        line: Line | None,
        known: Iterable[str] = (),
    ) -> None:
        """``line``: None where nobody wants to see logs. ``known``: stacks that ran before, whose past is not told."""
        self._client = client
        self._ours = ours
        self._status = status
        self._line = line
        self._known = frozenset(known)
        self._followed: set[tuple[str, str]] = set()
        self._stop = threading.Event()
        threading.Thread(target=self._run, name="status", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                found = self._client().status()
                self._status(found)
                self._follow_new(found)
            except ServeconfError:
                pass  # who follows the stacks says so
            self._stop.wait(LOOK_S)

    def _follow_new(self, status: Mapping[str, Any]) -> None:
        ours = set(self._ours()) if self._line is not None else set()
        for stack in status["stacks"]:
            for deployment in stack["deployments"] if stack["name"] in ours else ():
                key = (stack["name"], deployment["name"])
                if key not in self._followed:
                    self._followed.add(key)
                    threading.Thread(target=self._read, args=key, name=f"logs {key}", daemon=True).start()

    def _read(self, stack: str, deployment: str) -> None:
        from serveconf.client import Client

        tail = 0 if stack in self._known else TAIL
        client: Client | None = None
        try:
            known = self._client()
            client = Client(known.address, known.token)  # a line of its own: this one is never free again
            for line in client.logs(stack, deployment, tail=tail, follow=True):
                if self._stop.is_set():
                    return
                if self._line is not None and not _OURS.match(line["line"]):
                    self._line(stack, deployment, line["line"])
        except ServeconfError:
            pass  # the deployment or the controller is gone; where it comes back it is followed anew
        finally:
            if client is not None:
                client.close()
            self._followed.discard((stack, deployment))
