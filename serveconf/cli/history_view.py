"""Revisions as text."""

from __future__ import annotations

import datetime
from typing import Any

from serveconf.cli.columns import folded

COLUMNS = ("revision", "time", "outcome", "author", "token", "summary")


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
