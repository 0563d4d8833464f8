"""The status as a live view, past the end of one controller: what ``status`` shows, the dashboard's figures, the newest events.

``take`` is told what the control API tells; ``lines`` is what a screen of that size shows of it. ``events`` is shown in the same way.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from serveconf.cli.columns import Cell, columns, paint, visible
from serveconf.cli.events_view import EventList
from serveconf.cli.status_view import COLORS, ready_count
from serveconf.client import Client
from serveconf.errors import Unreachable

Json = Mapping[str, Any]
COMES_BACK_S = 60.0
Point = Sequence[Any]  # requests/s, errors/s, p50 ms, p99 ms, active, queued

BARS = "▁▂▃▄▅▆▇█"
CURVES = (20, 10, 0)  # seconds; the longest that the screen has room for
NARROWEST = 12  # of a name that is cut short
KEPT = 60
IDLE: Point = (0.0, 0.0, None, None, 0, 0)
EVENTS = 6


class LiveStatus:
    """What is known just now. ``stack``: only this one."""

    def __init__(self, *, stack: str | None = None, color: bool = False) -> None:
        self.status: dict[str, Any] = {}
        self.connected = False
        self.events = EventList()
        self._stack = stack
        self._color = color
        self._curves: dict[str, list[Point]] = {}

    def take(self, kind: str, data: Any) -> None:
        """One thing that the control API tells."""
        self.connected = True
        match kind:
            case "status":
                self.status = data
            case "curves":
                self._curves = {key: list(points[-KEPT:]) for key, points in data["points"].items()}
            case "points":
                for key in self._curves.keys() | data.keys():
                    self._curves[key] = [*self._curves.get(key, [])[1 - KEPT :], data.get(key, IDLE)]

    def lines(self, height: int, width: int = 120) -> list[str]:
        """What fits. Where it does not, replicas go first, then events; curves before names, and no figure."""
        if not self.status:
            return ["waiting for the control API"]
        stacks = [one for one in self.status["stacks"] if self._stack in (None, one["name"])]
        head = [self._head(), ""]
        body = [line for stack in stacks for line in [*self._deployments(stack, width), ""]] or [
            "No stack has been applied.",
            "",
        ]
        replicas = [line for stack in stacks for line in self._odd_replicas(stack)]
        room = height - len(head) - len(body)
        events = self.events.lines(min(EVENTS, max(0, room - 1)), color=self._color)
        below = [paint("Events", bold=True, on=self._color), *events] if events else []
        return [*head, *body, *replicas[: max(0, room - len(below))], *below][:height]

    def _head(self) -> str:
        status = self.status
        ready = sum(
            proxy["state"] == "Ready" and proxy["generation"] == status["generation"] for proxy in status["proxies"]
        )
        said = f"generation {status['generation']}  {ready}/{len(status['proxies'])} proxies"
        if not self.connected:
            return paint(f"{said}  not connected: waiting for the controller", "yellow", on=self._color)
        return visible(said)

    def _deployments(self, stack: Json, width: int) -> list[str]:
        state = paint(stack["state"], COLORS.get(stack["state"]), on=self._color)
        name = paint(visible(stack["name"]), bold=True, on=self._color)
        said = [
            f"  {visible(one['name'])}: {visible(one['message'])}" for one in stack["deployments"] if one["message"]
        ]
        return [f"Stack {name}: {state}, revision {stack['revision']}", *self._table(stack, width), *said]

    def _table(self, stack: Json, width: int) -> list[str]:
        longest = max((len(visible(one["name"])) for one in stack["deployments"]), default=0)
        too_much = 0
        for seconds in CURVES:
            too_much = max(map(len, columns(self._rows(stack, seconds, longest), color=False))) - width
            if too_much <= 0:
                break
        shortest = min(longest, NARROWEST)
        return columns(self._rows(stack, seconds, max(shortest, longest - max(0, too_much))), color=self._color)

    def _rows(self, stack: Json, seconds: int, longest: int) -> list[list[Cell]]:
        head = [
            "DEPLOYMENT",
            "STATE",
            "READY",
            "REQ/S",
            *([""] if seconds else []),
            "P50",
            "P99",
            "ERR/S",
            "ACTIVE",
            "WAITING",
        ]
        rows = [self._deployment(stack["name"], one, seconds, longest) for one in stack["deployments"]]
        return [[Cell(title, dim=True) for title in head], *rows]

    def _deployment(self, stack: str, one: Json, seconds: int, longest: int) -> list[Cell]:
        curve = self._curves.get(f"{stack}/{one['name']}", [])
        requests, errors, p50, p99, active, queued = curve[-1] if curve else IDLE
        name = visible(one["name"])
        return [
            Cell(name if len(name) <= longest else f"{name[: longest - 1]}…"),
            Cell(one["state"], COLORS.get(one["state"])),
            Cell(ready_count(one)),
            Cell(rate(requests)),
            *([Cell(sparkline(point[0] for point in curve[-seconds:]).rjust(seconds), "cyan")] if seconds else []),
            Cell(duration(p50)),
            Cell(duration(p99)),
            Cell(rate(errors), "red" if errors else None),
            Cell(str(active)),
            Cell(str(queued), "yellow" if queued else None),
        ]

    def _odd_replicas(self, stack: Json) -> list[str]:
        """Those that are anything but ready: of hundreds that are, nobody wants to read."""
        odd = [replica for one in stack["deployments"] for replica in one["replicas"] if replica["state"] != "Ready"]
        rows = [[Cell(r["id"]), Cell(r["state"], COLORS.get(r["state"])), Cell(r["node_id"][:8])] for r in odd]
        return columns(rows, color=self._color) if rows else []


def sparkline(values: Iterable[float]) -> str:
    """A curve of one line; nothing at all is a blank."""
    found = list(values)
    highest = max(found, default=0.0)
    if not highest:
        return " " * len(found)
    return "".join(BARS[min(len(BARS) - 1, int(value / highest * len(BARS)))] if value else " " for value in found)


def rate(value: float) -> str:
    """Of a second, in three digits or so."""
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def duration(ms: float | None) -> str:
    """In the unit that reads best."""
    if ms is None:
        return "-"
    if ms >= 1000:
        return f"{ms / 1000:.1f} s"
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"


def watch_status(client: Client, stack: str | None) -> dict[str, Any]:
    """Show it until Ctrl-C; the last status. Raises Unreachable where the controller does not come back."""
    view = LiveStatus(stack=stack, color=True)
    view.status = client.status()
    threading.Thread(target=_follow_events, args=(client, view, stack), daemon=True).start()
    show_while(view.lines, lambda: _follow(client, view), color=True)
    return view.status


def _follow(client: Client, view: LiveStatus) -> None:
    while True:
        try:
            for kind, data in client.live():
                view.take(kind, data)
        except Unreachable:
            pass  # it has ended; the next one tells the same
        view.connected = False
        if not client.comes_back(COMES_BACK_S):
            raise Unreachable(f"the control API at {client.address} does not come back")


def _follow_events(client: Client, view: LiveStatus, stack: str | None) -> None:
    from serveconf.cli.events import followed

    try:
        for event in followed(client, stack, None, tell=lambda message: None):
            view.events.take(event)
    except Unreachable:
        return  # the view says so


def show_while(lines: Callable[[int, int], list[str]], work: Callable[[], None], *, color: bool) -> None:
    """Show what ``lines`` says for a screen of that height and width, four times a second, until ``work`` returns or Ctrl-C."""
    from rich.console import Console, Group  # takes too long to import for a command that shows nothing live
    from rich.live import Live
    from rich.text import Text

    console = Console(file=sys.stdout, no_color=not color, highlight=False, markup=False)

    def picture() -> Group:
        shown = lines(console.size.height - 1, console.size.width)
        return Group(*(Text.from_ansi(line, no_wrap=True, overflow="ellipsis") for line in shown))

    with Live(get_renderable=picture, console=console, screen=True, refresh_per_second=4, redirect_stderr=False):
        try:
            work()
        except KeyboardInterrupt:
            return
