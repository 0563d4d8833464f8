"""A deployment whose number of replicas is looked after, as ``scaling`` knows it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from serveconf.plan.scaling import START_S, Answer, Past, Rule, Verdict
from serveconf.plan.state import DesiredDeployment, DesiredStack, Observed, Phase

REPORTING = (Phase.READY, Phase.UNHEALTHY, Phase.DRAINING)


@dataclass
class Followed:
    """One deployment that is followed."""

    rule: Rule | None
    desired: DesiredDeployment
    said: int  # by the file
    number: int
    held: int | None = None
    past: Past = field(default_factory=Past)
    ready: int = 0
    starting: int = 0
    failing: bool = False
    start_s: float = START_S
    due: float = 0.0
    verdict: Verdict | None = None
    answer: Answer | None = None
    asking: asyncio.Task[Any] | None = None
    asked_at: float = float("-inf")


def callers_in(goal: DesiredStack, observed: Observed) -> frozenset[str]:
    """The replicas of applications whose deployments call each other, where the number of one of them follows the load."""
    entries = {d.entry for d in goal.deployments if d.bound and d.spec.get("autoscaling_config")}
    names = [d.name for d in goal.deployments if d.entry in entries]
    found = (r for name in names for r in observed.of(goal.name, name) if r.phase in REPORTING)
    return frozenset({r.process or r.id: r.id for r in found}.values())  # a process reports once


def said_number(rule: Rule | None, deployment: DesiredDeployment) -> int:
    """The number that the file itself says."""
    if rule is None:
        number = deployment.spec.get("num_replicas")
    else:
        number = deployment.spec["autoscaling_config"].get("initial_replicas")
        number = max(rule.min_replicas, 1) if number is None else number
    return number if isinstance(number, int) else deployment.num_replicas
