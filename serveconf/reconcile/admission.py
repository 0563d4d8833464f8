"""How many replicas may be starting at a time: as many as the nodes have cores. All stacks share one ``Admission``.

To start Python, Ray and a framework takes a core for a second or two, an app that imports much for many. Where many do it at once
each of them takes many times as long, and none is ready before nearly all are. So a start holds a place on its node until it is
ready; the next one begins then. One that has had its time and is not ready, as it waits for something or hangs, gives its place up:
it costs no core. Its time is twice what a start of its deployment has taken of a core before, as its replica told when it was ready.
A stack that starts nothing yet may always start one: it waits for no other stack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from serveconf.plan.state import DesiredDeployment, Observed, ReplicaPhase, ReplicaState
from serveconf.reconcile.asked import rank, selectors_of
from serveconf.reconcile.ports import Clock, NodeState

START_S = (
    2.0  # that a start may take before the next one begins all the same, where none of its deployment has told yet
)
LONGEST_S = 60.0  # ... and whatever it has told
KNOWN = 1000  # deployments of which it is remembered
LEAST = 2  # at a time on a node: one of them mostly waits, for Ray or for its disk


@dataclass(frozen=True, kw_only=True)
class Start:
    """One that holds a place. ``node_id``: empty where nobody knows yet; ``left_s``: until it gives the place up."""

    stack: str
    node_id: str
    left_s: float


class Admission:
    """Remembers since when which starts are on, by the replica or by the process that several share."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}
        self._beginning: dict[str, str] = {}  # those that nobody can observe yet, each with its stack
        self._time_s: dict[tuple[str, str], float] = {}  # (stack, deployment) -> how long a start of it holds a place

    @contextmanager
    def begins(self, stack: str, start: str) -> Iterator[None]:
        """While its body runs the start begins; at its end it is observed."""
        self._since[start], self._beginning[start] = self._clock.now(), stack
        try:
            yield
        finally:
            del self._beginning[start]

    def look(self, observed: Observed) -> list[Start]:
        """What holds a place just now."""
        for replica in observed.replicas:
            if replica.phase is ReplicaPhase.READY and (replica.process or replica.id) in self._since:
                self._learn(replica)
        starting = {r.process or r.id: r for r in observed.replicas if r.phase is ReplicaPhase.STARTING}
        there = {key: (r.stack, r.node_id) for key, r in starting.items()}
        there |= {key: (stack, "") for key, stack in self._beginning.items() if key not in there}
        now = self._clock.now()
        self._since = {key: self._since.get(key, now) for key in there}  # what another controller has begun is new here
        left = {key: since + self._held_s(starting.get(key)) - now for key, since in self._since.items()}
        return [Start(stack=there[key][0], node_id=there[key][1], left_s=left[key]) for key in there if left[key] > 0]

    def _held_s(self, replica: ReplicaState | None) -> float:
        return self._time_s.get((replica.stack, replica.deployment), START_S) if replica is not None else START_S

    def _learn(self, replica: ReplicaState) -> None:
        """It has started. One that was a standby tells nothing of those that are none."""
        if replica.start_cpu_s and not replica.was_standby:
            key = (replica.stack, replica.deployment)
            self._time_s.pop(key, None)  # the last to be learned is the last to be forgotten
            self._time_s[key] = min(max(2 * replica.start_cpu_s, START_S), LONGEST_S)
            while len(self._time_s) > KNOWN:
                del self._time_s[next(iter(self._time_s))]


class Places:
    """The places that are free for one stack's starts, at one look: pure."""

    def __init__(self, stack: str, on: Sequence[Start], nodes: Iterable[NodeState]) -> None:
        self._nodes = [node for node in nodes if not node.drains]
        taken = Counter(start.node_id for start in on)
        self._free = {node.id: max(0, places(node) - taken[node.id]) for node in self._nodes}
        self._elsewhere = taken[""]  # where the engine puts those nobody knows yet
        self._may_always = not any(start.stack == stack for start in on)
        self._at: dict[str, int] = {}

    def take(self, deployment: DesiredDeployment, count: int) -> int:
        """Of so many replicas of it so many may begin now."""
        free = max(self._where_it_may_be(deployment) - self._elsewhere, 1 if self._may_always else 0)
        taken = min(count, free)
        if taken:
            self._elsewhere, self._may_always = self._elsewhere + taken, False
        return taken

    def _where_it_may_be(self, deployment: DesiredDeployment) -> int:
        selectors = selectors_of(deployment.spec)
        key = repr(selectors)  # most deployments have the same, and there may be a thousand nodes
        if key not in self._at:
            fitting = (node for node in self._nodes if rank(selectors, node.labels) is not None)
            self._at[key] = sum(self._free[node.id] for node in fitting)
        return self._at[key]


def places(node: NodeState) -> int:
    """How many starts a node takes at a time."""
    return max(LEAST, int(node.total.get("CPU", 0)))
