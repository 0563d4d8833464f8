"""What the control API and the Python API ask of the controller: plan, apply, delete, roll back, look.

An apply is an ``Operation`` that can be followed; applies of one stack queue, those of two stacks run side by side.
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.structs import replace

from serveconf import __version__
from serveconf.background import Tasks
from serveconf.backup_file import Backup, SavedStack
from serveconf.errors import Conflict, EngineSilent, NoRoom, NotFound
from serveconf.plan.actions import Plan
from serveconf.plan.desired import as_running
from serveconf.plan.moving import with_way_back
from serveconf.plan.processes import with_processes
from serveconf.plan.state import DesiredStack
from serveconf.reconcile import milestones
from serveconf.reconcile.apply import Ask, Deps, cancelled, fitted, perform, see_through, stale
from serveconf.reconcile.backup import make_backup, take_history
from serveconf.reconcile.beside import warnings_of
from serveconf.reconcile.canary import CanaryPlan, with_canaries
from serveconf.reconcile.canary_pass import canaries_of
from serveconf.reconcile.journal import EventKind, Happening
from serveconf.reconcile.logs import read_controller_log, read_logs, read_proxy_logs
from serveconf.reconcile.merge import merged_spec, merged_stack, spec_without
from serveconf.reconcile.operation import Event, Operation, Standing
from serveconf.reconcile.packages import Packages
from serveconf.reconcile.ports import Preflight
from serveconf.reconcile.prepare import prepare
from serveconf.reconcile.records import Failure, Revision, StackHead, code_of
from serveconf.reconcile.requests import NOBODY, ApplyRequest, Caller, Cancelled
from serveconf.reconcile.result import masked
from serveconf.reconcile.scaling import Scaling
from serveconf.reconcile.turns import Turns
from serveconf.reconcile.unseen import NOTE, Unseen
from serveconf.reconcile.upgrade import Upgrade, upgraded

KEPT_OPERATIONS = 100
QUEUED_BYTES = 64_000_000  # of all requests that were not brought to an end yet
SHUTDOWN_DRAIN_S = 10.0  # for requests that are being answered
SHUTDOWN_GRACE_S = 10.0  # then whatever is left is stopped at once


@dataclass(frozen=True, kw_only=True)
class _Queued:
    """An apply that has not ended."""

    size: int  # bytes of its request
    code: str


class ControlPlane:
    """The controller without its transport."""

    def __init__(self, deps: Deps, *, packages: Packages, preflight: Preflight) -> None:
        self.packages = packages
        self.ledger = deps.stacks.ledger
        self.cluster = deps.cluster
        self._deps = deps
        self._preflight = preflight
        self._turns = Turns(deps.stacks, self._has_canary)
        self._operations: OrderedDict[str, Operation] = OrderedDict()
        self._queued: dict[str, _Queued] = {}  # by the id of its operation
        packages.needed, packages.shorten = self._code_needed, self._shorten
        self._upgrading: Operation | None = None
        self._tasks = Tasks()
        deps.reconciler.on_event = self._tell

    async def plan(self, request: ApplyRequest, *, look: bool = True) -> Plan:
        """What applying the request would do. Raises CodeRefused, Conflict, … where it could not be applied.

        ``look``: whether the code may be imported to find that out.
        """
        name = request.spec.get("name", "default")
        current = self.ledger.current(name)
        if current is not None and not request.automatic:  # an apply by hand ends what was set by hand
            revision = self.ledger.revision(name, current.revision)
            current = self.scaling.scaled(revision.desired, held=False) if revision else current
        number = self.ledger.next_number(name)
        unseen = None if look else Unseen(current, request.files)
        desired = await self._prepare(request, current, number, unseen)
        plan = with_canaries((await fitted(self._deps, current, desired))[1], current, desired)
        beside = (await warnings_of(self.packages.store, socket.gethostname())).get(name, [])
        return replace(plan, warnings=(*plan.warnings, *beside, *([NOTE] if unseen and unseen.asked else [])))

    async def plan_rollback(self, stack: str, number: int | None) -> Plan:
        """What going back to a kept revision would do."""
        current = self.ledger.current(stack)
        desired = self._way_back(self._revision_before(stack, number), current, self.ledger.next_number(stack))
        return (await fitted(self._deps, current, desired))[1]

    def apply(self, request: ApplyRequest) -> Operation:
        """Begin to make the request so."""
        stack = request.spec.get("name", "default")

        async def desired(current: DesiredStack | None, number: int) -> DesiredStack:
            head = self.ledger.heads.get(stack)
            if request.automatic and head is not None and head.pinned:
                raise Conflict(
                    f"stack '{stack}' is pinned to revision {head.current} by a rollback",
                    hint="'serveconf resume', or an apply by hand, ends the pin",
                    code="pinned",
                )
            return await self._prepare(request, current, number)

        def shown(before: dict[str, Any]) -> dict[str, Any]:
            said = masked(request.spec, request.masks)
            return merged_spec(said, before, alone=request.alone) if request.merge else said

        return self._begin(
            stack, Ask(request=request, desired=desired, instead=request.alone or not request.merge, shown=shown)
        )

    def rollback(self, stack: str, number: int | None, request: ApplyRequest) -> Operation:
        """Begin to go back to a kept revision (where none is named, the last good one before the current), and pin it."""

        async def desired(current: DesiredStack | None, new: int) -> DesiredStack:
            if number is None and self._has_canary(stack):
                raise Conflict(
                    f"a canary of stack '{stack}' runs, so there is nothing yet to go back from",
                    hint="'serveconf abort' takes it back; to go further back name the revision",
                    code="canary_runs",
                )
            return self._way_back(self._revision_before(stack, number), current, new)

        def shown(before: dict[str, Any]) -> dict[str, Any]:
            return self._revision_before(stack, number).spec

        def why() -> str:
            return f"back to {self._revision_before(stack, number).number}: "

        return self._begin(stack, Ask(request=request, desired=desired, pin=True, instead=True, shown=shown, why=why))

    def upgrade(self, version: str, caller: Caller = NOBODY) -> Operation:
        """Begin to replace the proxies and replicas that run another version than this controller.

        Raises Conflict where this is not the version that the caller means, or an upgrade runs already.
        """
        if version != __version__:
            raise Conflict(
                f"the controller runs serveconf {__version__}, not {version}",
                hint="'serveconf upgrade' replaces the controller first",
                code="other_version",
            )
        if self._upgrading is not None and self._upgrading.result is None:
            raise Conflict("an upgrade is running already", hint="'serveconf events --follow' shows it", code="locked")
        operation = self._upgrading = Operation("")
        self._remember(operation)
        upgrade = Upgrade(self._deps, operation, lambda stack: self._roll_anew(stack, caller), caller)
        operation.task = self._tasks.start(upgrade.run(), name=f"upgrade {operation.id}")
        operation.task.add_done_callback(lambda _: self._see_finished(operation))
        return operation

    async def _roll_anew(self, stack: str, caller: Caller) -> Event:
        """Roll the stack's replicas that run another version; nothing of it changes."""
        head = self.ledger.heads.get(stack)
        serving = self.ledger.revision(stack, head.current if head else None)
        request = ApplyRequest(
            spec={"name": stack},
            author=caller.author,
            token=caller.token,
            source=serving.source if serving else "",
            commit=serving.commit if serving else None,
            automatic=True,
        )

        async def desired(current: DesiredStack | None, number: int) -> DesiredStack:
            if current is None:
                raise NotFound(f"there is no stack '{stack}'")
            return upgraded(current, self.cluster.observe(), number)

        ask = Ask(
            request=request,
            desired=desired,
            pin=head.pinned if head else False,
            at_once=True,
            shown=lambda before: before,
        )
        operation = self._begin(stack, ask)
        async for event in operation.follow():
            if event["event"] == "result":
                return event
        raise AssertionError("unreachable")

    async def backup(self, caller: Caller = NOBODY) -> Backup:
        """All stacks that serve, with their histories and packages. It holds what is secret, so it is told who has it."""
        self._tell_who(EventKind.CONTROLLER, None, f"a backup was taken{caller}", caller)
        return await make_backup(self.ledger, self.packages.store)

    async def restore(self, saved: SavedStack, *, replaces: bool, caller: Caller = NOBODY) -> Operation:
        """Begin to serve what a backup says of a stack. Its packages are here by now. Raises Conflict where the stack lives."""
        revision = await take_history(self._deps.stacks, saved, replaces=replaces)

        async def desired(current: DesiredStack | None, number: int) -> DesiredStack:
            for digest in code_of(revision.desired):
                if not await self.packages.has(digest):
                    raise NotFound(f"code package {digest[:12]} is not in the backup", code="bad_backup")
            return as_running(replace(revision.desired, revision=number), current)

        message = f"is restored from a backup{caller}: what was revision {revision.number} there"
        self._tell_who(EventKind.APPLY, saved.name, message, caller)
        request = ApplyRequest(
            spec={"name": saved.name},
            author=caller.author,
            token=caller.token,
            source=revision.source,
            commit=revision.commit,
        )
        return self._begin(
            saved.name,
            Ask(
                request=request,
                desired=desired,
                pin=saved.pinned,
                at_once=True,
                instead=True,
                shown=lambda before: revision.spec,
            ),
        )

    def delete(self, stack: str, deployments: list[str] | None, request: ApplyRequest) -> Operation:
        """Begin to take deployments, or the whole stack, away."""

        async def desired(current: DesiredStack | None, number: int) -> DesiredStack:
            if current is None:
                raise NotFound(f"there is no stack '{stack}'", hint="'serveconf status' lists the stacks")
            return _without(current, deployments, number)

        def shown(before: dict[str, Any]) -> dict[str, Any]:
            return spec_without(before, deployments)

        whole = deployments is None
        return self._begin(stack, Ask(request=request, desired=desired, deleting=whole, instead=whole, shown=shown))

    async def resume(self, stack: str, caller: Caller = NOBODY) -> bool:
        """End the pin that a rollback left. False where there was none."""
        return await self._deps.stacks.pin(stack, caller, pinned=False)

    @property
    def scaling(self) -> Scaling:
        """The numbers of replicas."""
        return self._deps.reconciler.scaling

    def scale(self, stack: str, deployment: str, number: int, caller: Caller = NOBODY) -> int:
        """Set a number of replicas until the next apply; the one before. Raises NotFound, or Conflict outside of the bounds."""
        before, after = self.scaling.hold(stack, deployment, number)
        self._deps.journal.tell(milestones.scaled(stack, deployment, before, after, caller))
        return before

    def operation(self, operation_id: str) -> Operation:
        """A running or recent operation, also one that a former controller began."""
        found = self._operations.get(operation_id) or self._taken_over(operation_id)
        if found is None:
            raise NotFound(f"there is no operation '{operation_id}'")
        return found

    async def cancel(self, operation_id: str, caller: Caller = NOBODY) -> Cancelled:
        """Stop an apply: undone if it has not switched yet, else completed, without waiting for what it has replaced."""
        operation = self.operation(operation_id)
        revision = self.ledger.revision(operation.stack, operation.revision)
        serves = revision is not None and revision.outcome == "applied"
        if operation.standing is not Standing.DONE and not serves:
            which = f"revision {operation.revision}" if operation.revision else "an apply"
            self._tell_who(EventKind.APPLY, operation.stack or None, f"{which} is to be stopped{caller}", caller)
        match operation.standing:
            case Standing.QUEUED | Standing.PREPARING:
                assert operation.task is not None
                operation.task.cancel()
                return Cancelled(undone=True, message="nothing had been touched")
            case Standing.APPLYING if await self._give_up(operation):
                return Cancelled(undone=True, message="nothing was switched; what had been started is removed")
            case Standing.APPLYING | Standing.DONE:
                operation.hurried = True
                head = self.ledger.heads.get(operation.stack)
                if head is not None and head.target == operation.revision and head.baking_until is not None:
                    message = "the switch has been made; the apply completes when its errors have been watched"
                else:
                    message = "the switch had been made; the apply is complete"
                return Cancelled(undone=False, message=message)

    async def promote(self, stack: str, deployment: str | None = None, caller: Caller = NOBODY) -> Operation:
        """End the stack's canary at once: all of the requests to the new version. Returns its apply, to be followed."""
        revision, plan = self._canary(stack, deployment)
        if not await self._deps.stacks.promote(stack, revision.number, steps=plan.steps):
            raise _no_canary(stack, deployment)
        message = f"promoted{str(caller) or ' by hand'}: {', '.join(sorted(plan.rules))}"
        self._tell_canary(stack, deployment, message, caller)
        return self.operation(revision.operation)

    async def abort(self, stack: str, deployment: str | None = None, caller: Caller = NOBODY) -> Operation:
        """End the stack's canary at once: all of the requests back to the old version. Returns its apply, to be followed."""
        revision, _ = self._canary(stack, deployment)
        failure = Failure(code="canary_aborted", message="the canary was aborted", deployment=deployment)
        operation = self.operation(revision.operation)
        if not await self._deps.stacks.give_up(stack, revision.number, failure, unless_it_serves=True):
            raise _no_canary(stack, deployment)
        self._tell_canary(stack, deployment, f"aborted{str(caller) or ' by hand'}", caller)
        return operation

    def _tell_canary(self, stack: str, deployment: str | None, message: str, caller: Caller = NOBODY) -> None:
        data = caller.told() if caller != NOBODY else {}
        happening = Happening(kind=EventKind.CANARY, stack=stack, deployment=deployment, message=message, data=data)
        self._deps.journal.tell(happening)

    def _tell_who(self, kind: EventKind, stack: str | None, message: str, caller: Caller) -> None:
        self._deps.journal.tell(Happening(kind=kind, stack=stack, message=message, data=caller.told()))

    def _canary(self, stack: str, deployment: str | None) -> tuple[Revision, CanaryPlan]:
        head = self.ledger.heads.get(stack)
        if head is None:
            raise NotFound(f"there is no stack '{stack}'", hint="'serveconf status' lists the stacks")
        plan = canaries_of(self._deps.stacks, head)
        revision = self.ledger.revision(stack, head.target)
        if plan is None or revision is None or (deployment is not None and deployment not in plan.rules):
            raise _no_canary(stack, deployment)
        return revision, plan

    async def _give_up(self, operation: Operation) -> bool:
        assert operation.revision is not None
        failure = Failure(code="cancelled", message="the apply was cancelled before the switch")
        return await self._deps.stacks.give_up(operation.stack, operation.revision, failure, unless_it_serves=True)

    def history(self, stack: str) -> list[Revision]:
        """The kept revisions of a stack, the newest first."""
        if stack not in self.ledger.revisions:
            raise NotFound(f"there is no stack '{stack}'", hint="'serveconf status' lists the stacks")
        return sorted(self.ledger.revisions[stack].values(), key=lambda r: -r.number)

    def logs(self, stack: str, deployment: str, *, tail: int, follow: bool) -> AsyncIterator[Event]:
        """What the deployment's replicas write."""
        return read_logs(self.cluster, self._deps.clock, stack, deployment, tail=tail, follow=follow)

    def proxy_logs(self, *, tail: int, follow: bool) -> AsyncIterator[Event]:
        """What the proxies write."""
        return read_proxy_logs(self.cluster, self._deps.clock, tail=tail, follow=follow)

    def controller_log(self, *, tail: int, follow: bool) -> AsyncIterator[Event]:
        """What the controller writes."""
        return read_controller_log(self.cluster, self._deps.clock, tail=tail, follow=follow)

    def check_revision(self, stack: str, base: int | None) -> None:
        """Raises Conflict where the stack is not at the revision that the caller has seen."""
        current = self.ledger.current(stack)
        if base is not None and base != (current.revision if current else 0):
            raise stale(stack, base, current)

    async def stop_everything(self) -> None:
        """Drain and stop every replica and every proxy; nothing is started any more. Returns when they are gone."""
        await self._tasks.close()
        await self._deps.reconciler.stop()
        deadline = self._deps.clock.now() + SHUTDOWN_DRAIN_S + SHUTDOWN_GRACE_S
        while (observed := self.cluster.observe()).proxies or observed.replicas or observed.standbys:
            drain_s = SHUTDOWN_DRAIN_S if self._deps.clock.now() < deadline else 0.0
            for standby in observed.standbys:
                await self.cluster.stop_standby(standby.id)
            for proxy in observed.proxies:
                await self.cluster.stop_proxy(proxy.id, drain_s=drain_s)
            for replica in observed.replicas if not observed.proxies or not drain_s else ():
                await self.cluster.stop_replica(replica.id, drain_s=drain_s)
            await self._deps.clock.sleep(0.02)

    def resume_operations(self) -> None:
        """See the applies through that a former controller had begun."""
        for name, head in self.ledger.heads.items():
            revision = self.ledger.revision(name, head.target)
            if revision is not None and revision.operation:
                self._taken_over(revision.operation)

    async def _prepare(
        self, request: ApplyRequest, current: DesiredStack | None, number: int, preflight: Preflight | None = None
    ) -> DesiredStack:
        preflight = preflight or self._preflight
        desired = await prepare(request, revision=number, current=current, preflight=preflight)
        return merged_stack(desired, current, alone=request.alone) if request.merge else desired

    def _begin(self, stack: str, ask: Ask) -> Operation:
        self._check_engine()
        operation = Operation(stack)
        self._queue(operation, ask.request)
        self._remember(operation)
        operation.task = self._tasks.start(self._run(operation, ask), name=f"apply {operation.id}")
        operation.task.add_done_callback(lambda _: self._see_finished(operation))
        return operation

    def _queue(self, operation: Operation, request: ApplyRequest) -> None:
        size = len(msgspec.json.encode(request))
        if self._queued and sum(one.size for one in self._queued.values()) + size > QUEUED_BYTES:
            raise NoRoom(
                f"{len(self._queued)} applies wait or run, and there is no room for another one",
                hint="apply again when some of them are done; 'serveconf events --follow' shows it",
                code="applies_full",
            )
        self._queued[operation.id] = _Queued(size=size, code=request.code)

    def _check_engine(self) -> None:
        """Raises EngineSilent where nothing could be started or written just now."""
        if (silent_s := self.cluster.silent_for()) is not None:
            raise EngineSilent(silent_s)

    def _see_finished(self, operation: Operation) -> None:
        """A task that is cancelled before its first step runs nothing, not even a handler."""
        self._queued.pop(operation.id, None)
        if operation.result is None:
            operation.finish(cancelled(operation))

    def _remember(self, operation: Operation) -> None:
        """With the others; the oldest that are done go."""
        self._operations[operation.id] = operation
        done = [known.id for known in self._operations.values() if known.standing is Standing.DONE]
        for operation_id in done[: max(0, len(self._operations) - KEPT_OPERATIONS)]:
            del self._operations[operation_id]

    async def _run(self, operation: Operation, ask: Ask) -> None:
        supersede = (lambda: self._supersede(operation, ask)) if ask.instead else None
        await perform(self._deps, operation, ask, lambda: self._turns.taken(operation, supersede))
        await self._shorten(self.packages.store_bytes // 2)
        await self.packages.collect(self._code_needed(), self.ledger.code_live())

    async def _shorten(self, most: int) -> None:
        await self._deps.stacks.forget_outlived(await self.packages.sizes(), most)

    def _code_needed(self) -> set[str]:
        return self.ledger.code_in_use() | {ask.code for ask in self._queued.values() if ask.code}

    async def _supersede(self, operation: Operation, ask: Ask) -> None:
        """What is newer takes the place of the stack's canary. Raises what it would not come to begin with."""
        stack = operation.stack
        tried = self.ledger.target(stack)
        desired = await ask.desired(self.ledger.current(stack), self.ledger.next_number(stack))
        if tried is None or replace(desired, revision=tried.revision, code=tried.code) == tried:
            return
        failure = Failure(code="superseded", message="a newer apply took the place of the canary")
        if await self._deps.stacks.give_up(stack, tried.revision, failure, unless_it_serves=True):
            self._tell_canary(stack, None, "taken back: a newer apply takes its place")

    def _has_canary(self, stack: str) -> bool:
        head = self.ledger.heads.get(stack)
        return head is not None and canaries_of(self._deps.stacks, head) is not None

    def _taken_over(self, operation_id: str) -> Operation | None:
        """The operation of a kept revision: followed anew, as the one who began it has died."""
        revisions = (r for kept in self.ledger.revisions.values() for r in kept.values())
        revision = next((r for r in revisions if r.operation == operation_id), None)
        if revision is None:
            return None
        operation = Operation(revision.stack, operation_id)
        self._remember(operation)
        work = self._see_through(operation, revision.number)
        operation.task = self._tasks.start(work, name=f"see apply {operation_id} through")
        return operation

    async def _see_through(self, operation: Operation, number: int) -> None:
        head = self.ledger.heads.get(operation.stack)
        if head is None or head.target != number:
            await see_through(self._deps, operation, number)
            return
        with self._turns.seen_through(operation):
            await see_through(self._deps, operation, number)

    def _tell(self, stack: str, event: Event) -> None:
        operation = self._turns.running(stack)
        if operation is not None:
            operation.tell(event)

    def _way_back(self, earlier: Revision, current: DesiredStack | None, number: int) -> DesiredStack:
        """What an earlier revision says, as the one of this number; what was moved since is moved back."""
        served = (r for r in self.ledger.revisions.get(earlier.stack, {}).values() if r.outcome == "applied")
        between = [r.desired for r in served if r.number > earlier.number]
        return as_running(with_way_back(replace(earlier.desired, revision=number), current, between), current)

    def _revision_before(self, stack: str, number: int | None) -> Revision:
        revisions = self.history(stack)
        if number is not None:
            found = next((r for r in revisions if r.number == number), None)
            if found is None:
                raise NotFound(f"stack '{stack}' has no revision {number}", hint="'serveconf history' lists them")
            return found
        current = self.ledger.heads.get(stack, StackHead(name=stack)).current or 0
        serving = next((r.desired for r in revisions if r.number == current), None)
        earlier = (r for r in revisions if r.number < current and r.outcome == "applied")
        found = next((r for r in earlier if not _is_but_upgraded(r.desired, serving)), None)
        if found is None:
            raise NotFound(
                f"stack '{stack}' has no earlier revision to go back to", hint="'serveconf history' lists them"
            )
        return found


def _is_but_upgraded(before: DesiredStack, serving: DesiredStack | None) -> bool:
    """Whether nothing but an upgrade lies between the two: that is nothing to go back from."""
    if serving is None or {d.version for d in before.deployments} == {d.version for d in serving.deployments}:
        return False
    return replace(as_running(before, serving), revision=serving.revision) == serving


def _no_canary(stack: str, deployment: str | None) -> Conflict:
    whose = f"deployment '{deployment}' of stack '{stack}'" if deployment else f"stack '{stack}'"
    return Conflict(
        f"{whose} has no canary that runs",
        hint="'serveconf status' shows those that do; what serves already is taken back by 'serveconf rollback'",
        code="no_canary",
    )


def _without(current: DesiredStack, deployments: list[str] | None, number: int) -> DesiredStack:
    """The stack less some of its deployments; less all of them and its say in the front where None are named."""
    if deployments is None:
        return replace(current, revision=number, deployments=(), http_options={}, http_middlewares=())
    unknown = [name for name in deployments if current.deployment(name) is None]
    if unknown:
        known = ", ".join(d.name for d in current.deployments) or "none"
        raise NotFound(f"stack '{current.name}' has no deployment '{unknown[0]}'", hint=f"its deployments: {known}")
    kept = tuple(d for d in current.deployments if d.entry not in deployments)
    return with_processes(replace(current, revision=number, deployments=kept))
