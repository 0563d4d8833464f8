"""One deployment in full, for ``status DEPLOYMENT``: what it is, its replicas, and what has happened to it lately."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from serveconf.cli.columns import folded, paint, scaled, visible
from serveconf.errors import NotFound

if TYPE_CHECKING:
    from serveconf.client import Client

LATELY = datetime.timedelta(hours=1)
SHOWN_EVENTS = 10
SHOWN_DATA = 20
_RESTARTS = ("heal", "replace")


def find_stack(status: dict[str, Any], stack: str) -> dict[str, Any]:
    """That stack of a status. Raises NotFound."""
    found: dict[str, Any] | None = next((one for one in status["stacks"] if one["name"] == stack), None)
    if found is None:
        names = ", ".join(one["name"] for one in status["stacks"])
        raise NotFound(
            f"there is no stack '{stack}'", hint=f"its stacks: {names}" if names else "nothing has been applied yet"
        )
    return found


def look_at_deployment(client: Client, stack: str, name: str) -> dict[str, Any]:
    """Its part of the status, what its spec says, and the events and restarts of the last hour. Raises NotFound."""
    found = find_stack(client.status(), stack)
    here = next((one for one in found["deployments"] if one["name"] == name), None)
    if here is None:
        names = ", ".join(one["name"] for one in found["deployments"]) or "none"
        raise NotFound(f"stack '{stack}' has no deployment '{name}'", hint=f"its deployments: {names}")
    since = (datetime.datetime.now(datetime.UTC) - LATELY).isoformat()
    events = [event for event in client.recent_events(stack=stack, since=since) if event["deployment"] in (None, name)]
    told = client.revision(stack, found["revision"])["spec"] if found["revision"] else {}
    spec: dict[str, Any] = next(
        (one for one in told.get("deployments", ()) if one.get("name") == name.partition(".")[0]), {}
    )
    return {
        "stack": stack,
        "revision": found["revision"],
        **here,
        "data": found.get("data", []),
        "spec": spec,
        "restarts": restarts(events, name),
        "events": events[-SHOWN_EVENTS:],
    }


def restarts(events: list[Any], name: str) -> dict[str, Any]:
    """How many replicas took the place of a lost one, and why the last one was lost."""
    mine = [event for event in events if event["deployment"] == name and event["kind"] in _RESTARTS]
    lost = [event["message"] for event in mine if event["kind"] == "heal"]
    return {
        "count": sum(event["count"] for event in mine if event["kind"] == "replace"),
        "last_reason": lost[-1] if lost else None,
    }


def render_deployment(found: Mapping[str, Any], *, color: bool = False, width: int | None = None) -> str:
    """The deployment for people, without a newline at its end. ``width``: of the terminal that shows it."""
    from serveconf.cli.events_view import HANG, render_event
    from serveconf.cli.status_view import COLORS, replica_table

    state = paint(found["state"], COLORS.get(found["state"]), on=color)
    title = (
        f"Deployment {paint(visible(found['name']), bold=True, on=color)} of stack {visible(found['stack'])}: {state}"
    )
    lines = [title, *_fact_lines(found)]
    if found["replicas"]:
        lines += ["", *replica_table(found["replicas"], color)]
    if found["data"]:
        lines += ["", *_data_lines(found)]
    if found["events"]:
        lines += ["", "  In the last hour"]
        for event in found["events"]:
            lines += folded(f"  {render_event(event, color=color)}", width, HANG + 2)
    return "\n".join(lines)


def _data_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What an app writes belongs to the stack, as its app_dir does."""
    paths = found["data"]
    yield f"  Data of stack {visible(found['stack'])}, written below app_dir: no code, in no package"
    yield from (f"  {visible(path)}" for path in paths[:SHOWN_DATA])
    if len(paths) > SHOWN_DATA:
        yield f"  … and {len(paths) - SHOWN_DATA} more: -o json lists them all"


def _fact_lines(found: Mapping[str, Any]) -> Iterator[str]:
    facts = list(_facts(found))
    width = max(len(key) for key, _ in facts) + 2
    yield from (f"  {key:<{width}}{visible(value if isinstance(value, str) else _flow(value))}" for key, value in facts)


def _flow(value: Any) -> str:
    """As its YAML would say it, on one line."""
    import yaml

    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=sys.maxsize)
    return text.removesuffix("...\n").strip()


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    spec = found["spec"]
    yield "revision", found["revision"]
    yield "route", found["route_prefix"] or "(none)"
    if "import_path" in spec:
        yield "serves", spec["import_path"]
    yield "version", found["version"]
    for key, value in spec.items():
        if key not in ("name", "import_path", "route_prefix"):
            yield key, value
    if scaling := found.get("autoscaling"):
        yield "scaling", scaled(scaling)
    again = found["restarts"]
    if again["count"] or again["last_reason"]:
        why = f"; last: {again['last_reason']}" if again["last_reason"] else ""
        yield "restarts", f"{again['count']} in the last hour{why}"
    if found["message"]:
        yield "message", found["message"]
