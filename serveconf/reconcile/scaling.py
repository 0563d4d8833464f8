"""Each deployment's number of replicas: what proxies report goes into ``plan.scaling``, and what it says is remembered.

A report is a call that the proxy answers when there is news, so the controller hears of a first request, or of a queue, in
the moment in which it is there. The passes ask for ``scaled`` stacks and say what they see (``look``); nobody else sets a
number. Numbers lie in the store: a controller that comes back goes on with them, and with reports anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from serveconf.background import Tasks
from serveconf.errors import Conflict, NotFound
from serveconf.figures import DeploymentLoad, LoadReport
from serveconf.plan.moving import NO_MOVES, Moves, left_behind
from serveconf.plan.processes import process_of
from serveconf.plan.scaling import Answer, Fleet, Verdict, decide, rule_of
from serveconf.plan.state import DesiredDeployment, DesiredStack, Observed, Phase, ReplicaState
from serveconf.reconcile.followed import REPORTING, Followed, callers_in, said_number
from serveconf.reconcile.journal import EventKind, Note, unheard
from serveconf.reconcile.listening import Listening, Reporting, Scripts
from serveconf.reconcile.loads import Loads
from serveconf.reconcile.numbers import Numbers
from serveconf.reconcile.ports import Clock, Store

log = logging.getLogger("serveconf.scaling")

TICK_S = 0.25  # between two looks at those whose load may have changed the number by now
SOON_S = 0.1  # after a decision no report makes another one
IDLE_LOOK_S = 30.0  # ... at those that have no load and no replica that could go
POLICY_S = 1.0  # between two questions to a policy

AskPolicy = Callable[[str, DesiredDeployment, dict[str, Any]], Awaitable[Answer]]  # (stack, deployment, context)


class Scaling:
    """The numbers of all stacks. All calls from one loop; ``run`` has to run for anything to change by itself."""

    def __init__(self, reporting: Reporting, store: Store, clock: Clock) -> None:
        self._clock = clock
        self.on_change: Callable[[str], None] = lambda stack: None
        self.note: Note = unheard
        self.ask_policy: AskPolicy | None = None
        self._loads = Loads()
        self._moved: dict[str, dict[str, str]] = {}  # of each stack the moves that are on their way
        self._stacks: dict[str, dict[str, Followed]] = {}
        self._numbers = Numbers(store, clock)
        self._callers: dict[str, frozenset[str]] = {}  # stack -> its replicas that call others by handle
        self._starts: dict[str, float] = {}  # replica -> when it was seen to start
        self._tasks = Tasks()
        self._listening = Listening(
            reporting, clock, self._tasks, take=self._take, expect=self._loads.expect, lose=self._lose
        )
        self._scripts = Scripts(clock, take=self.take, lose=self._lose)
        self._follows = asyncio.Event()  # there is a number that follows the load

    async def load(self) -> None:
        """Read what a former controller has decided."""
        await self._numbers.load()

    async def flush(self) -> None:
        """Write the numbers that are not written yet."""
        await self._numbers.flush()

    # -- what the passes ask and tell --------------------------------------------------------------------------------

    def scaled(self, stack: DesiredStack, *, held: bool = True) -> DesiredStack:
        """The stack with the numbers of replicas that it should have by now; also without those that were set by hand."""
        return self._numbers.scaled(stack, held=held)

    def look(
        self,
        stack: str,
        goal: DesiredStack | None,
        observed: Observed,
        failing: frozenset[str] = frozenset(),
        moves: Moves = NO_MOVES,
    ) -> None:
        """What a pass sees of its stack. ``failing``: deployments whose replicas do not start, for now.

        ``moves``: deployments that are on their way to another name: their load is that of the new one from now on.
        """
        followed = self._stacks.setdefault(stack, {})
        self._move(stack, goal, followed, moves)
        for deployment in goal.deployments if goal else ():
            replicas = observed.of(stack, deployment.name)
            one = self._follow(stack, followed, deployment)
            phases = [r.phase for r in replicas]
            one.ready, one.starting = phases.count(Phase.READY), phases.count(Phase.STARTING)
            one.failing = deployment.name in failing
            if one.starting or self._starts:
                self._time_starts(one, replicas)
        names = {deployment.name for deployment in goal.deployments} if goal else set()
        for name in followed.keys() - names:
            del followed[name]
            self._loads.forget(f"{stack}/{name}")
            self._numbers.forget(stack, name)
        self._callers[stack] = callers_in(goal, observed) if goal else frozenset()
        self._listen(observed)

    def _move(self, stack: str, goal: DesiredStack | None, followed: dict[str, Followed], moves: Moves) -> None:
        """Whoever changes its name takes along what is known of its load; and back, where it comes to nothing."""
        on_the_way = self._moved.get(stack, {})
        taken_back = {new: old for old, new in on_the_way.items() if goal and goal.deployment(old)}
        for old, new in {**taken_back, **moves}.items():
            if old in followed and new not in followed:
                followed[new] = followed.pop(old)
                self._loads.move(f"{stack}/{old}", f"{stack}/{new}")
        if moves:
            self._moved[stack] = dict(moves)
        else:  # one way or the other it is over
            self._moved.pop(stack, None)
            for old in left_behind(goal):
                self._numbers.forget(stack, old)

    def forget(self, stack: str) -> None:
        """The stack is gone."""
        self._moved.pop(stack, None)
        self._callers.pop(stack, None)
        for name in self._stacks.pop(stack, {}):
            self._loads.forget(f"{stack}/{name}")
        self._numbers.forget_stack(stack)

    def state(self, stack: str, deployment: str) -> dict[str, Any] | None:
        """The contract's ``autoscaling`` of a deployment's status; None where its number is fixed."""
        one = self._stacks.get(stack, {}).get(deployment)
        if one is None or one.rule is None:
            return None
        verdict = one.verdict
        bounds = one.rule.ever
        return {
            "desired": verdict.number if verdict else one.number,
            "min": verdict.least if verdict else bounds.least,
            "max": verdict.most if verdict else bounds.most,
            "ongoing": verdict.ongoing if verdict else 0,
            "queued": verdict.waiting if verdict else 0,
            "reason": verdict.reason if verdict else "nothing was reported yet",
        }

    def hold(self, stack: str, deployment: str, number: int) -> tuple[int, int]:
        """Set a number by hand, until the next apply; (the one before, the one that it came to).

        Raises NotFound, or Conflict where the number is outside of the bounds.
        """
        one = self._stacks.get(stack, {}).get(deployment)
        if one is None:
            raise NotFound(
                f"there is no deployment '{deployment}' in stack '{stack}'", hint="'serveconf status' lists them"
            )
        if one.rule is not None:
            bounds = one.rule.widest
            if bounds.clamp(number) != number:
                raise Conflict(
                    f"{number} is not between min_replicas ({bounds.least}) and max_replicas ({bounds.most})",
                    code="out_of_bounds",
                )
        elif number < 1:
            raise Conflict("at least 1 replica runs where autoscaling_config says nothing else", code="out_of_bounds")
        before, process = one.number, process_of(one.desired)
        for name, other in self._stacks[stack].items():
            if other is one or (process is not None and process_of(other.desired) == process):
                self._hold(stack, name, other, number)
        return before, number

    def _hold(self, stack: str, name: str, one: Followed, number: int) -> None:
        one.held = number
        self._numbers.hold(stack, name, number)
        if one.rule is None or one.rule.dry_run:
            self._set(stack, name, one, number, "set by hand")
        else:
            one.due = 0.0
            self._decide(stack, name, one)

    def release(self, stack: str) -> bool:
        """An apply by hand ends what was set by hand. False where nothing was."""
        for one in self._stacks.get(stack, {}).values():
            one.held, one.due = None, 0.0
        held = self._numbers.release(stack)
        if held:
            for one in self._stacks.get(stack, {}).values():
                if one.rule is None or one.rule.dry_run:
                    one.number = one.said
            self.on_change(stack)
        return held

    # -- what runs by itself -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look at all that may have changed without a report, until cancelled."""
        self._tasks.start(self._numbers.write(), name="numbers of replicas")
        try:
            while True:
                await self._follows.wait()
                self.tick()
                await self._clock.sleep(TICK_S)
        finally:
            await self._tasks.close()

    def tick(self) -> None:
        """Decide where it is due."""
        self._scripts.let_go()
        now = self._clock.now()
        for stack, followed in list(self._stacks.items()):
            for name, one in list(followed.items()):
                if one.rule is not None and one.due <= now:
                    self._decide(stack, name, one)

    def take(self, source: str, report: LoadReport, *, slower: float = 1.0) -> None:
        """A process has reported."""
        for name in self._loads.take(source, report, self._clock.now(), slower=slower):
            self._decide_named(name)

    def hear(self, script: str, loads: Mapping[str, DeploymentLoad]) -> None:
        """What a script asks of deployments, since it began; of no use where no number follows the load."""
        if any(one.rule for followed in self._stacks.values() for one in followed.values()):
            known = [f"{stack}/{name}" for stack, followed in self._stacks.items() for name in followed]
            self._scripts.hear(script, {name: loads.get(name, DeploymentLoad()) for name in known})

    def _take(self, source: str, report: LoadReport, slower: float) -> None:
        self.take(source, report, slower=slower)

    def _decide_named(self, name: str) -> None:
        stack, _, deployment = name.partition("/")
        one = self._stacks.get(stack, {}).get(deployment)
        if one is None or one.rule is None:
            return
        samples = one.past.window.samples
        if samples and one.ready and self._clock.now() - samples[-1].time < SOON_S:
            one.due = 0.0  # another process has just reported: the next tick is soon enough
        else:
            self._decide(stack, deployment, one)

    def _decide(self, stack: str, name: str, one: Followed) -> None:
        assert one.rule is not None
        now, before = self._clock.now(), one.verdict
        sample = self._loads.sample(f"{stack}/{name}", now)
        if one.past.window.samples and sample.time <= one.past.window.last.time:
            return
        fleet = Fleet(
            number=one.number, ready=one.ready, starting=one.starting, start_s=one.start_s, failing=one.failing
        )
        verdict, one.past = decide(
            one.rule, one.past, sample, fleet, wall=self._clock.wall(), answer=one.answer, held=one.held
        )
        one.verdict = verdict
        idle = not sample.ongoing and one.number <= verdict.least and verdict.number == one.number
        one.due = now + (IDLE_LOOK_S if idle and one.rule.policy is None else TICK_S * 4)
        if one.rule.policy is not None and one.held is None:
            self._ask(stack, name, one)
        if one.rule.dry_run:
            if verdict.number != (before.number if before else one.number):
                self._note(stack, name, one.number, verdict, verb="would go")
        elif verdict.number != one.number:
            self._note(stack, name, one.number, verdict, verb="went")
            self._set(stack, name, one, verdict.number, verdict.reason)

    def _set(self, stack: str, name: str, one: Followed, number: int, reason: str) -> None:
        extra = {"deployment": f"{stack}/{name}", "before": one.number, "after": number, "reason": reason}
        log.info("number of replicas", extra=extra)
        one.number = number
        if one.rule is not None:
            self._numbers.decide(stack, name, number)
        self.on_change(stack)

    def _note(self, stack: str, name: str, before: int, verdict: Verdict, *, verb: str) -> None:
        self.note(
            kind=EventKind.SCALE,
            stack=stack,
            deployment=name,
            message=f"{name} {verb} from {before} to {verdict.number}: {verdict.reason}",
            data={
                "before": before,
                "after": verdict.number,
                "cause": verdict.cause.name.lower(),
                "load": round(verdict.load, 2),
                "ongoing": verdict.ongoing,
                "queued": verdict.waiting,
                "target": verdict.target,
                "min": verdict.least,
                "max": verdict.most,
                "dry_run": verb != "went",
            },
        )

    # -- policies ----------------------------------------------------------------------------------------------------

    def _ask(self, stack: str, name: str, one: Followed) -> None:
        now = self._clock.now()
        running = one.asking is not None and not one.asking.done()
        if self.ask_policy is None or running or now - one.asked_at < POLICY_S or one.verdict is None:
            return
        one.asked_at = now
        context = {
            "stack": stack,
            "deployment": name,
            "replicas": one.number,
            "ready": one.ready,
            "starting": one.starting,
            "ongoing": one.verdict.ongoing,
            "queued": one.verdict.waiting,
            "load": one.verdict.load,
            "target_ongoing_requests": one.verdict.target,
            "min_replicas": one.verdict.least,
            "max_replicas": one.verdict.most,
            "time": self._clock.wall(),
        }
        one.asking = self._tasks.start(self._answer(stack, name, one, context), name=f"policy of {stack}/{name}")

    async def _answer(self, stack: str, name: str, one: Followed, context: dict[str, Any]) -> None:
        assert self.ask_policy is not None
        before = one.answer
        one.answer = await self.ask_policy(stack, one.desired, context)
        assert one.answer is not None
        if one.answer.number is None and (before is None or before.number is not None):
            message = f"the policy of {name} failed, its number stays: {one.answer.failure}"
            self.note(kind=EventKind.SCALE, stack=stack, deployment=name, message=message, data={"after": one.number})
        if self._stacks.get(stack, {}).get(name) is one:
            self._decide(stack, name, one)

    # -- who is followed ---------------------------------------------------------------------------------------------

    def _follow(self, stack: str, followed: dict[str, Followed], deployment: DesiredDeployment) -> Followed:
        one = followed.get(deployment.name)
        if one is not None and (one.desired.spec is deployment.spec or one.desired.spec == deployment.spec):
            one.desired = deployment
            return one
        rule, kept = rule_of(deployment.spec), self._numbers.of(stack)
        number = self._numbers.scaled_deployment(stack, deployment, held=True).num_replicas
        held = kept.held.get(deployment.name)
        if one is None:
            self._loads.own(f"{stack}/{deployment.name}")
        if one is None or one.rule is None or rule is None:
            one = Followed(rule=rule, desired=deployment, said=said_number(rule, deployment), number=number, held=held)
        else:
            one.rule, one.desired, one.due, one.said = rule, deployment, 0.0, said_number(rule, deployment)
            one.number = number if rule.dry_run else rule.widest.clamp(one.number)
        followed[deployment.name] = one
        if rule is not None:
            self._follows.set()
        if rule is not None and not rule.dry_run and kept.numbers.get(deployment.name) != one.number:
            self._numbers.decide(stack, deployment.name, one.number)
        elif (rule is None or rule.dry_run) and deployment.name in kept.numbers:
            self._numbers.forget(stack, deployment.name)
        return one

    def _time_starts(self, one: Followed, replicas: Iterable[ReplicaState]) -> None:
        now = self._clock.now()
        for replica in replicas:
            if replica.phase is Phase.STARTING:
                self._starts.setdefault(replica.id, now)
            elif (began := self._starts.pop(replica.id, None)) is not None and replica.phase is Phase.READY:
                one.start_s = 0.5 * one.start_s + 0.5 * max(now - began, 0.1)

    # -- reports -----------------------------------------------------------------------------------------------------

    def _listen(self, observed: Observed) -> None:
        """To each process that takes requests."""
        sources = {proxy.id for proxy in observed.proxies if proxy.phase in REPORTING}
        sources |= {replica for callers in self._callers.values() for replica in callers}
        if not any(one.rule for followed in self._stacks.values() for one in followed.values()):
            sources = set()  # nobody wants to know
        self._listening.turn_to(sources)

    def _lose(self, source: str) -> None:
        for name in self._loads.lose(source):
            self._decide_named(name)
