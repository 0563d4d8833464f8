"""One apply, from request to result: prepare, plan, write the target, wait until the reconciler has settled it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.structs import replace

from serveconf.disk import disk_full, is_full
from serveconf.errors import AuthorError, Conflict, InternalError, ServeconfError
from serveconf.plan.actions import Plan
from serveconf.plan.diff import make_plan
from serveconf.plan.moving import moves_of, seen_with_names, with_names
from serveconf.plan.shadow import shadowed
from serveconf.plan.state import DesiredStack, ProxyPhase
from serveconf.plan.summary import summarise
from serveconf.reconcile import milestones
from serveconf.reconcile.canary import untried, with_canaries
from serveconf.reconcile.front import check_prefixes, listener_of, merge_fronts, said_by, slot_of, wanted_proxies
from serveconf.reconcile.journal import Journal
from serveconf.reconcile.loop import Reconciler
from serveconf.reconcile.operations import Event, Operation, Standing
from serveconf.reconcile.placement import DoesNotFit, check_placement, fit_in
from serveconf.reconcile.ports import Clock, Cluster, Counters, NodeState
from serveconf.reconcile.prepare import CodeRefused
from serveconf.reconcile.records import Failure, Ledger, Revision
from serveconf.reconcile.requests import ApplyRequest
from serveconf.reconcile.result import add_up, code_failures, make_result
from serveconf.reconcile.stacks import Stacks
from serveconf.spec.models import Location

log = logging.getLogger("serveconf.control")

FREED_S = 2.0  # how long what has ended may still be counted as taken
SETTLE_S = 2.0  # how long an apply that nobody waits for lets idle old replicas go first; busy ones drain on without it
BEHIND_S = 10.0  # ... and for a proxy that does not answer to be brought forward: until then its clients see what was


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What an apply is to reach: the request, how to get from what serves to what is wanted, and what it leaves behind."""

    request: ApplyRequest
    desired: Callable[[DesiredStack | None, int], Awaitable[DesiredStack]]  # (current, new revision number)
    pin: bool = False  # a rollback pins
    at_once: bool = False  # nothing of it is tried on a share of the requests first
    deleting: bool = False  # the whole stack goes
    instead: bool = False  # of whatever is just being tried
    shown: Callable[[dict[str, Any]], dict[str, Any]]  # from the spec that the current revision shows to the new one's
    why: Callable[[], str] = lambda: ""  # what the history says before what was done


@dataclass(frozen=True, kw_only=True)
class Deps:
    """What an apply works with."""

    reconciler: Reconciler
    cluster: Cluster
    stacks: Stacks
    clock: Clock
    journal: Journal = field(default_factory=Journal)

    @property
    def ledger(self) -> Ledger:
        """To read."""
        return self.stacks.ledger


async def perform(
    deps: Deps, operation: Operation, ask: Ask, turn: Callable[[], AbstractAsyncContextManager[None]]
) -> None:
    """Run the apply to its end, when its ``turn`` has come; whatever happens, the operation gets its result."""
    began = deps.clock.now()
    try:
        async with turn():
            began = deps.clock.now()
            operation.standing = Standing.PREPARING
            result = await _apply(deps, operation, ask)
    except asyncio.CancelledError:
        result = cancelled(operation)
    except CodeRefused as refused:
        await deps.stacks.note_invalid(operation.stack, refused.message)
        result = make_result(operation.stack, outcome="rolled_back", failures=code_failures(refused))
    except ServeconfError as error:
        if isinstance(error, AuthorError):
            await deps.stacks.note_invalid(operation.stack, error.message)
        outcome = "conflict" if isinstance(error, Conflict) else "failed"
        failure = Failure(code=error.code, message=error.message, hint=error.hint)
        result = make_result(operation.stack, outcome=outcome, failures=[failure])
    except Exception as error:  # whoever follows the apply must hear of it, whatever it is
        log.exception("an apply failed")
        full = disk_full("what the apply had to write", getattr(error, "filename", None)) if is_full(error) else None
        fault = InternalError(f"{type(error).__name__}: {error}", hint="this is a fault of serveconf")
        told = full or fault
        failure = Failure(code=told.code, message=told.message, hint=told.hint)
        result = make_result(operation.stack, outcome="failed", failures=[failure])
    result["receipt"]["duration_s"] = round(deps.clock.now() - began, 3)
    _record(deps, operation, ask.request, result)
    operation.finish(result)


def _record(deps: Deps, operation: Operation, request: ApplyRequest, result: Event) -> None:
    """Count it; what came to nothing before it was a revision is told by nobody else."""
    receipt = result["receipt"]
    deps.journal.figures.applied(operation.stack, result["outcome"], receipt["duration_s"], receipt["failed"])
    revision = deps.ledger.revision(operation.stack, operation.revision)
    begun = revision is not None and revision.operation == operation.id
    if not begun and result["outcome"] != "unchanged":
        deps.journal.tell(milestones.came_to_nothing(operation.stack, request, result))


def cancelled(operation: Operation) -> Event:
    """The result of an apply whose task was cancelled, before it had begun or in the middle."""
    message = "the apply was cancelled before anything was touched"
    if operation.standing is Standing.APPLYING:
        message = "serveconf was shut down before the apply was complete"
    failure = Failure(code="cancelled", message=message)
    return make_result(operation.stack, outcome="rolled_back", failures=[failure])


async def _apply(deps: Deps, operation: Operation, ask: Ask) -> Event:
    stack, request = operation.stack, ask.request
    operation.tell({"event": "phase", "phase": "preflight", "message": "looking at the spec and the code"})
    current = deps.ledger.current(stack)
    if request.base_revision is not None and request.base_revision != (current.revision if current else 0):
        raise stale(stack, request.base_revision, current)
    if not request.automatic:
        if deps.reconciler.scaling.release(stack):  # what was set by hand holds until the next apply
            deps.journal.tell(milestones.released(stack, request.caller))
        current = deps.ledger.current(stack)
    desired = await ask.desired(current, deps.ledger.next_number(stack))
    desired, plan = await fitted(deps, current, desired)
    if not ask.pin and not ask.at_once:
        plan = with_canaries(plan, current, desired)
    operation.tell({"event": "plan", **plan.as_json()})
    if not plan.changed and current is not None and not ask.deleting:
        await deps.stacks.note_invalid(stack, "")
        await deps.stacks.pin(stack, request.caller, pinned=ask.pin)
        if request.source:
            await deps.stacks.confirm(stack, request.source, request.commit)
        return make_result(stack, outcome="unchanged", revision=current.revision)
    await _count(deps, operation, begin=True)
    await _begin(deps, operation, ask, desired, plan)
    operation.tell({"event": "phase", "phase": "starting", "message": f"revision {desired.revision} of stack {stack}"})
    await _wait(deps, operation, request)
    return await _result(deps, operation, desired.revision)


async def see_through(deps: Deps, operation: Operation, number: int) -> None:
    """Wait for a revision that a former controller began to apply, and give its result."""
    operation.standing, operation.revision = Standing.APPLYING, number
    head = deps.ledger.heads.get(operation.stack)
    goes_on = head is not None and head.target == number
    if goes_on:
        message = f"the controller has come back and goes on with revision {number} of stack {operation.stack}"
        operation.tell({"event": "phase", "phase": "starting", "message": message})
    revision = await deps.stacks.reached(operation.stack, number)
    result = await _result(deps, operation, number)
    if goes_on and revision is not None:
        seconds = max(0.0, deps.clock.wall() - revision.time)
        deps.journal.figures.applied(operation.stack, result["outcome"], seconds, result["receipt"]["failed"])
    operation.finish(result)


async def _result(deps: Deps, operation: Operation, number: int) -> Event:
    """The result of a revision that serves, or was given up. What it did to the traffic is counted once."""
    revision = deps.ledger.revision(operation.stack, number)
    if revision is None:  # of a stack that is gone
        failure = Failure(code="not_found", message=f"revision {number} is not kept any more")
        return make_result(operation.stack, outcome="failed", revision=number, failures=[failure])
    if not revision.receipt:
        counted, proxies = await _count(deps, operation, begin=False)
        receipt = msgspec.to_builtins(add_up(counted, proxies=proxies, duration_s=0))
        if revision.canary:
            receipt["canary"] = revision.canary
        await deps.stacks.note_receipt(operation.stack, number, receipt)
        revision = deps.ledger.revision(operation.stack, number) or replace(revision, receipt=receipt)
    return make_result(
        operation.stack,
        outcome=revision.outcome,
        revision=number,
        changed=revision.outcome == "applied",
        actions=revision.actions,
        receipt=revision.receipt,
        failures=[revision.failure] if revision.failure else [],
    )


async def fitted(deps: Deps, current: DesiredStack | None, desired: DesiredStack) -> tuple[DesiredStack, Plan]:
    """The stack as the cluster has room for it, and what has to be done, drift of replicas and proxies included.

    Raises Conflict where another stack claims a prefix or another front, DoesNotFit where there is no room.
    """
    others = other_goals(deps, desired.name)
    front = merge_fronts([*others, desired])
    check_prefixes([*others, desired])
    desired, waves = await _fit(deps, current, desired)
    listener = None if front.location is Location.NO_SERVER else listener_of(front.options)
    plan = make_plan(
        current, desired, deps.cluster.observe(), listener=listener, shared=said_by(other_goals(deps, desired.name))
    )
    return desired, replace(plan, warnings=(*shadowed(desired), *waves, *untried(current, desired)))


async def _fit(deps: Deps, current: DesiredStack | None, desired: DesiredStack) -> tuple[DesiredStack, tuple[str, ...]]:
    """``fit_in``; where room is short it looks again for a moment, as what has just ended may still be counted."""
    deadline = deps.clock.now() + FREED_S
    moves = moves_of(current, desired)
    current = with_names(current, moves)
    while True:
        late = deps.clock.now() >= deadline
        try:
            observed = seen_with_names(deps.cluster.observe(), desired.name, moves)
            made, waves = fit_in(desired, current, observed, deps.cluster.nodes())
        except DoesNotFit:
            if late or _fits_nowhere(desired, deps.cluster.nodes()):
                raise
        else:
            if late or not waves:
                return made, waves
        await deps.clock.sleep(0.25)
        await deps.cluster.refresh()


def _fits_nowhere(desired: DesiredStack, nodes: Sequence[NodeState]) -> bool:
    try:
        check_placement(desired, nodes)
    except DoesNotFit:
        return True
    return False


def other_goals(deps: Deps, stack: str) -> list[DesiredStack]:
    """What all other stacks are, or are being brought to."""
    goals = (deps.ledger.target(name) or deps.ledger.current(name) for name in deps.ledger.heads if name != stack)
    return [goal for goal in goals if goal is not None]


async def _begin(deps: Deps, operation: Operation, ask: Ask, desired: DesiredStack, plan: Plan) -> None:
    """From here on a controller that comes back goes on with it."""
    head = deps.ledger.heads.get(desired.name)
    actions = plan.as_json()["actions"]
    before = deps.ledger.revision(desired.name, head.current) if head else None
    revision = Revision(
        number=desired.revision,
        stack=desired.name,
        time=deps.clock.wall(),
        desired=desired,
        spec=ask.shown(before.spec if before else {}),
        author=ask.request.author,
        token=ask.request.token,
        automatic=ask.request.automatic and not ask.at_once,
        source=ask.request.source,
        commit=ask.request.commit,
        summary=ask.why() + summarise(actions),
        operation=operation.id,
        actions=actions,
        at_once=ask.pin or ask.at_once,
    )
    operation.standing, operation.revision = Standing.APPLYING, revision.number
    base = before.number if before else None
    await deps.stacks.begin(revision, base=base, deleting=ask.deleting, pinned=ask.pin)


async def _wait(deps: Deps, operation: Operation, request: ApplyRequest) -> None:
    """Until the target is settled, or past the deadline given up. Then until what it replaced is gone, unless somebody waits for it."""
    number = operation.revision
    assert number is not None
    try:
        async with asyncio.timeout(request.timeout_s):
            await deps.stacks.reached(operation.stack, number)
    except TimeoutError:
        failure = Failure(
            code="deadline", message=f"not done after {request.timeout_s:g} s; what was started is removed"
        )
        await deps.stacks.give_up(operation.stack, number, failure, outcome="timeout")
    await _until(deps, BEHIND_S, lambda: not _is_any_behind(deps, idle=not operation.hurried))
    await _until(deps, SETTLE_S, lambda: operation.hurried or not _unsettled(deps, operation.stack))


async def _until(deps: Deps, limit_s: float, what: Callable[[], bool]) -> None:
    deadline = deps.clock.now() + limit_s
    while not what() and deps.clock.now() < deadline:
        await deps.clock.sleep(0.02)


def _is_any_behind(deps: Deps, *, idle: bool) -> bool:
    """Whether a proxy has an older table; ``idle``: also one that stands by, and has no clients."""
    live = deps.reconciler.table.generation.number
    here = (p for p in deps.cluster.observe().proxies if p.phase in (ProxyPhase.READY, ProxyPhase.UNHEALTHY))
    return any(p.generation < live for p in here if idle or not p.stands_by)


def _unsettled(deps: Deps, stack: str) -> bool:
    """Whether replicas or proxies that nobody needs are still there."""
    current = deps.ledger.current(stack)
    goals = [*other_goals(deps, stack), *([current] if current else [])]
    wanted = {order.id for order in wanted_proxies(merge_fronts(goals), deps.cluster.nodes())} if goals else set()
    if any(slot_of(proxy.id) not in wanted for proxy in deps.cluster.observe().proxies):
        return True
    versions = {(d.name, d.version): d.num_replicas for d in current.deployments} if current else {}
    for replica in deps.cluster.observe().replicas:
        if replica.stack == stack:
            key = (replica.deployment, replica.version)
            versions[key] = versions.get(key, 0) - 1
    return any(left < 0 for left in versions.values())


async def _count(deps: Deps, operation: Operation, *, begin: bool) -> tuple[list[Counters], int]:
    """What the proxies that answer have counted, and how many should have: one that stands by has counted nothing."""
    proxies = [p for p in deps.cluster.observe().proxies if p.phase is not ProxyPhase.STARTING]
    answers = await asyncio.gather(
        *(deps.cluster.count(p.id, operation.id, begin=begin) for p in proxies), return_exceptions=True
    )
    counted = [c for c in answers if isinstance(c, Counters)]
    silent = sum(isinstance(c, BaseException) and not p.stands_by for p, c in zip(proxies, answers, strict=True))
    return counted, len(counted) + silent


def stale(stack: str, base: int, current: DesiredStack | None) -> Conflict:
    """The stack has moved on since the caller looked."""
    at = f"at revision {current.revision}" if current else "not there"
    return Conflict(
        f"stack '{stack}' is {at}, the request was made for revision {base}",
        hint="plan again and apply that",
        code="stale",
    )
