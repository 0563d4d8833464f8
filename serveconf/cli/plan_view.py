"""A plan (the contract's JSON) as text: one line for each action with its sign, what is done, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, assert_never

from serveconf.cli.columns import Cell, Color, columns, count, folded, paint, visible
from serveconf.plan.kinds import ActionKind
from serveconf.plan.summary import starts_front

Action = Mapping[str, Any]

_Sign = tuple[str, Color]
_CREATE: _Sign = ("+", "green")
_REMOVE: _Sign = ("-", "red")
_CHANGE: _Sign = ("~", "yellow")
_IN_THE_LINE = frozenset(
    {"version", "replicas", "surge", "operations", "canary"}
)  # said by the line itself, or in their own way
_LONGEST_VALUE = 60
_FILES_NAMED = 3
_OPERATIONS_NAMED = 8


def render_plan(
    plan: Mapping[str, Any], *, color: bool = False, warnings: Sequence[str] = (), width: int | None = None
) -> str:
    """The plan for people, without a newline at its end. ``width``: of the terminal that shows it."""
    lines = [*_body(plan["actions"], color, width)]
    if lines:
        lines.append("")
    told = warnings or plan.get("warnings") or ()
    for warning in told:
        lines += folded(f"{paint('warning:', 'yellow', bold=True, on=color)} {visible(warning)}", width, 9)
    return "\n".join([*lines, paint(summary_line(plan), bold=True, on=color)])


def summary_line(plan: Mapping[str, Any]) -> str:
    """The plan in one line; every deployment counts once."""
    actions = plan["actions"]
    if not actions:
        return f"No changes. Stack '{plan['stack']}' is up to date."
    created = {a["deployment"] for a in actions if a["action"] == ActionKind.CREATE}
    removed = {a["deployment"] for a in actions if a["action"] == ActionKind.REMOVE}
    changed = {a["deployment"] for a in actions} - created - removed
    return f"Plan: {len(created)} to create, {len(changed)} to change, {len(removed)} to remove."


def _body(actions: Sequence[Action], color: bool, width: int | None) -> Iterator[str]:
    rows = []
    for action in actions:
        sign, paint_with = _sign(action)
        name = action["deployment"] or "http front"
        reason = Cell(reason_of(action), dim=True)
        rows.append((Cell(f"{sign} {name}", paint_with), Cell(what_of(action)), reason))
    hanging = 2 + sum(max((len(visible(row[at].text)) for row in rows), default=0) + 2 for at in (0, 1))
    for action, line in zip(actions, columns(rows, color=color), strict=True):
        yield from folded(line, width, hanging)
        for detail in _details(action, color):
            yield from folded(detail, width, 8)


def _sign(action: Action) -> _Sign:
    kind = ActionKind(action["action"])
    if starts_front(action) or kind is ActionKind.CREATE:
        return _CREATE
    return _REMOVE if kind is ActionKind.REMOVE else _CHANGE


def mark_of(action: Action) -> str:
    """+, ~ or -."""
    return _sign(action)[0]


def what_of(action: Action) -> str:
    """What is done, in words."""
    before, after = action["before"] or {}, action["after"] or {}
    kind = ActionKind(action["action"])
    match kind:
        case ActionKind.CREATE:
            at = after.get("route_prefix")
            return f"create {count(after.get('num_replicas', 1), 'replica')}" + (f" at {at}" if at else "")
        case ActionKind.ROLL:
            return f"roll {count(before['replicas'] or after['replicas'], 'replica')} (surge {after['surge']}{_canary(after)})"
        case ActionKind.SCALE:
            return _scale(before, after)
        case ActionKind.ROUTE if before.get("route_prefix") and after.get("route_prefix"):
            return f"move {before['route_prefix']} → {after['route_prefix']}"
        case ActionKind.ROUTE:
            return "route"
        case ActionKind.PROXY if starts_front(action):
            return f"listen on {after['host']}:{after['port']}"
        case ActionKind.PROXY:
            return "replace listeners"
        case ActionKind.RECONFIGURE:
            return "reconfigure"
        case ActionKind.UPDATE:
            return "update settings"
        case ActionKind.REMOVE:
            return f"remove {count(before.get('replicas', 0), 'replica')}"
    assert_never(kind)


def _canary(after: Mapping[str, Any]) -> str:
    steps = (after.get("canary") or {}).get("steps", ())
    return f", canary {', '.join(f'{step:g}' for step in steps)} %" if steps else ""


def _scale(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    for key in ("num_replicas", "replicas"):
        if key in before and key in after:
            return f"scale {before[key]} → {count(after[key], 'replica')}"
    return "scale"


def reason_of(action: Action) -> str:
    """Why; a reason that names many files names a few of them."""
    parts = []
    for part in action["reason"].split("; "):
        kind, colon, about = part.partition(": ")
        items = about.split(", ")
        if len(items) > _FILES_NAMED + 1:
            about = f"{', '.join(items[:_FILES_NAMED])} and {len(items) - _FILES_NAMED} more"
        parts.append(f"{kind}{colon}{about}")
    return "; ".join(parts)


def _details(action: Action, color: bool) -> Iterator[str]:
    """What the line could not hold: each field's old and new value, operations that come and go."""
    before, after = action["before"] or {}, action["after"] or {}
    said = _IN_THE_LINE | _already_said(action)
    for key in dict.fromkeys((*before, *after)):
        if key in said:
            continue
        if action["before"] is None:
            yield f"      {visible(key)}: {_value(after[key])}"
        elif before.get(key) == after.get(key):  # of what is shown: a secret is another one
            yield f"      {visible(key)}: {_value(after[key])}, with another value of a variable"
        else:
            arrow = paint("→", dim=True, on=color)
            yield f"      {visible(key)}: {_value(before[key]) if key in before else '(none)'} {arrow} " + (
                _value(after[key]) if key in after else "(none)"
            )
    for (sign, paint_with), operations in (
        (_REMOVE, before.get("operations", ())),
        (_CREATE, after.get("operations", ())),
    ):
        shown = operations[:_OPERATIONS_NAMED]
        yield from (f"      {paint(sign, paint_with, on=color)} {visible(operation)}" for operation in shown)
        if len(operations) > len(shown):
            yield f"      {paint(sign, paint_with, on=color)} {len(operations) - len(shown)} more operations"


def _already_said(action: Action) -> set[str]:
    kind = ActionKind(action["action"])
    match kind:
        case ActionKind.PROXY if starts_front(action):
            return {"host", "port"}
        case ActionKind.CREATE | ActionKind.REMOVE:
            return {"route_prefix", "num_replicas"}
        case ActionKind.SCALE:
            return {"num_replicas"}
        case ActionKind.ROUTE if "→" in what_of(action):
            return {"route_prefix"}
        case ActionKind.ROUTE:
            return {"name"}  # of what was renamed: its reason says so
        case ActionKind.ROLL | ActionKind.RECONFIGURE | ActionKind.UPDATE | ActionKind.PROXY:
            return set()
    assert_never(kind)


def _value(value: Any) -> str:
    text = visible(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
