"""Status, routes and revisions (the contract's JSON) as tables that fit 80 columns in the ordinary case."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from serveconf.cli.columns import Cell, Color, columns, folded, paint, scaled, visible

Json = Mapping[str, Any]

COLORS: dict[str, Color] = {
    "Healthy": "green",
    "Ready": "green",
    "Pending": "cyan",
    "Progressing": "cyan",
    "Starting": "cyan",
    "Draining": "cyan",
    "Deleting": "cyan",
    "Pinned": "magenta",
    "Degraded": "yellow",
    "Unhealthy": "yellow",
    "RolledBack": "yellow",
    "Failed": "red",
    "Invalid": "red",
}


COLUMNS = ("revision", "time", "outcome", "author", "token", "summary")


def render_status(status: Json, *, color: bool = False) -> str:
    """The whole status for people, without a newline at its end."""
    controller = status["controller"]
    head = f"Generation {status['generation']}, controller {controller['address']} (pid {controller['pid']})"
    blocks = ["\n".join([visible(head), *_silence(controller), *_proxies(status, color), *_other_versions(status)])]
    blocks += ["\n".join(_stack(stack, color)) for stack in status["stacks"]]
    if not status["stacks"]:
        blocks.append("No stack has been applied.")
    return "\n\n".join(blocks)


def render_routes(routes: Mapping[str, str], *, color: bool = False) -> str:
    """The routing table for people, without a newline at its end."""
    if not routes:
        return "No routes."
    rows = [[Cell(prefix), Cell(name)] for prefix, name in sorted(routes.items())]
    return "\n".join(_table(("PREFIX", "DEPLOYMENT"), rows, color, indent=0))


def render_verdict(verdict: Json, *, color: bool = False) -> str:
    """Who takes a request, and why not the others, without a newline at its end."""
    if verdict["deployment"]:
        first = f"{verdict['deployment']} takes it by {verdict['rule']}: {verdict['why']}"
    else:
        status = f"{verdict['status']}: " if verdict["status"] else ""
        first = f"{status}{verdict['why']}"
    rows = [[Cell(other["deployment"]), Cell(other["rule"]), Cell(other["why"])] for other in verdict["others"]]
    return "\n".join([first, *(["", *_table(("NOT", "RULE", "WHY"), rows, color, indent=0)] if rows else [])])


def _silence(controller: Json) -> list[str]:
    if (silent_s := controller.get("silent_s")) is None:
        return []
    return [
        f"  Ray's GCS has not answered for {silent_s:.0f} s: nothing is applied, started or replaced until it does; "
        "what serves goes on"
    ]


def _proxies(status: Json, color: bool) -> list[str]:
    """Those that serve, and those that stand by for one of them."""
    rows = [
        [
            Cell(proxy["address"] or proxy["id"]),
            _state(proxy["state"]),
            Cell(str(proxy["pid"] or "")),
            Cell(_short(proxy["node_id"])),
            Cell(str(proxy["generation"])),
        ]
        for proxy in status["proxies"]
    ]
    rows += [
        [Cell("(stands by)"), _state(one["state"]), Cell(str(one["pid"] or "")), Cell(_short(one["node_id"])), Cell("")]
        for one in status.get("standbys", ())
        if one["kind"] == "proxy"
    ]
    return _table(("PROXY", "STATE", "PID", "NODE", "GENERATION"), rows, color) if rows else ["  no proxy runs"]


def _other_versions(status: Json) -> list[str]:
    """What does not run the controller's version of serveconf."""
    ours = status["controller"].get("serveconf", "")
    found = [("proxies", proxy) for proxy in status["proxies"]]
    for stack in status["stacks"]:
        found += [("replicas", replica) for d in stack["deployments"] for replica in d["replicas"]]
    counts = Counter((kind, one["serveconf"]) for kind, one in found if one.get("serveconf") not in (None, "", ours))
    return [
        f"  {number} {kind} run serveconf {visible(version)}, the controller {ours}: 'serveconf upgrade' replaces them"
        for (kind, version), number in sorted(counts.items())
    ]


def _stack(stack: Json, color: bool) -> Iterator[str]:
    state = paint(stack["state"], COLORS.get(stack["state"]), on=color)
    yield f"Stack {paint(stack['name'], bold=True, on=color)}: {state}, revision {stack['revision']}"
    if source := stack.get("source"):
        yield f"  {visible(_origin(source))}"
    if data := stack.get("data"):
        files = "1 file" if len(data) == 1 else f"{len(data)} files"
        yield f"  data: {files} written below app_dir; 'serveconf status DEPLOYMENT' names them"
    for warning in stack.get("warnings", ()):
        yield f"  {paint('warning', 'yellow', on=color)}: {visible(warning)}"
    deployments = stack["deployments"]
    if not deployments:
        yield "  no deployments"
        return
    rows = [
        [
            Cell(deployment["name"]),
            _state(deployment["state"]),
            Cell(deployment["route_prefix"] or "(none)"),
            Cell(ready_count(deployment)),
            Cell(deployment["version"]),
        ]
        for deployment in deployments
    ]
    yield from _table(("DEPLOYMENT", "STATE", "ROUTE", "READY", "VERSION"), rows, color)
    messages = [f"  {visible(d['name'])}: {visible(d['message'])}" for d in deployments if d["message"]]
    messages += [
        f"  {visible(d['name'])}: canary, {visible(_canary(d['canary']))}" for d in deployments if d.get("canary")
    ]
    messages += [f"  {visible(d['name'])}: {scaled(d['autoscaling'])}" for d in deployments if d.get("autoscaling")]
    if messages:
        yield from ("", *messages)
    replicas = [replica for deployment in deployments for replica in deployment["replicas"]]
    if replicas:
        yield ""
        yield from replica_table(replicas, color)


def replica_table(replicas: Sequence[Json], color: bool) -> list[str]:
    """One line for each replica, below a line of titles."""
    rows = [_replica(replica) for replica in replicas]
    return _table(("REPLICA", "STATE", "AGE", "PID", "NODE", "ONGOING", "VERSION"), rows, color)


def _origin(source: Json) -> str:
    """``from https://git.example/shop.git, branch main, commit 1a2b3c4d, serve.yaml: in sync``."""
    branch = f", branch {source['branch']}" if source["branch"] else ""
    commit = f", commit {source['commit'][:12]}" if source["commit"] else ""
    path = f", {source['path']}" if source["kind"] == "git" else ""
    return f"from {source['location']}{branch}{commit}{path}: {'in sync' if source['in_sync'] else 'not in sync'}"


def _canary(canary: Json) -> str:
    until = f", until {canary['until']} at least" if canary["until"] else ""
    return f"{canary['message']}{until}"


def _replica(replica: Json) -> list[Cell]:
    return [
        Cell(replica["id"]),
        _state(replica["state"]),
        Cell(age(replica.get("started"))),
        Cell(str(replica["pid"] or "")),
        Cell(replica.get("node") or _short(replica["node_id"])),
        Cell(str(replica["ongoing"])),
        Cell(replica["version"]),
    ]


def age(started: str | None) -> str:
    """``12s``, ``3m``, ``2h``, ``5d``: how long ago that was."""
    if not started:
        return ""
    then = datetime.datetime.fromisoformat(started)
    seconds = max(0, int((datetime.datetime.now(datetime.UTC) - then).total_seconds()))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def ready_count(deployment: Json) -> str:
    """Ready replicas of the version that is wanted, of all that there are."""
    replicas = [replica for replica in deployment["replicas"] if replica["state"] != "Draining"]
    ready = [r for r in replicas if r["state"] == "Ready" and r["version"] == deployment["version"]]
    return f"{len(ready)}/{len(replicas)}"


def _state(state: str) -> Cell:
    return Cell(state, COLORS.get(state))


def _short(node_id: str) -> str:
    return node_id[:8]


def _table(head: Sequence[str], rows: Sequence[Sequence[Cell]], color: bool, indent: int = 2) -> list[str]:
    return columns([[Cell(title, dim=True) for title in head], *rows], color=color, indent=indent)


def render_history(revisions: list[dict[str, Any]], *, width: int | None = None) -> str:
    """One line per revision, the newest first. ``width``: of the terminal that shows it."""
    rows = [[_cell(r, column) for column in COLUMNS] for r in revisions]
    rows.insert(0, [column.upper() for column in COLUMNS])
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(wide) for cell, wide in zip(row, widths, strict=True)).rstrip() for row in rows]
    hang = sum(widths[:-1]) + 2 * len(widths[:-1])
    return "\n".join(part for line in lines for part in folded(line, width, hang))


def _cell(revision: dict[str, Any], column: str) -> str:
    value = str(revision[column] or "")
    if column != "time":
        return value
    return datetime.datetime.fromisoformat(value).astimezone().strftime("%Y-%m-%d %H:%M:%S")  # where the reader is


def render_revision(revision: dict[str, Any]) -> str:
    """One revision: who, when, how it ended, what it did, and its spec as YAML."""
    import yaml

    lines = [
        f"{key}: {revision.get(key, '')}"
        for key in ("revision", "stack", "time", "author", "token", "source", "commit", "outcome")
        if revision.get(key) or key == "source"
    ]
    lines += [f"  {a['action']} {a['deployment'] or 'http'}: {a['reason']}" for a in revision["actions"]]
    if revision["failure"]:
        lines.append(f"failure: {revision['failure']['message']}")
    return "\n".join([*lines, "spec:", yaml.safe_dump(revision["spec"], sort_keys=False, indent=2).rstrip()])
