"""A plan as data: what would be done, what each step costs, and why. ``diff`` makes it, apply performs it, views word it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from serveconf.plan.kinds import ActionKind
from serveconf.spec.cost import Cost


class Reason(StrEnum):
    """Why something is done."""

    NEW = "new deployment"
    MOVED = "moved"
    GONE = "no longer in the spec"
    SPEC_CHANGED = "spec changed"
    CODE_CHANGED = "code changed"
    PROCESS_CHANGED = "its process is rolled for"
    REPLICAS_MISSING = "replicas missing"
    REPLICAS_SURPLUS = "too many replicas"
    OTHER_VERSION = "replicas run another version"
    UPGRADE = "upgrade"
    OTHER_CONFIG = "replicas have another user_config"
    OTHER_LISTENER = "proxies listen elsewhere"
    NO_PROXY = "no proxy runs"


class Why(msgspec.Struct, frozen=True):
    """One reason, and what it is about: field paths, files, counts."""

    reason: Reason
    about: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.reason.value}: {', '.join(self.about)}" if self.about else self.reason.value


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a plan. ``before`` and ``after`` hold what changes and nothing else, secrets masked."""

    action: ActionKind
    deployment: str | None  # None: the HTTP front
    cost: Cost
    why: tuple[Why, ...]
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None

    @property
    def reason(self) -> str:
        """All reasons as one line."""
        return "; ".join(map(str, self.why))

    def as_json(self) -> dict[str, Any]:
        """The contract's form."""
        return {
            "action": self.action.value,
            "deployment": self.deployment,
            "cost": self.cost.value,
            "reason": self.reason,
            "before": self.before,
            "after": self.after,
        }


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that an apply would do to one stack, in order: the front, then deployments by name, removals last."""

    stack: str
    base_revision: int  # the revision that it starts from; 0: there is none yet
    actions: tuple[Action, ...] = ()
    warnings: tuple[str, ...] = ()  # what whoever applies it should know: operations out of reach, waves

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.actions)

    def as_json(self) -> dict[str, Any]:
        """The contract's form."""
        return {
            "stack": self.stack,
            "base_revision": self.base_revision,
            "changed": self.changed,
            "actions": [action.as_json() for action in self.actions],
            **({"warnings": list(self.warnings)} if self.warnings else {}),
        }
