"""What a watcher remembers of one stack, and what follows from it for what the files say now: pure.

What was refused (it does not start, or was rolled back) is in quarantine: not tried again until a byte of it changes. What could
not be done because of the cluster (no room, nobody answers) is tried again, less and less often.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

FIRST_S = 1.0
LONGEST_S = 30.0
AWAY_S = 4.0  # where nobody answers: a look for who does costs little, and what was saved waits for it
PINNED_S = 2.0  # a look whether the pin is gone costs next to nothing

# codes of problems whose reason is the cluster, and may pass by itself
CLUSTER_CODES = frozenset(
    {
        "does_not_fit",
        "unreachable",
        "unauthorized",
        "port_in_use",
        "conflict",
        "stale",
        "locked",
        "no_answer",
        "code_budget",
        "uploads_full",
        "applies_full",
    }
    | {
        "proxy_failed",
        "controller_failed",
        "bootstrap_failed",
        "ray_unreachable",
        "store_silent",
        "operator",
        "internal",
        "cancelled",
    }
    | {"git_failed", "not_found", "read_only"}
)


class Fate(StrEnum):
    """What became of a try."""

    SERVED = "served"  # it serves now, or did already
    REFUSED = "refused"  # it is wrong, or does not work: another try would end alike
    STUCK = "stuck"  # the cluster stood in the way
    PINNED = "pinned"  # a rollback by hand stands in the way, until someone resumes


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a try, and why in a line. ``result`` is the contract's apply JSON, where there is one."""

    fate: Fate
    message: str = ""
    longest_s: float = LONGEST_S  # between two tries of what is stuck
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Of one stack. Keys are those of ``Look``."""

    served: str = ""  # what serves as far as the watcher knows
    refused: str = ""  # what is in quarantine
    stuck: str = ""  # what is to be tried again
    failures: int = 0  # of ``stuck``, in a row
    not_before: float = 0.0  # when to try ``stuck`` again
    pinned: bool = False

    def due_in(self, key: str, now: float) -> float | None:
        """Seconds until these contents should be applied; None: there is no need to."""
        if key == self.refused or (key == self.served and not self.stuck and not self.refused):
            return None  # what serves and comes back after something that was refused is said again: the status should know
        if key == self.stuck:
            return max(0.0, self.not_before - now)
        return 0.0

    def after(self, key: str, fate: Fate, now: float, *, spread: float = 1.0, longest_s: float = LONGEST_S) -> Memory:
        """What to remember after a try of ``key``. ``spread`` stretches the pause, so that many watchers do not march in step."""
        match fate:
            case Fate.SERVED:
                return Memory(served=key)
            case Fate.REFUSED:
                return replace(self, refused=key, stuck="", failures=0, pinned=False)
            case Fate.PINNED:
                return replace(self, stuck=key, failures=0, not_before=now + PINNED_S, pinned=True)
            case Fate.STUCK:
                failures = self.failures + 1 if self.stuck == key else 1
                pause = min(FIRST_S * 2 ** (failures - 1), longest_s) * spread
                return replace(self, stuck=key, failures=failures, not_before=now + pause, pinned=False)


def outcome_of(result: dict[str, Any]) -> Outcome:
    """What an apply's result means for whoever watches."""
    problems = result["problems"]
    why = "; ".join(problem["message"] for problem in problems)
    codes = {problem["code"] for problem in problems}
    match result["outcome"]:
        case "applied" | "unchanged":
            fate = Fate.SERVED
        case "conflict" if "pinned" in codes:
            fate = Fate.PINNED
        case "conflict" if "quarantined" in codes:
            fate = Fate.REFUSED
        case "conflict":
            fate = Fate.STUCK
        case _:
            fate = Fate.STUCK if codes and codes <= CLUSTER_CODES else Fate.REFUSED
    return Outcome(fate=fate, message=why or result["outcome"], result=result)
