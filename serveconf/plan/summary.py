"""The actions of a plan in a few words, for the history and the last line of an apply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, assert_never

from serveconf.plan.kinds import ActionKind


def summarise(actions: Iterable[Mapping[str, Any]]) -> str:
    """``1 created, 2 rolled``, from actions in the contract's form."""
    actions = list(actions)
    counts = Counter(ActionKind(action["action"]) for action in actions if not starts_front(action))
    said = [f"{counts[kind]} {_done(kind)}" for kind in ActionKind if counts[kind]]
    front = ["front started"] if any(map(starts_front, actions)) else []
    return ", ".join([*said, *front]) or "nothing changed"


def _done(kind: ActionKind) -> str:
    match kind:
        case ActionKind.CREATE:
            return "created"
        case ActionKind.ROLL:
            return "rolled"
        case ActionKind.SCALE:
            return "scaled"
        case ActionKind.RECONFIGURE:
            return "reconfigured"
        case ActionKind.ROUTE:
            return "rerouted"
        case ActionKind.UPDATE:
            return "updated"
        case ActionKind.PROXY:
            return "front replaced"
        case ActionKind.REMOVE:
            return "removed"
    assert_never(kind)


def starts_front(action: Mapping[str, Any]) -> bool:
    """Whether the action is the very first listener of a cluster."""
    return action["action"] == ActionKind.PROXY and action["before"] is None and action["after"] is not None
