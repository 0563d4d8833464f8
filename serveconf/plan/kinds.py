"""The kinds of steps that a plan has. By itself, for views that are given a plan's JSON and need nothing else of it."""

from __future__ import annotations

from enum import StrEnum


class ActionKind(StrEnum):
    """What is done. Whoever tells kinds apart matches them all, so that a new one is a list of type errors."""

    CREATE = "create"
    ROLL = "roll"
    SCALE = "scale"
    RECONFIGURE = "reconfigure"
    ROUTE = "route"
    UPDATE = "update"
    PROXY = "proxy"
    REMOVE = "remove"
