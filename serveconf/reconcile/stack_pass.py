"""One look at one stack, and what is next for it: level-triggered, so looking twice is harmless.

Everything that a pass does it does for its own stack: one that hangs, in user code or at a node, holds up no other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from dataclasses import replace as with_fields
from typing import Any

from msgspec.structs import replace

from serveconf.background import Tasks
from serveconf.errors import CodeFailed, Conflict, ServeconfError
from serveconf.plan.hiding import hide, secrets_of_deployment
from serveconf.plan.moving import left_behind, moves_of, seen_on_the_way, with_names
from serveconf.plan.processes import beside, seen_together
from serveconf.plan.state import DesiredDeployment, DesiredStack, Observed, Phase, ReplicaPhase, ReplicaState
from serveconf.reconcile.admission import Admission
from serveconf.reconcile.baking import LOOK_S, Bake, Baking, bake_of
from serveconf.reconcile.beginning import Beginning, beginning, beginning_routes
from serveconf.reconcile.canary_decide import Trial, decide_trial
from serveconf.reconcile.canary_pass import LOOK_S as CANARY_LOOK_S
from serveconf.reconcile.canary_pass import Canaries
from serveconf.reconcile.decide import Decision, StackView, as_served, decide
from serveconf.reconcile.journal import EventKind, Happening, Journal
from serveconf.reconcile.ports import Clock, Cluster
from serveconf.reconcile.proxies import Proxies
from serveconf.reconcile.records import Failure, StackHead
from serveconf.reconcile.respread import Respread
from serveconf.reconcile.rollout import has_too_many
from serveconf.reconcile.scaling import Scaling
from serveconf.reconcile.settled import Seen, is_settled
from serveconf.reconcile.stacks import Stacks
from serveconf.reconcile.starts import Starts
from serveconf.reconcile.table import Silent, Table
from serveconf.reconcile.waits import Backoff

log = logging.getLogger("serveconf.reconcile")

IDLE_S = 5.0  # a look without any reason, against whatever was missed
RETRY_S = 0.25  # after something that should pass by itself
SWITCH_S = 5.0  # how long the proxies may refuse a target before it is given up

Event = dict[str, Any]
Tell = Callable[[str, Event], None]  # (stack, event), for who follows an apply


@dataclass(frozen=True, kw_only=True)
class Room:
    """What all passes share."""

    cluster: Cluster
    stacks: Stacks
    table: Table
    proxies: Proxies
    clock: Clock
    tasks: Tasks
    journal: Journal
    scaling: Scaling
    admission: Admission
    tell: Tell


class StackPass:
    """The passes over one stack, and what one leaves for the next."""

    def __init__(self, name: str, room: Room, look_again: Callable[[], None]) -> None:
        self.name = name
        self._cluster, self._stacks, self._table, self._clock = room.cluster, room.stacks, room.table, room.clock
        self._proxies = room.proxies
        self._tasks = room.tasks
        self._journal = room.journal
        self._scaling = room.scaling
        self._tell = room.tell
        self._look_again = look_again
        self._starts = Starts(name, room.cluster, room.clock, room.journal, self._desired, room.admission)
        self._backoff: Backoff[tuple[str, ...]] = Backoff(room.clock)  # of replicas that do not take a user_config
        self._reconfiguring: set[str] = set()
        self._failing: frozenset[str] = frozenset()  # deployments whose replicas do not start, for now
        self._phases: dict[str, ReplicaPhase] = {}
        self._tended: dict[str, dict[str, Any]] = {}  # replica -> the spec by which it is looked after
        self._refused_since: float | None = None
        self._settled: Seen | None = None  # there was nothing to do, and is not while it looks the same
        self._look_at = 0.0  # ... until then
        self._beginning = Beginning(name, room.stacks.ledger.store)
        self._baking = Baking(room.cluster, room.clock)
        self._respread = Respread(name, room.clock, room.journal)
        self._canaries = Canaries(room.cluster, room.stacks, room.clock, say=self._say, journal=room.journal)

    async def once(self) -> float:
        """Look, and do what is next. Returns the seconds until the next look that nobody asks for."""
        head = self._stacks.head(self.name)
        if head is None:
            return IDLE_S
        seen = self._see(head)
        if seen == self._settled and (rest_s := self._look_at - self._clock.now()) > 0:
            return rest_s
        self._settled = None
        pause = IDLE_S if head.baking_until is None else LOOK_S
        if head.baking_until is not None and (failure := await self._baking.look(head, self._bake(head))) is not None:
            await self._give_up(head, failure)
            return 0.0
        observed = self._observe(head)
        self._tell_phases(observed)
        current, target = self._desired(head.current), self._desired(head.target)
        goal = target or current
        self._failing = (
            frozenset(d.name for d in goal.deployments if self._starts.are_failing(d)) if goal else frozenset()
        )
        moves = moves_of(current, target) if target is not None else {}
        self._scaling.look(self.name, goal, observed, self._failing, moves)
        if goal is not None and has_too_many(goal, observed):  # the least busy ones go
            await self._cluster.refresh_load()
            observed = self._observe(head)
        there, observed = observed, seen_together(observed)
        trial = self._canaries.trial(head, self._table.generation)
        if trial is not None:
            pause = CANARY_LOOK_S
            if (failure := await self._canaries.judge(head, trial, observed)) is not None:
                await self._give_up(head, failure)
                return 0.0
        decision = self._decide(head, observed, trial)
        if decision.failure is not None:
            await self._give_up(head, decision.failure)
            return 0.0
        await self._tell_what_begins(head, observed, trial)
        self._reconfigure(head, decision)
        self._tend(head, observed)
        pause_s, switched = await self._start_and_switch(head, decision, observed, trial)
        pause = min(pause, pause_s)
        if not switched:
            return 0.0
        await self._drain_surplus(decision, there)
        await self._give_names()
        if not self._failing and self._see(head) == seen and is_settled(seen, decision, there, self._table.serving()):
            self._settled, self._look_at = seen, self._clock.now() + IDLE_S
        return pause

    def _see(self, head: StackHead) -> Seen:
        observed = self._cluster.observe()
        return Seen(
            head=head,
            stack=self._desired(head.current),
            replicas=observed.of_stack(self.name),
            proxies=observed.proxy_places,
            draining=frozenset(node.id for node in self._cluster.nodes() if node.drains),
            front=self._table.generation.front,
            routes=self._table.routes_of(self.name),
            stacks=len(self._stacks.ledger.heads),
        )

    async def _start_and_switch(
        self, head: StackHead, decision: Decision, observed: Observed, trial: Trial | None
    ) -> tuple[float, bool]:
        """Who waits for a replica that is ready does not wait for the start of another one, where that decides nothing."""
        if head.target is not None or not decision.start:
            pause_s = await self._starts.once(head, decision, observed)
            return pause_s, await self._switch(head, decision, observed, trial)
        starting = asyncio.ensure_future(self._starts.once(head, decision, observed))
        try:
            switched = await self._switch(head, decision, observed, trial)
        finally:
            pause_s = await starting
        return pause_s, switched

    async def _tell_what_begins(self, head: StackHead, observed: Observed, trial: Trial | None) -> None:
        """To the target's replicas that start: which of those that they are bound to are ready."""
        target = self._desired(head.target) if trial is None or trial.plan.is_over(trial.state) else None
        found = beginning(target, observed, self._table.generation)
        places = frozenset(replica.node_id for replica in observed.of_stack(self.name)) if found else frozenset()
        begun = [(deployment, await self._reached_from(places, replicas)) for deployment, replicas in found]
        await self._beginning.tell(beginning_routes(target, begun))

    def _decide(self, head: StackHead, observed: Observed, trial: Trial | None) -> Decision:
        nodes = self._cluster.nodes()
        drains = {node.id for node in nodes if node.drains}
        current, target = self._desired(head.current), self._desired(head.target)
        moves = moves_of(current, target) if target is not None else {}
        busy = target is not None or trial is not None or self._failing or head.ends
        moving = self._respread.leaving(None if busy else current, observed, nodes)
        view = StackView(
            name=self.name,
            current=with_names(current, moves),
            target=target,
            observed=observed,
            served=self._table.serving(),
            front_ready=head.target is None or self._proxies.are_ready(observed),
            leaving=moving | {r.id for r in observed.of_stack(self.name) if drains and r.node_id in drains},
            bakes=bool(self._bake(head).limits),
            baking=head.baking_until is not None,
        )
        decision = decide(view) if trial is None else decide_trial(view, trial)
        return decision if decision.routes is not view.current else as_served(decision, current, moves)

    async def _give_up(self, head: StackHead, failure: Failure) -> None:
        """What served before goes on, and the next pass removes what was started for the target."""
        if head.target is not None:
            await self._stacks.give_up(self.name, head.target, failure)
        self._baking.end(head)
        self._look_again()

    # -- replicas -----------------------------------------------------------------------------------------------

    def _tend(self, head: StackHead, observed: Observed) -> None:
        """What a change of no cost asks of replicas that stay."""
        goal = self._desired(head.target) or self._desired(head.current)
        before, self._tended = self._tended, {}
        for deployment in goal.deployments if goal else ():
            spec = deployment.spec
            for replica in observed.of(self.name, deployment.name):
                if replica.version == deployment.version:
                    if before.get(replica.id) is not spec:  # the cluster knows already
                        self._cluster.tend_replica(replica.id, spec)
                    self._tended[replica.id] = spec

    async def _give_names(self) -> None:
        """What has settled under another name than before: its replicas get that name."""
        head = self._stacks.head(self.name)
        if head is None or head.target is not None:
            return
        names = left_behind(self._desired(head.current))
        for replica in self._cluster.observe().of_stack(self.name) if names else ():
            if replica.deployment in names and replica.phase in (Phase.STARTING, Phase.READY, Phase.UNHEALTHY):
                await self._cluster.rename_replica(replica.id, names[replica.deployment])

    def _reconfigure(self, head: StackHead, decision: Decision) -> None:
        """Hand new user_configs to live replicas, beside the pass: user code may take its time."""
        for replica, deployment in decision.reconfigure:
            waits = self._backoff.wait_s(("config", replica.id, deployment.config_hash)) > 0
            if replica.id not in self._reconfiguring and not waits:
                self._reconfiguring.add(replica.id)
                self._tasks.start(self._reconfigure_one(head, replica, deployment), name=f"reconfigure {replica.id}")

    async def _reconfigure_one(self, head: StackHead, replica: ReplicaState, deployment: DesiredDeployment) -> None:
        try:
            await self._cluster.reconfigure(replica.id, deployment.spec.get("user_config"), deployment.config_hash)
        except ServeconfError as error:  # one that is gone, or does not answer: the next looks deal with that
            self._backoff.failed(("config", replica.id, deployment.config_hash))
            why = hide(error.message, secrets_of_deployment(deployment))
            log.warning("a replica did not take its user_config", extra={"replica": replica.id, "why": why})
            self._journal.tell(
                Happening(
                    kind=EventKind.HEAL,
                    stack=self.name,
                    deployment=deployment.name,
                    message=f"replica {replica.id} did not take its user_config: {why}",
                    data={"replica": replica.id, "config": deployment.config_hash},
                    like="user_config",
                )
            )
            if isinstance(error, CodeFailed) and head.target is not None:
                failure = Failure(
                    code="reconfigure_failed",
                    message=error.message,
                    deployment=deployment.name,
                    traceback=error.traceback,
                )
                await self._stacks.give_up(self.name, head.target, failure)
        finally:
            self._reconfiguring.discard(replica.id)
            self._look_again()

    # -- the table ----------------------------------------------------------------------------------------------

    async def _switch(self, head: StackHead, decision: Decision, observed: Observed, trial: Trial | None) -> bool:
        """Bring the table to what the decision comes to. A target that it reaches is settled, or bakes first."""
        serving = {name: await self._reachable(replicas, observed) for name, replicas in decision.serve}
        canaries = [
            with_fields(canary, replicas=await self._reachable(canary.replicas, observed))
            for canary in decision.canaries
        ]
        step = self._canaries.begun(head, trial) if trial is not None and decision.step_begins else None
        bake = self._bake(head)
        if decision.final and bake.limits and head.baking_until is None:
            await self._baking.begin(head)

        @asynccontextmanager
        async def claim() -> AsyncIterator[bool]:
            begins = bool(bake.limits) and head.baking_until is None
            until = self._clock.wall() + bake.seconds if begins else None
            goes_on = head.baking_until is not None and not self._baking.is_over(head, bake)
            reached = decision.final and not goes_on
            switching = self._stacks.switching(self.name, head.target, bake_until=until, final=reached, step=step)
            async with switching as mine:
                yield mine
            if mine and step is not None and trial is not None:
                self._canaries.tell_begun(head, trial)
            if mine and reached:
                self._tell_reached(head, bake if begins else None)

        try:
            moved = await self._table.move(self.name, decision.routes, serving, claim, canaries, self._failing)
        except ServeconfError as error:
            await self._switch_failed(head, decision, error)
            return False
        self._refused_since = None
        return moved

    async def _reachable(self, replicas: tuple[ReplicaState, ...], observed: Observed) -> tuple[ReplicaState, ...]:
        """The replicas with an address for proxies on other nodes, where there are such proxies."""
        return await self._reached_from(frozenset(proxy.node_id for proxy in observed.proxies), replicas)

    async def _reached_from(
        self, places: frozenset[str], replicas: tuple[ReplicaState, ...]
    ) -> tuple[ReplicaState, ...]:
        reached = []
        for replica in replicas:
            if replica.tcp is None and places - {replica.node_id}:
                try:
                    replica = replace(replica, tcp=await self._cluster.tcp_address(replica.id))
                except ServeconfError:  # it is gone; the next look sees that
                    continue
            reached.append(replica)
        return tuple(reached)

    async def _switch_failed(self, head: StackHead, decision: Decision, error: ServeconfError) -> None:
        reason = (
            error.code if isinstance(error, CodeFailed) else error.message
        )  # a middleware may say what it was given
        log.warning("the proxies did not take the generation", extra={"stack": self.name, "reason": reason})
        now = self._clock.now()
        if isinstance(error, Silent):  # nothing that the target could be blamed for
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = now
        refused_s = 0.0 if self._refused_since is None else now - self._refused_since
        moves = decision.ready or decision.step_begins
        if moves and (isinstance(error, CodeFailed | Conflict) or refused_s >= SWITCH_S):
            self._refused_since = None
            traceback = error.traceback if isinstance(error, CodeFailed) else ""
            failure = Failure(code=error.code, message=error.message, traceback=traceback, hint=error.hint)
            await self._give_up(head, failure)
        else:
            await self._clock.sleep(RETRY_S)  # here: whatever wakes the loop meanwhile does not make it try at once

    def _tell_reached(self, head: StackHead, bake: Bake | None) -> None:
        live = f"generation {self._table.generation.number} is live"
        if bake is None:
            self._baking.end(head)
            self._say("draining", live)
        else:
            self._say("baking", f"{live}; its errors are watched for {bake.seconds:g} s")
        self._look_again()  # what the former revision needed may go now

    async def _drain_surplus(self, decision: Decision, observed: Observed) -> None:
        """Stop what nobody wants and no proxy's table names; a stack that ends is forgotten when its last replica is gone."""
        stays, mine = decision.wanted | self._table.needed(self._cluster.observe()), observed.of_stack(self.name)
        surplus = [r for r in mine if r.id not in stays and r.phase not in (ReplicaPhase.DRAINING, ReplicaPhase.FAILED)]
        for replica in surplus:
            if not any(r.id in stays for r in beside(mine, replica)):
                await self._cluster.stop_replica(replica.id, drain_s=self._drain_s(replica))
        head = self._stacks.head(self.name)
        if head is not None and head.ends and not self._cluster.observe().of_stack(self.name):
            await self._stacks.forget(self.name)
            self._scaling.forget(self.name)

    # -- looking things up ----------------------------------------------------------------------------------------

    def _observe(self, head: StackHead) -> Observed:
        """What is there; what goes on under another name has that already."""
        current, target = self._desired(head.current), self._desired(head.target)
        return seen_on_the_way(self._cluster.observe(), self.name, current, target)

    def _desired(self, number: int | None) -> DesiredStack | None:
        revision = self._stacks.ledger.revision(self.name, number)
        return self._scaling.scaled(revision.desired) if revision is not None else None

    def _bake(self, head: StackHead) -> Bake:
        target = self._desired(head.target)
        return bake_of(self._desired(head.current), target) if target else Bake(seconds=0)

    def _drain_s(self, replica: ReplicaState) -> float:
        for revision in reversed(self._stacks.ledger.revisions.get(self.name, {}).values()):
            deployment = revision.desired.deployment(replica.deployment)
            if deployment is not None and deployment.version == replica.version:
                return float(deployment.spec.get("graceful_shutdown_timeout_s", 20.0))
        return 20.0

    def _say(self, phase: str, message: str) -> None:
        self._tell(self.name, {"event": "phase", "phase": phase, "message": message})

    def _tell_phases(self, observed: Observed) -> None:
        """Report each replica that has moved on, to whoever follows an apply of the stack."""
        mine = observed.of_stack(self.name)
        for replica in mine:
            if self._phases.get(replica.id) != replica.phase:
                event = {"event": "replica", "deployment": replica.deployment, "replica": replica.id}
                shown = ReplicaPhase.DRAINING if replica.cut_short else replica.phase  # another one starts at once
                self._tell(self.name, {**event, "state": shown.value, "message": replica.message})
                self._starts.see(replica, self._phases.get(replica.id))
        self._phases = {replica.id: replica.phase for replica in mine}
