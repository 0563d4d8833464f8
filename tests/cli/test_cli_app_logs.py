"""What apps write beside a running ``run``: lines come as they are written, also past what goes away in between."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from lasting import Meanwhile
from odd import Odd, lines

from serveconf.cli import app_logs
from serveconf.cli.app_logs import AppLogs
from serveconf.client import Client
from serveconf.errors import Unreachable

STATUS = {
    "stacks": [
        {"name": "shop", "deployments": [{"name": "web"}]},
        {"name": "others", "deployments": [{"name": "web"}]},
    ]
}
LOGS = "GET /stacks/shop/deployments/web/logs"


def row(line: str) -> dict[str, Any]:
    return {"replica": "shop.web.1", "line": line}


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Odd]:
    monkeypatch.setattr(app_logs, "LOOK_S", 0.01)
    odd = Odd()
    odd.said["GET /status"] = [(200, json.dumps(STATUS).encode())]
    yield odd
    odd.close()


class Shown:
    """The lines that were shown; ``away`` connections are refused before the first that is made."""

    def __init__(self, odd: Odd, *, known: tuple[str, ...] = (), away: int = 0) -> None:
        self.lines: list[tuple[str, str, str]] = []
        self._odd, self._away = odd, away
        self.logs = AppLogs(self._client, lambda: ["shop"], lambda status: None, self._take, known)

    def _client(self) -> Client:
        """As a watcher that is just looking for its controller anew."""
        if threading.current_thread().name.startswith("logs") and self._away:
            self._away -= 1
            raise Unreachable("no control API answers just now")
        return Client(self._odd.url, "secret")

    def _take(self, *line: str) -> None:
        self.lines.append(line)  # type: ignore[arg-type]

    def until(self, *texts: str) -> None:
        Meanwhile().until(lambda: [line for _, _, line in self.lines] == [*texts], f"{texts}, not {self.lines}")
        self.logs.stop()


def test_the_apps_lines_are_shown_and_neither_ours_nor_other_stacks(odd: Odd) -> None:
    ours = "2026-01-31 12:00:00,000 INFO serveconf.replica ready"
    hangs = threading.Event()

    def written(handler: Any) -> None:
        lines(row("hello"), row(ours), row("2026-01-31 12:00:00,000 WARNING serveconf.replica slow"), dies=True)(
            handler
        )
        hangs.wait(120)

    odd.said[LOGS] = [written]
    shown = Shown(odd)
    shown.until("hello", "2026-01-31 12:00:00,000 WARNING serveconf.replica slow")
    hangs.set()
    assert {line[:2] for line in shown.lines} == {("shop", "web")}
    assert odd.asked.count(LOGS) == 1


@pytest.mark.parametrize("away", [1, 3])
def test_a_controller_that_is_away_just_then_is_asked_again(odd: Odd, away: int) -> None:
    """It went between the status, which it told, and the logs: the thread that reads them ended in an error of its own."""
    hangs = threading.Event()

    def written(handler: Any) -> None:
        lines(row("hello"), dies=True)(handler)
        hangs.wait(120)

    odd.said[LOGS] = [written]
    Shown(odd, away=away).until("hello")
    hangs.set()


def test_a_deployment_that_goes_and_comes_back_is_followed_anew(odd: Odd) -> None:
    gone = {"error": {"code": "not_found", "message": "stack 'shop' has no deployment 'web'", "hint": None}}
    hangs = threading.Event()

    def written(handler: Any) -> None:
        lines(row("again"), dies=True)(handler)
        hangs.wait(120)

    odd.said[LOGS] = [lines(row("first"), dies=True), (404, json.dumps(gone).encode()), written]
    Shown(odd).until("first", "again")
    hangs.set()
