"""What following files works with: who serves (``Serving``), what is told to whoever looks on (``Said``), and how to go about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from serveconf.errors import ServeconfError
from serveconf.watch.look import Look
from serveconf.watch.memory import Outcome


class FirstFailure(StrEnum):
    """Which failure of a first apply ends the watcher."""

    GOES_ON = "none"
    ENDS_WHERE_WRONG = "wrong"  # what the file says; a cluster that is not there yet is waited for
    ENDS = "any"


@dataclass(frozen=True, kw_only=True)
class Said:
    """Something for whoever watches the watcher. ``kind`` is one of a fixed few, ``data`` what a machine may read."""

    kind: str
    message: str
    file: Path | None = None
    stack: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    error: ServeconfError | None = None


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What of a stack is not as it was applied, and who did that. ``pinned``: a rollback by hand, which is left alone."""

    message: str
    pinned: bool = False


class Serving(Protocol):
    """What brings stacks about. Its methods block, and are called from threads; two stacks' at once."""

    def apply(self, look: Look, *, first: bool, live: Callable[[], None]) -> Outcome:
        """Make it so. ``live`` is called where it serves already and only what it has replaced is still on its way out."""

    def complete(self, look: Look) -> None:
        """End the apply of that file, which is live: do not wait for what it has replaced. Never fails."""

    def cancel(self, look: Look) -> None:
        """Give up the apply of that file that is running, if it has not switched yet."""

    def drift(self, look: Look) -> Drift | None:
        """What of the stack is not as it was applied; None: nothing."""

    def data(self, look: Look) -> frozenset[str]:
        """Files below app_dir that the stack's replicas were seen to write."""

    def prune(self, present: Iterable[Path], claimed: frozenset[str]) -> list[str]:
        """Take away the stacks that came from these sources and that no file claims any more; their names."""

    def quarantined(self, look: Look) -> str:
        """Why this very content was refused before; empty: it was not."""

    def record(self, look: Look, kind: str, message: str) -> None:
        """For who asks the cluster later: ``drift``, ``heal`` or ``quarantine``. Never fails."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to follow."""

    env_files: tuple[Path, ...] = ()
    watching: bool = True  # False: each file once
    prune: bool = False
    self_heal: bool = True
    drift_s: float = 5.0  # between two looks at what serves
    first_failure: FirstFailure = FirstFailure.GOES_ON
    events: bool = True  # False: only its own looks, and whoever changes the files, tell of changes
    poll_s: float | None = None  # between two looks without events; None: often
    lock: Path | None = None  # held while the files are read, by whoever else may change them
    variables: tuple[str, ...] | None = None  # what of the environment may be filled in, names or patterns; None: all
