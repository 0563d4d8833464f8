"""The loop: wake up, look at everything, do what is next, sleep. Level-triggered, so running it twice is harmless.

Whoever changes something (an apply, an actor that died, a node that came) calls ``look_again``; nobody tells it what
happened. One pass returns the seconds until it should look again by itself. Only the loop knows back-off.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from serveconf.errors import CodeFailed, Conflict, ServeconfError
from serveconf.plan.state import DesiredDeployment, DesiredStack, Observed, ProxyPhase, ReplicaPhase, ReplicaState
from serveconf.reconcile.backoff import Backoff
from serveconf.reconcile.baking import LOOK_S, Bake, Baking, bake_of
from serveconf.reconcile.decide import Decision, StackView, decide
from serveconf.reconcile.front import is_its_turn, merge_fronts, wanted_proxies
from serveconf.reconcile.generation import build_generation, same_content, serving_ids
from serveconf.reconcile.ports import Clock, Cluster, ProxyOrder, ReplicaOrder
from serveconf.reconcile.publish import publish
from serveconf.reconcile.records import Failure, Ledger

log = logging.getLogger("serveconf.reconcile")

IDLE_S = 5.0  # a look without any reason, against whatever was missed
RETRY_S = 0.25  # after something that should pass by itself
STAGE_TRIES = 20  # how often a target may fail to reach the proxies before it is given up

Event = dict[str, Any]


class Reconciler:
    """Brings the cluster to what the ledger says."""

    def __init__(self, cluster: Cluster, ledger: Ledger, clock: Clock) -> None:
        self.cluster = cluster
        self.ledger = ledger
        self.clock = clock
        self.on_event: Callable[[str, Event], None] = lambda stack, event: (
            None
        )  # (stack, event), for who follows an apply
        self.stopped = False  # set at shutdown: nothing is started any more
        self._wake = asyncio.Event()
        self._backoff: Backoff[tuple[str, ...]] = Backoff(clock)
        self._reconfiguring: dict[str, asyncio.Task[None]] = {}
        self._phases: dict[str, ReplicaPhase] = {}
        self._stage_failures = 0
        self._baking = Baking(cluster, clock)
        cluster.on_change = self.look_again

    def look_again(self) -> None:
        """Something may have changed."""
        self._wake.set()

    async def run(self) -> None:
        """Look, act, sleep, for ever."""
        while not self.stopped:
            self._wake.clear()
            try:
                pause = await self.pass_once()
            except Exception:  # the loop must outlive whatever one pass runs into
                log.exception("a reconcile pass failed")
                pause = 1.0
            try:
                await asyncio.wait_for(self._wake.wait(), pause)
            except TimeoutError:
                continue

    async def pass_once(self) -> float:
        """One look at everything and what is next. Returns the seconds until the next look that nobody asked for."""
        pause = await self._look_at_bakes()
        observed = self.cluster.observe()
        self._tell_phases(observed)
        front_ready = await self._keep_proxies(observed)
        served = serving_ids(self.ledger.generation)
        decisions: dict[str, Decision] = {}
        for name in sorted(self.ledger.heads):
            decision = decide(
                StackView(
                    name=name,
                    current=self.ledger.current(name),
                    target=self.ledger.target(name),
                    observed=observed,
                    served=served,
                    front_ready=front_ready,
                    bakes=bool(self._bake(name).limits),
                    baking=self.ledger.heads[name].baking_until is not None,
                )
            )
            if decision.failure is not None:
                await self.fail_target(name, decision.failure)
                return RETRY_S
            decisions[name] = decision
            pause = min(pause, await self._start_replicas(name, decision))
            self._reconfigure(name, decision)
        if not await self._switch(decisions, observed):
            return RETRY_S
        await self._drain_surplus(decisions, observed)
        return pause

    async def fail_target(self, stack: str, failure: Failure, *, outcome: str = "rolled_back") -> None:
        """Give a target up: what served before goes on, and the next pass removes what was started for it."""
        head = self.ledger.heads[stack]
        revision = self.ledger.revision(stack, head.target)
        if revision is None:
            return
        await self.ledger.put_revision(replace(revision, outcome=outcome, failure=failure))
        if head.current is None:
            await self.ledger.put_head(replace(head, target=None, baking_until=None, deleting=True))
        else:
            await self.ledger.put_head(replace(head, target=None, baking_until=None))
        self._baking.end(head)
        self.on_event(stack, {"event": "resolved", "revision": revision.number})
        self.look_again()

    # -- proxies ------------------------------------------------------------------------------------------------

    async def _keep_proxies(self, observed: Observed) -> bool:
        """Start the proxies that the goal needs and stop those that nobody needs. True when all needed ones are up."""
        goals = [goal for name in self.ledger.heads if (goal := self._goal(name)) is not None]
        currents = [current for name in self.ledger.heads if (current := self.ledger.current(name)) is not None]
        try:
            wanted = wanted_proxies(merge_fronts(goals), self.cluster.nodes()) if goals else ()
        except Conflict as conflict:  # two applies that each were right when they began
            await self._fail_targets(Failure(code=conflict.code, message=conflict.message, hint=conflict.hint))
            return False
        kept = wanted_proxies(merge_fronts(currents), self.cluster.nodes()) if currents else ()
        there = {proxy.id: proxy for proxy in observed.proxies}
        old = {order.id for order in kept}
        for order in wanted:
            await self._keep_proxy(order, there, new=order.id not in old)
        needed = old | {order.id for order in wanted}
        for proxy in observed.proxies:
            if proxy.id not in needed and proxy.phase in (ProxyPhase.READY, ProxyPhase.STARTING, ProxyPhase.FAILED):
                await self.cluster.stop_proxy(proxy.id, drain_s=self._longest_drain())
        return all(order.id in there and there[order.id].phase is ProxyPhase.READY for order in wanted)

    async def _keep_proxy(self, order: ProxyOrder, there: Mapping[str, Any], *, new: bool) -> None:
        proxy = there.get(order.id)
        if proxy is not None and proxy.phase is ProxyPhase.FAILED:
            if new:
                await self._fail_targets(Failure(code="proxy_failed", message=proxy.message))
            self._backoff.failed(("proxy", order.id))
            await self.cluster.stop_proxy(order.id, drain_s=0)
        elif proxy is None and is_its_turn(order, there.values()) and self._backoff.wait_s(("proxy", order.id)) <= 0:
            await self.cluster.start_proxy(order)

    async def _fail_targets(self, failure: Failure) -> None:
        for name in list(self.ledger.heads):
            if self.ledger.target(name) is not None:
                await self.fail_target(name, failure)

    # -- replicas -----------------------------------------------------------------------------------------------

    async def _start_replicas(self, stack: str, decision: Decision) -> float:
        """Start what is missing, clear away what ended. Returns the seconds until a back-off ends."""
        for replica in decision.failed:
            log.warning("replica ended", extra={"replica": replica.id, "reason": replica.message})
            self._backoff.failed(("replica", stack, replica.deployment))
            await self.cluster.stop_replica(replica.id, drain_s=0)
        pause = IDLE_S
        for deployment, count in decision.start:
            wait_s = self._backoff.wait_s(("replica", stack, deployment.name))
            if wait_s > 0 and self.ledger.target(stack) is None:
                pause = min(pause, wait_s)
                continue
            for _ in range(count):
                await self.cluster.start_replica(self._order(stack, deployment))
        return pause

    def _order(self, stack: str, deployment: DesiredDeployment) -> ReplicaOrder:
        return ReplicaOrder(
            id=f"{stack}.{deployment.name}.{deployment.version[:8]}.{secrets.token_hex(3)}",
            stack=stack,
            deployment=deployment,
            ready_timeout_s=deployment.spec.get("rollout", {}).get("ready_timeout_s", 60.0),
        )

    def _reconfigure(self, stack: str, decision: Decision) -> None:
        """Hand new user_configs to live replicas, beside the loop: user code may take its time."""
        for replica, deployment in decision.reconfigure:
            if (
                replica.id in self._reconfiguring
                or self._backoff.wait_s(("config", replica.id, deployment.config_hash)) > 0
            ):
                continue
            task = asyncio.create_task(self._reconfigure_one(stack, replica, deployment))
            self._reconfiguring[replica.id] = task

    async def _reconfigure_one(self, stack: str, replica: ReplicaState, deployment: DesiredDeployment) -> None:
        try:
            await self.cluster.reconfigure(replica.id, deployment.spec.get("user_config"), deployment.config_hash)
        except CodeFailed as error:
            self._backoff.failed(("config", replica.id, deployment.config_hash))
            log.warning("a replica refused its user_config", extra={"replica": replica.id, "reason": error.message})
            if self.ledger.target(stack) is not None:
                failure = Failure(
                    code="reconfigure_failed",
                    message=error.message,
                    deployment=deployment.name,
                    traceback=error.traceback,
                )
                await self.fail_target(stack, failure)
        except ServeconfError as error:  # the replica is gone, or does not answer: the next looks deal with that
            log.warning("could not reconfigure", extra={"replica": replica.id, "reason": error.message})
        finally:
            del self._reconfiguring[replica.id]
            self.look_again()

    # -- the table ----------------------------------------------------------------------------------------------

    async def _switch(self, decisions: Mapping[str, Decision], observed: Observed) -> bool:
        """Publish what the decisions come to, where that is news, and settle the targets that it reaches."""
        generation = self.ledger.generation
        routed = {name: decision.routes for name, decision in decisions.items() if decision.routes is not None}
        front = merge_fronts(routed.values())
        serving = {
            (name, deployment): await self._reachable(replicas, observed)
            for name, decision in decisions.items()
            for deployment, replicas in decision.serve
        }
        following = build_generation(generation.number + 1, front, routed.values(), serving)
        proxies = [p for p in observed.proxies if p.phase is ProxyPhase.READY]
        begun = generation.number > 0 or not proxies  # without any table proxies do not even say that all is well
        if begun and same_content(following, generation):
            following = generation
            proxies = [p for p in proxies if p.generation != generation.number]
        if proxies or following is not generation:
            try:
                await publish(self.cluster, self.ledger, following, proxies)
            except ServeconfError as error:
                return await self._stage_failed(error, decisions)
        self._stage_failures = 0
        for name, decision in decisions.items():
            if decision.final:
                await self._reach(name)
        return True

    async def _reachable(self, replicas: tuple[ReplicaState, ...], observed: Observed) -> tuple[ReplicaState, ...]:
        """The replicas with an address for proxies on other nodes, where there are such proxies."""
        places = {proxy.node_id for proxy in observed.proxies}
        reached = []
        for replica in replicas:
            if replica.tcp is None and places - {replica.node_id}:
                try:
                    replica = replace(replica, tcp=await self.cluster.tcp_address(replica.id))
                except ServeconfError:  # it is gone; the next look sees that
                    continue
            reached.append(replica)
        return tuple(reached)

    async def _stage_failed(self, error: ServeconfError, decisions: Mapping[str, Decision]) -> bool:
        log.warning("the proxies did not take the generation", extra={"reason": error.message})
        self._stage_failures += 1
        if isinstance(error, CodeFailed) or self._stage_failures >= STAGE_TRIES:
            self._stage_failures = 0
            traceback = error.traceback if isinstance(error, CodeFailed) else ""
            for name in [name for name, decision in decisions.items() if decision.ready]:
                await self.fail_target(
                    name, Failure(code=error.code, message=error.message, traceback=traceback, hint=error.hint)
                )
        return False

    async def _reach(self, stack: str) -> None:
        """The target serves: it is settled now, or, where it has to prove itself first, when its time is up."""
        head, bake = self.ledger.heads[stack], self._bake(stack)
        if head.baking_until is None and bake.limits:
            await self._baking.begin(head)
            await self.ledger.put_head(replace(head, baking_until=self.clock.wall() + bake.seconds))
            number = self.ledger.generation.number
            message = f"generation {number} is live; its errors are watched for {bake.seconds:g} s"
            self.on_event(stack, {"event": "phase", "phase": "baking", "message": message})
            self.look_again()
        elif head.baking_until is None or self._baking.is_over(head):
            await self._settle(stack)

    async def _look_at_bakes(self) -> float:
        """Take back what answers with too many errors. Returns the seconds until the next look."""
        baking = [head for head in self.ledger.heads.values() if head.baking_until is not None]
        for head in baking:
            failure = await self._baking.look(head, self._bake(head.name))
            if failure is not None:
                await self.fail_target(head.name, failure)
        return LOOK_S if baking else IDLE_S

    def _bake(self, stack: str) -> Bake:
        target = self.ledger.target(stack)
        return bake_of(self.ledger.current(stack), target) if target else Bake(seconds=0)

    async def _settle(self, stack: str) -> None:
        """The target has been reached: it is the current revision from here on."""
        head = self.ledger.heads[stack]
        revision = self.ledger.revision(stack, head.target)
        assert revision is not None
        self._baking.end(head)
        await self.ledger.put_head(replace(head, current=revision.number, target=None, baking_until=None))
        await self.ledger.put_revision(replace(revision, outcome="applied"))
        self.on_event(
            stack,
            {"event": "phase", "phase": "draining", "message": f"generation {self.ledger.generation.number} is live"},
        )
        self.on_event(stack, {"event": "resolved", "revision": revision.number})
        self.look_again()  # proxies that the former revision needed may go now

    async def _drain_surplus(self, decisions: Mapping[str, Decision], observed: Observed) -> None:
        """Stop what nobody wants and no table names; take a deleted stack off the books when its last replica is gone."""
        served = serving_ids(self.ledger.generation)
        for replica in observed.replicas:
            decision = decisions.get(replica.stack)
            wanted = decision is not None and replica.id in decision.wanted
            if wanted or replica.id in served or replica.phase in (ReplicaPhase.DRAINING, ReplicaPhase.FAILED):
                continue
            await self.cluster.stop_replica(replica.id, drain_s=self._drain_s(replica))
        for name, head in list(self.ledger.heads.items()):
            if head.deleting and head.target is None and not any(r.stack == name for r in observed.replicas):
                await self.ledger.forget_stack(name)

    # -- looking things up ----------------------------------------------------------------------------------------

    def _goal(self, stack: str) -> DesiredStack | None:
        return self.ledger.target(stack) or self.ledger.current(stack)

    def _drain_s(self, replica: ReplicaState) -> float:
        for revision in reversed(self.ledger.revisions.get(replica.stack, {}).values()):
            deployment = revision.desired.deployment(replica.deployment)
            if deployment is not None and deployment.version == replica.version:
                return float(deployment.spec.get("graceful_shutdown_timeout_s", 20.0))
        return 20.0

    def _longest_drain(self) -> float:
        routes = self.ledger.generation.routes
        return max((route.graceful_shutdown_timeout_s for route in routes), default=20.0)

    def _tell_phases(self, observed: Observed) -> None:
        """Report each replica that has moved on, to whoever follows an apply of its stack."""
        for replica in observed.replicas:
            if self._phases.get(replica.id) != replica.phase:
                event = {"event": "replica", "deployment": replica.deployment, "replica": replica.id}
                self.on_event(replica.stack, {**event, "state": replica.phase.value, "message": replica.message})
        self._phases = {replica.id: replica.phase for replica in observed.replicas}
