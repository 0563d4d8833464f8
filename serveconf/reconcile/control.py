"""What the control API and the Python API ask of the controller: plan, apply, delete, roll back, look.

An apply is an ``Operation`` that can be followed; applies of one stack queue, those of two stacks run side by side.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

from msgspec.structs import replace

from serveconf import __version__
from serveconf.background import Tasks
from serveconf.backup_file import Backup, SavedStack
from serveconf.errors import Conflict, EngineSilent, NotFound
from serveconf.plan.actions import Plan
from serveconf.plan.desired import as_running
from serveconf.plan.state import DesiredStack
from serveconf.reconcile import milestones
from serveconf.reconcile.apply import Ask, Deps, cancelled, fitted, perform, see_through, stale
from serveconf.reconcile.backup import make_backup, take_history
from serveconf.reconcile.canary import with_canaries
from serveconf.reconcile.canary_control import CanaryControl
from serveconf.reconcile.data import warnings_of
from serveconf.reconcile.going_back import earlier_revision, history_of, way_back
from serveconf.reconcile.journal import EventKind, Happening
from serveconf.reconcile.logs import read_controller_log, read_logs, read_proxy_logs
from serveconf.reconcile.loop import empty
from serveconf.reconcile.merge import merged_spec, merged_stack, spec_without, stack_without
from serveconf.reconcile.operations import Event, Operation, Operations, Standing
from serveconf.reconcile.packages import Packages
from serveconf.reconcile.ports import Preflight
from serveconf.reconcile.prepare import prepare
from serveconf.reconcile.records import Failure, Revision, code_of
from serveconf.reconcile.requests import NOBODY, ApplyRequest, Caller, Cancelled
from serveconf.reconcile.result import masked
from serveconf.reconcile.scaling import Scaling
from serveconf.reconcile.turns import Turns
from serveconf.reconcile.unseen import NOTE, Unseen
from serveconf.reconcile.upgrade import Upgrade, upgraded


class ControlPlane:
    """The controller without its transport."""

    def __init__(self, deps: Deps, *, packages: Packages, preflight: Preflight) -> None:
        self.packages = packages
        self.ledger = deps.stacks.ledger
        self.cluster = deps.cluster
        self._deps = deps
        self._preflight = preflight
        self._canaries = CanaryControl(deps.stacks, deps.journal)
        self._turns = Turns(deps.stacks, self._canaries.runs)
        self._operations = Operations()
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
        desired = way_back(
            self.ledger, earlier_revision(self.ledger, stack, number), current, self.ledger.next_number(stack)
        )
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
            if number is None and self._canaries.runs(stack):
                raise Conflict(
                    f"a canary of stack '{stack}' runs, so there is nothing yet to go back from",
                    hint="'serveconf abort' takes it back; to go further back name the revision",
                    code="canary_runs",
                )
            return way_back(self.ledger, earlier_revision(self.ledger, stack, number), current, new)

        def shown(before: dict[str, Any]) -> dict[str, Any]:
            return earlier_revision(self.ledger, stack, number).spec

        def why() -> str:
            return f"back to {earlier_revision(self.ledger, stack, number).number}: "

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
        self._operations.remember(operation)
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
            return stack_without(current, deployments, number)

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
        found = self._operations.find(operation_id) or self._taken_over(operation_id)
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
        revision, plan = self._canaries.find(stack, deployment)
        await self._canaries.promote(revision, plan, deployment, caller)
        return self.operation(revision.operation)

    async def abort(self, stack: str, deployment: str | None = None, caller: Caller = NOBODY) -> Operation:
        """End the stack's canary at once: all of the requests back to the old version. Returns its apply, to be followed."""
        revision, _ = self._canaries.find(stack, deployment)
        operation = self.operation(revision.operation)
        await self._canaries.abort(revision, deployment, caller)
        return operation

    def _tell_who(self, kind: EventKind, stack: str | None, message: str, caller: Caller) -> None:
        self._deps.journal.tell(Happening(kind=kind, stack=stack, message=message, data=caller.told()))

    async def _give_up(self, operation: Operation) -> bool:
        assert operation.revision is not None
        failure = Failure(code="cancelled", message="the apply was cancelled before the switch")
        return await self._deps.stacks.give_up(operation.stack, operation.revision, failure, unless_it_serves=True)

    def history(self, stack: str) -> list[Revision]:
        """The kept revisions of a stack, the newest first."""
        return history_of(self.ledger, stack)

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
        await empty(self.cluster, self._deps.clock)

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
        self._operations.queue(operation, ask.request)
        operation.task = self._tasks.start(self._run(operation, ask), name=f"apply {operation.id}")
        operation.task.add_done_callback(lambda _: self._see_finished(operation))
        return operation

    def _check_engine(self) -> None:
        """Raises EngineSilent where nothing could be started or written just now."""
        if (silent_s := self.cluster.silent_for()) is not None:
            raise EngineSilent(silent_s)

    def _see_finished(self, operation: Operation) -> None:
        """A task that is cancelled before its first step runs nothing, not even a handler."""
        self._operations.ended(operation)
        if operation.result is None:
            operation.finish(cancelled(operation))

    async def _run(self, operation: Operation, ask: Ask) -> None:
        supersede = (lambda: self._supersede(operation, ask)) if ask.instead else None
        await perform(self._deps, operation, ask, lambda: self._turns.taken(operation, supersede))
        await self._shorten(self.packages.store_bytes // 2)
        await self.packages.collect(self._code_needed(), self.ledger.code_live())

    async def _shorten(self, most: int) -> None:
        await self._deps.stacks.forget_outlived(await self.packages.sizes(), most)

    def _code_needed(self) -> set[str]:
        return self.ledger.code_in_use() | self._operations.code_queued()

    async def _supersede(self, operation: Operation, ask: Ask) -> None:
        """What is newer takes the place of the stack's canary. Raises what it would not come to begin with."""
        stack = operation.stack
        desired = await ask.desired(self.ledger.current(stack), self.ledger.next_number(stack))
        await self._canaries.make_way(stack, desired)

    def _taken_over(self, operation_id: str) -> Operation | None:
        """The operation of a kept revision: followed anew, as the one who began it has died."""
        revisions = (r for kept in self.ledger.revisions.values() for r in kept.values())
        revision = next((r for r in revisions if r.operation == operation_id), None)
        if revision is None:
            return None
        operation = Operation(revision.stack, operation_id)
        self._operations.remember(operation)
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
