"""The starts of one stack's replicas: as whole processes, as the cores allow, those that leave taken back first, and later and later
where they fail.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable

from serveconf.plan.processes import members, process_of
from serveconf.plan.state import DesiredDeployment, DesiredStack, Observed, Phase, ReplicaPhase, ReplicaState
from serveconf.reconcile.admission import START_S, Admission, Places
from serveconf.reconcile.decide import Decision
from serveconf.reconcile.journal import EventKind, Happening, Journal
from serveconf.reconcile.ports import Clock, Cluster, ProcessOrder, ReplicaOrder
from serveconf.reconcile.records import StackHead
from serveconf.reconcile.waits import Backoff

log = logging.getLogger("serveconf.reconcile")

SERVED = (Phase.READY, Phase.UNHEALTHY, Phase.DRAINING)


class Starts:
    """What a pass starts, and what the starts before it came to. ``desired``: a revision of the stack, as it is scaled."""

    def __init__(
        self,
        stack: str,
        cluster: Cluster,
        clock: Clock,
        journal: Journal,
        desired: Callable[[int | None], DesiredStack | None],
        admission: Admission,
    ) -> None:
        self._stack = stack
        self._cluster = cluster
        self._journal = journal
        self._desired = desired
        self._admission = admission
        self._backoff: Backoff[tuple[str, str]] = Backoff(clock)
        self._not_starting: set[str] = set()  # deployments whose last replica ended without having been ready

    async def once(self, head: StackHead, decision: Decision, observed: Observed) -> float:
        """Start what is missing and may start, clear away what ended. Returns the seconds until more may start by itself."""
        for replica in decision.failed:
            log.warning("replica ended", extra={"replica": replica.id, "reason": replica.message})
            if not replica.cut_short and not self._has_lost_its_node(replica):
                self.failed(replica)
            await self._cluster.stop_replica(replica.id, drain_s=0)
        pause = math.inf
        on = self._admission.look(observed) if decision.start else []
        room_in_s = min((start.left_s for start in on), default=START_S)
        free = Places(self._stack, on, self._cluster.nodes() if decision.start else ())
        for group, count in self._by_process(head, decision):
            deployment = group[0]
            wait_s = max(self._backoff.wait_s(_key(d.name, d.version)) for d in group)
            if wait_s > 0 and (head.target is None or head.canary is not None):
                pause = min(pause, wait_s)
                continue
            count -= await self._take_back(deployment, count, observed)
            begin = free.take(deployment, count)
            if begin < count:
                pause = min(pause, room_in_s)
            for _ in range(begin):
                await self._start_one(group)
        return pause

    def failed(self, replica: ReplicaState) -> None:
        """It has failed: the next one of its version is started later."""
        key = _key(replica.deployment, replica.version)
        self._backoff.failed(key)
        wait_s = self._backoff.wait_s(key)
        if wait_s > 0:
            self._journal.tell(
                Happening(
                    kind=EventKind.HEAL,
                    stack=self._stack,
                    deployment=replica.deployment,
                    message=f"replicas keep failing: the next one is started in {wait_s:.0f} s",
                    data={"wait_s": round(wait_s, 1)},
                    like="back-off",
                )
            )

    def see(self, replica: ReplicaState, former: ReplicaPhase | None) -> None:
        """It is in another phase than it was."""
        match replica.phase:
            case ReplicaPhase.UNHEALTHY if not self._has_lost_its_node(
                replica
            ):  # it is replaced, the next one later and later
                self.failed(replica)
            case ReplicaPhase.READY:
                self._not_starting.discard(replica.deployment)
            case ReplicaPhase.FAILED if former not in SERVED and not replica.cut_short:
                self._not_starting.add(replica.deployment)

    def _has_lost_its_node(self, replica: ReplicaState) -> bool:
        """That says nothing against its code: what takes its place starts at once, however many nodes are lost."""
        there = {node.id for node in self._cluster.nodes()}
        return bool(there and replica.node_id) and replica.node_id not in there

    def are_failing(self, deployment: DesiredDeployment) -> bool:
        """Its replicas do not get ready, and the next one is not started yet. One that served and was killed is no such sign."""
        if deployment.name not in self._not_starting:
            return False
        return self._backoff.wait_s(_key(deployment.name, deployment.version)) > 0

    def _by_process(self, head: StackHead, decision: Decision) -> list[tuple[tuple[DesiredDeployment, ...], int]]:
        """What is to be started, as whole processes: all deployments of each, and how many of it."""
        groups: dict[str, tuple[tuple[DesiredDeployment, ...], int]] = {}
        stacks = [self._desired(head.target), self._desired(head.current)] if decision.start else []
        for deployment, count in decision.start:
            key = f"{process_of(deployment)} {deployment.version}" if process_of(deployment) else deployment.name
            for stack in stacks:
                there = stack.deployment(deployment.name) if stack is not None else None
                if stack is not None and there is not None and there.version == deployment.version:
                    group = members(stack, deployment)
                    break
            else:
                group = (deployment,)
            groups[key] = (group, max(count, groups[key][1] if key in groups else 0))
        return list(groups.values())

    async def _start_one(self, group: tuple[DesiredDeployment, ...]) -> None:
        mark = secrets.token_hex(3)
        orders = tuple(self._order(deployment, mark) for deployment in group)
        process = process_of(group[0])
        if process is None:
            with self._admission.begins(self._stack, orders[0].id):
                await self._cluster.start_replica(orders[0])
        else:
            name = f"{self._stack}.{process}.{group[0].version[:8]}.{mark}"
            with self._admission.begins(self._stack, name):
                await self._cluster.start_process(ProcessOrder(id=name, replicas=orders))

    async def _take_back(self, deployment: DesiredDeployment, most: int, observed: Observed) -> int:
        """Of the replicas that are just leaving so many as are wanted after all serve on. How many did."""
        back = 0
        for replica in observed.of(self._stack, deployment.name):
            leaves = (
                replica.phase is ReplicaPhase.DRAINING and replica.version == deployment.version and not replica.process
            )
            if back < most and leaves and await self._cluster.take_back(replica.id):
                back += 1
        return back

    def _order(self, deployment: DesiredDeployment, mark: str) -> ReplicaOrder:
        return ReplicaOrder(
            id=f"{self._stack}.{deployment.name}.{deployment.version[:8]}.{mark}",
            stack=self._stack,
            deployment=deployment,
            ready_timeout_s=deployment.spec.get("rollout", {}).get("ready_timeout_s", 60.0),
        )


def _key(deployment: str, version: str) -> tuple[str, str]:
    """What backs off: another version starts as if nothing had been."""
    return deployment, version
