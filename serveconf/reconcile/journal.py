"""Where the control plane says what it does and why: events for people, and figures for ``/metrics``.

Whoever acts is handed a ``Journal`` and tells it; the controller's is kept in the store, the one of a test that does not
listen forgets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from serveconf.reconcile.kept_figures import KeptFigures


class EventKind(StrEnum):
    """What an event is about."""

    APPLY = "apply"
    ROLLBACK = "rollback"
    SCALE = "scale"
    REPLACE = "replace"
    HEAL = "heal"
    DRIFT = "drift"
    QUARANTINE = "quarantine"
    PIN = "pin"
    CANARY = "canary"
    PROXY = "proxy"
    NODE = "node"
    CONTROLLER = "controller"
    TOKEN = "token"


class Note(Protocol):
    """Takes one event. Those of one kind, stack, deployment and ``like`` (else message) are counted as one."""

    def __call__(
        self,
        *,
        kind: EventKind,
        message: str,
        stack: str | None = None,
        deployment: str | None = None,
        data: Mapping[str, Any] | None = None,
        like: str = "",
    ) -> None:
        """It has happened just now."""


def unheard(
    *,
    kind: EventKind,
    message: str,
    stack: str | None = None,
    deployment: str | None = None,
    data: Mapping[str, Any] | None = None,
    like: str = "",
) -> None:
    """Nobody listens."""


@dataclass(frozen=True, kw_only=True)
class Happening:
    """An event to be. ``like`` names no replica, so that the same of another one is counted with it."""

    kind: EventKind
    message: str
    stack: str | None = None
    deployment: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    like: str = ""


@dataclass(frozen=True, kw_only=True)
class Journal:
    """What is told of what is done."""

    note: Note = unheard
    figures: KeptFigures = field(default_factory=KeptFigures)

    def tell(self, happening: Happening | None) -> None:
        """Note it, if it is worth to be told."""
        if happening is not None:
            self.note(**vars(happening))
