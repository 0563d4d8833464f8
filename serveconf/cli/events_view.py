"""Events as lines for people."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from serveconf.cli.columns import paint, visible

_COLORS = {
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
    kind = paint(f"{event['kind']:<10}", _COLORS.get(event["kind"]), on=color)
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
