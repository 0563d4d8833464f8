"""Events as lines for people."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from serveconf.cli.columns import Color, folded, paint, visible

HANG = 22  # where what is done to whom begins

_COLORS: dict[str, Color] = {
    "apply": "green",
    "rollback": "yellow",
    "quarantine": "red",
    "heal": "yellow",
    "drift": "yellow",
    "pin": "magenta",
    "canary": "cyan",
    "scale": "cyan",
    "replace": "cyan",
}


def render_event(event: Mapping[str, Any], *, color: bool = False) -> str:
    """``14:02:07  heal       shop/web  replica web-2 died (7 times in 2 min)``."""
    moment = datetime.datetime.fromisoformat(event["time"]).astimezone()
    today = moment.date() == datetime.datetime.now().astimezone().date()
    when = moment.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")
    place = "/".join(visible(name) for name in (event["stack"], event["deployment"]) if name) or "-"
    failed: Color | None = (
        "red" if event["data"].get("code") else None
    )  # an apply that came to nothing, or was taken back
    kind = paint(f"{event['kind']:<10}", failed or _COLORS.get(event["kind"]), on=color)
    return f"{paint(when, dim=True, on=color)}  {kind}  {place}  {visible(event['message'])}{_repeats(event)}"


def _repeats(event: Mapping[str, Any]) -> str:
    if event["count"] == 1:
        return ""
    first = event["data"].get("first")
    if first is None:
        return f" ({event['count']} times)"
    span = datetime.datetime.fromisoformat(event["time"]) - datetime.datetime.fromisoformat(first)
    return f" ({event['count']} times in {_span(span.total_seconds())})"


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


class EventList:
    """The newest events. One that is counted up takes the place of what it was."""

    def __init__(self, most: int = 500) -> None:
        self._most = most
        self._events: list[Mapping[str, Any]] = []

    def take(self, event: Mapping[str, Any]) -> None:
        """The next one."""
        kept = self._events
        if event["count"] > 1:
            kept = [one for one in kept if _origin(one) != _origin(event)]
        self._events = [*kept, event][-self._most :]  # anew, because the terminal's own thread reads the old one

    def lines(self, height: int, *, color: bool = False, width: int | None = None) -> list[str]:
        """The last of them, the newest at the end. ``width``: what is longer has several lines."""
        newest = self._events[-height:] if height > 0 else []
        lines = [line for event in newest for line in folded(render_event(event, color=color), width, HANG)]
        return lines[-height:] if height > 0 else []


def _origin(event: Mapping[str, Any]) -> tuple[Any, ...]:
    """When what is counted together began, and what it is about."""
    return event["kind"], event["stack"], event["deployment"], event["data"].get("first", event["time"])
