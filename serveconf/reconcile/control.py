"""What the control API and the Python API ask of the controller: plan, apply, delete, roll back, look.

An apply is an ``Operation`` that can be followed; applies of one stack queue, those of two stacks run side by side.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator
from typing import Any

from msgspec.structs import replace

from serveconf.errors import Conflict, NotFound
from serveconf.plan.actions import Plan
from serveconf.plan.state import DesiredStack
from serveconf.reconcile.apply import Ask, Deps, fitted, perform, see_through, stale
from serveconf.reconcile.logs import read_logs
from serveconf.reconcile.merge import merged_spec, merged_stack, spec_without
from serveconf.reconcile.operation import Event, Operation
from serveconf.reconcile.packages import Packages
from serveconf.reconcile.ports import Preflight
from serveconf.reconcile.prepare import prepare
from serveconf.reconcile.records import Failure, Revision, StackHead
from serveconf.reconcile.requests import ApplyRequest, Cancelled
from serveconf.reconcile.result import masked

KEPT_OPERATIONS = 100
SHUTDOWN_DRAIN_S = 10.0  # for requests that are being answered


class ControlPlane:
    """The controller without its transport."""

    def __init__(self, deps: Deps, *, packages: Packages, preflight: Preflight) -> None:
        self.packages = packages
        self.ledger = deps.ledger
        self.cluster = deps.cluster
        self._deps = deps
        self._preflight = preflight
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._operations: OrderedDict[str, Operation] = OrderedDict()
        self._running: dict[str, Operation] = {}
        deps.reconciler.on_event = self._tell

    async def plan(self, request: ApplyRequest) -> Plan:
        """What applying the request would do. Raises CodeRefused, Conflict, … where it could not be applied."""
        name = request.spec.get("name", "default")
        current = self.ledger.current(name)
        number = self.ledger.next_number(name)
        desired = await self._prepare(request, current, number)
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
            return merged_spec(said, before) if request.merge else said

        return self._begin(stack, Ask(request=request, desired=desired, shown=shown))

    def rollback(self, stack: str, number: int | None, request: ApplyRequest) -> Operation:
        """Begin to go back to a kept revision (where none is named, the last good one before the current), and pin it."""

        async def desired(current: DesiredStack | None, new: int) -> DesiredStack:
            return replace(self._revision_before(stack, number).desired, revision=new)

        def shown(before: dict[str, Any]) -> dict[str, Any]:
            return self._revision_before(stack, number).spec

        return self._begin(stack, Ask(request=request, desired=desired, pin=True, shown=shown))

    def delete(self, stack: str, deployments: list[str] | None, request: ApplyRequest) -> Operation:
        """Begin to take deployments, or the whole stack, away."""

        async def desired(current: DesiredStack | None, number: int) -> DesiredStack:
            if current is None:
                raise NotFound(f"there is no stack '{stack}'", hint="'serveconf status' lists the stacks")
            return _without(current, deployments, number)

        def shown(before: dict[str, Any]) -> dict[str, Any]:
            return spec_without(before, deployments)

        ask = Ask(request=request, desired=desired, deleting=deployments is None, shown=shown)
        return self._begin(stack, ask)

    async def resume(self, stack: str) -> bool:
        """End the pin that a rollback left. False where there was none."""
        head = self.ledger.heads.get(stack)
        if head is None:
            raise NotFound(f"there is no stack '{stack}'", hint="'serveconf status' lists the stacks")
        if head.pinned:
            await self.ledger.put_head(replace(head, pinned=False))
        return head.pinned

    def operation(self, operation_id: str) -> Operation:
        """A running or recent operation, also one that a former controller began."""
        found = self._operations.get(operation_id) or self._taken_over(operation_id)
        if found is None:
            raise NotFound(f"there is no operation '{operation_id}'")
        return found

    async def cancel(self, operation_id: str) -> Cancelled:
        """Stop an apply: undone if it has not switched yet, else completed."""
        operation = self.operation(operation_id)
        if operation.result is not None or operation.resolved.is_set():
            return Cancelled(undone=False, message="the switch had been made; the apply is complete")
        head = self.ledger.heads.get(operation.stack)
        if head is not None and head.baking_until is not None and self._running.get(operation.stack) is operation:
            return Cancelled(
                undone=False, message="the switch has been made; the apply completes when its errors have been watched"
            )
        if self._running.get(operation.stack) is operation and self.ledger.target(operation.stack) is not None:
            failure = Failure(code="cancelled", message="the apply was cancelled before the switch")
            await self._deps.reconciler.fail_target(operation.stack, failure)
            return Cancelled(undone=True, message="nothing was switched; what had been started is removed")
        if operation.task is not None:
            operation.task.cancel()
        return Cancelled(undone=True, message="nothing had been touched")

    def history(self, stack: str) -> list[Revision]:
        """The kept revisions of a stack, the newest first."""
        if stack not in self.ledger.revisions:
            raise NotFound(f"there is no stack '{stack}'", hint="'serveconf status' lists the stacks")
        return sorted(self.ledger.revisions[stack].values(), key=lambda r: -r.number)

    def logs(self, stack: str, deployment: str, *, tail: int, follow: bool) -> AsyncIterator[Event]:
        """What the deployment's replicas write."""
        return read_logs(self.cluster, self._deps.clock, stack, deployment, tail=tail, follow=follow)

    def check_revision(self, stack: str, base: int | None) -> None:
        """Raises Conflict where the stack is not at the revision that the caller has seen."""
        current = self.ledger.current(stack)
        if base is not None and base != (current.revision if current else 0):
            raise stale(stack, base, current)

    async def stop_everything(self) -> None:
        """Drain and stop every replica and every proxy; nothing is started any more. Returns when they are gone."""
        self._deps.reconciler.stopped = True
        while (observed := self.cluster.observe()).proxies or observed.replicas:
            for proxy in observed.proxies:
                await self.cluster.stop_proxy(proxy.id, drain_s=SHUTDOWN_DRAIN_S)
            for replica in observed.replicas if not observed.proxies else ():
                await self.cluster.stop_replica(replica.id, drain_s=SHUTDOWN_DRAIN_S)
            await self._deps.clock.sleep(0.02)

    async def _prepare(self, request: ApplyRequest, current: DesiredStack | None, number: int) -> DesiredStack:
        desired = await prepare(request, revision=number, current=current, preflight=self._preflight)
        return merged_stack(desired, current) if request.merge else desired

    def _begin(self, stack: str, ask: Ask) -> Operation:
        operation = Operation(stack)
        self._operations[operation.id] = operation
        while len(self._operations) > KEPT_OPERATIONS:
            self._operations.popitem(last=False)
        operation.task = asyncio.create_task(self._queue(operation, ask))
        return operation

    async def _queue(self, operation: Operation, ask: Ask) -> None:
        """One apply per stack at a time; a target that a former controller began is settled first."""
        lock = self._locks[operation.stack]
        if lock.locked() or self.ledger.target(operation.stack) is not None:
            operation.tell({"event": "wait", "message": f"another apply of stack '{operation.stack}' is running"})
        async with lock:
            while self.ledger.target(operation.stack) is not None:
                await self._deps.clock.sleep(0.05)
            self._running[operation.stack] = operation
            try:
                await perform(self._deps, operation, ask)
            finally:
                del self._running[operation.stack]
        await self.packages.collect(self.ledger.code_in_use())

    def _taken_over(self, operation_id: str) -> Operation | None:
        """The operation of a kept revision: followed anew, as the one who began it has died."""
        revisions = (r for kept in self.ledger.revisions.values() for r in kept.values())
        revision = next((r for r in revisions if r.operation == operation_id), None)
        if revision is None:
            return None
        operation = Operation(revision.stack, operation_id)
        self._operations[operation_id] = operation
        operation.task = asyncio.create_task(see_through(self._deps, operation, revision.number))
        return operation

    def _tell(self, stack: str, event: Event) -> None:
        operation = self._running.get(stack)
        if operation is not None:
            operation.tell(event)

    def _revision_before(self, stack: str, number: int | None) -> Revision:
        revisions = self.history(stack)
        if number is not None:
            found = next((r for r in revisions if r.number == number), None)
            if found is None:
                raise NotFound(f"stack '{stack}' has no revision {number}", hint="'serveconf history' lists them")
            return found
        current = self.ledger.heads.get(stack, StackHead(name=stack)).current or 0
        found = next((r for r in revisions if r.number < current and r.outcome == "applied"), None)
        if found is None:
            raise NotFound(
                f"stack '{stack}' has no earlier revision to go back to", hint="'serveconf history' lists them"
            )
        return found


def _without(current: DesiredStack, deployments: list[str] | None, number: int) -> DesiredStack:
    """The stack less some of its deployments; less all of them and its say in the front where None are named."""
    if deployments is None:
        return replace(current, revision=number, deployments=(), http_options={}, http_middlewares=())
    unknown = [name for name in deployments if current.deployment(name) is None]
    if unknown:
        known = ", ".join(d.name for d in current.deployments) or "none"
        raise NotFound(f"stack '{current.name}' has no deployment '{unknown[0]}'", hint=f"its deployments: {known}")
    return replace(
        current, revision=number, deployments=tuple(d for d in current.deployments if d.entry not in deployments)
    )
