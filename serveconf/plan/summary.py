"""The actions of a plan in a few words, for the history and the last line of an apply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

_VERBS = {
    "create": "created",
    "roll": "rolled",
    "scale": "scaled",
    "reconfigure": "reconfigured",
    "route": "rerouted",
    "update": "updated",
    "proxy": "front replaced",
    "remove": "removed",
}


def summarise(actions: Iterable[Mapping[str, Any]]) -> str:
    """``1 created, 2 rolled``, from actions in the contract's form."""
    actions = list(actions)
    counts = Counter(action["action"] for action in actions if not starts_front(action))
    order = sorted(counts, key=lambda action: [*_VERBS, action].index(action))
    said = [f"{counts[action]} {_VERBS.get(action, action)}" for action in order]
    front = ["front started"] if any(map(starts_front, actions)) else []
    return ", ".join([*said, *front]) or "nothing changed"


def starts_front(action: Mapping[str, Any]) -> bool:
    """Whether the action is the very first listener of a cluster."""
    return action["action"] == "proxy" and action["before"] is None and action["after"] is not None
