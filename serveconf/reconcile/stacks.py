"""The stacks and how they change: the only writer of heads and revisions.

Each method that changes something is one transition: made under the stack's lock, refused where the state that it
starts from is gone, written to the store before anybody can see it. So it does not matter who else is at work on the
stack, an apply, a cancel, a pass of the loop, a bake: one comes first, and the other is refused.

    (none) --begin--> target --settle--> current        a target serves from its switch on
                      target --bake--> baking --settle--> current
                      target --a step--> target, on a share of the requests --go_on, promote--> the next step, all of them
                      target, baking --give_up--> as before it
    deleting, no target --forget--> (none)
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace

from serveconf.errors import Conflict, NotFound
from serveconf.plan.hiding import hide, secrets_of_stack
from serveconf.plan.state import DesiredStack, Observed, ProxyPhase, ReplicaPhase
from serveconf.reconcile import milestones
from serveconf.reconcile.journal import Journal
from serveconf.reconcile.records import CanaryState, Confirmed, Failure, Ledger, Revision, StackHead, outlived
from serveconf.reconcile.requests import NOBODY, Caller

DIED = Failure(code="interrupted", message="the controller ended before the apply had begun to change anything")


class Stacks:
    """Owns every stack's head and revisions. ``on_change`` hears of each transition, by the stack's name."""

    def __init__(self, ledger: Ledger, journal: Journal | None = None) -> None:
        self.ledger = ledger
        self._journal = journal or Journal()
        self.on_change: Callable[[str], None] = lambda stack: None
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._news: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def load(self) -> None:
        """Read all stacks from the store, and end what a controller that died was in the middle of."""
        await self.ledger.load()
        for head in list(self.ledger.heads.values()):
            target = self.ledger.revision(head.name, head.target)
            if target is not None and target.outcome == "applied":
                await self._write(_settled(head), None)
            elif target is not None and target.outcome != "applying":
                await self._write(_given_up(head), None)
        for name, revisions in self.ledger.revisions.items():
            found = self.ledger.heads.get(name)
            for revision in list(revisions.values()):
                if revision.outcome == "applying" and (found is None or found.target != revision.number):
                    await self._write(None, replace(revision, outcome="rolled_back", failure=DIED))

    # -- looking ----------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """All stacks, in order."""
        return sorted(self.ledger.heads)

    def head(self, name: str) -> StackHead | None:
        """Where the stack stands."""
        return self.ledger.heads.get(name)

    def are_busy(self, observed: Observed) -> bool:
        """Whether an apply or a start is on: what only keeps something warm waits."""
        heads = (self.head(name) for name in self.names())
        applying = any(head is not None and head.target is not None and head.baking_until is None for head in heads)
        starting = any(replica.phase is ReplicaPhase.STARTING for replica in observed.replicas)
        return applying or starting or any(p.phase is ProxyPhase.STARTING and not p.stands_by for p in observed.proxies)

    def goal(self, name: str) -> DesiredStack | None:
        """What the stack is, or is being brought to."""
        return self.ledger.target(name) or self.ledger.current(name)

    def routed(self, name: str) -> DesiredStack | None:
        """Whose routes the table has: the target's from its switch on."""
        head = self.ledger.heads.get(name)
        baking = head is not None and head.baking_until is not None
        return self.ledger.target(name) if baking else self.ledger.current(name)

    async def reached(self, name: str, number: int) -> Revision | None:
        """Return when the revision is the target no more: how it ended. None where it is not kept any more."""
        while (head := self.ledger.heads.get(name)) is not None and head.target == number:
            await self._news[name].wait()
        return self.ledger.revision(name, number)

    async def news(self, name: str) -> None:
        """Return at the stack's next change."""
        await self._news[name].wait()

    # -- transitions ------------------------------------------------------------------------------------------------

    async def begin(self, revision: Revision, *, base: int | None, deleting: bool, pinned: bool) -> None:
        """The revision is the stack's target. Raises Conflict where another one is, or where ``base`` serves no more."""
        name = revision.stack
        async with self._locks[name]:
            head = self.ledger.heads.get(name) or StackHead(name=name)
            if head.target is not None or head.current != base or revision.number != self.ledger.next_number(name):
                raise Conflict(
                    f"stack '{name}' has been changed by someone else meanwhile",
                    hint="plan again and apply that",
                    code="stale",
                )
            following = replace(
                head, target=revision.number, last=revision.number, deleting=deleting, pinned=pinned, invalid=""
            )
            await self._write(following, revision)
            self._journal.tell(milestones.begun(revision, following))
            caller = Caller(author=revision.author, token=revision.token)
            self._journal.tell(milestones.pin_changed(head, caller, pinned=pinned))

    @asynccontextmanager
    async def switching(
        self,
        name: str,
        target: int | None,
        *,
        bake_until: float | None = None,
        final: bool = False,
        step: CanaryState | None = None,
    ) -> AsyncIterator[bool]:
        """While its body runs nothing else changes the stack. Yields whether ``target`` still is the stack's target.

        A ``final`` body that ends well has brought the target to serve: it is settled, or bakes until ``bake_until``.
        One with a ``step`` has given its canaries that step's share.
        """
        async with self._locks[name]:
            head = self.ledger.heads.get(name)
            if head is None or head.target != target:
                yield False
                return
            yield True
            if final and target is not None:
                await self._serve(head, bake_until)
            elif step is not None and (head.canary or CanaryState()) == replace(step, until=None):
                await self._write(replace(head, canary=step), None)

    async def _serve(self, head: StackHead, bake_until: float | None) -> None:
        revision = self.ledger.revision(head.name, head.target)
        assert revision is not None
        if bake_until is not None:
            await self._write(replace(head, baking_until=bake_until, canary=None), None)
            self._journal.tell(milestones.watched(revision, head))
            return
        await self._write(_settled(head), replace(revision, outcome="applied"))
        self._journal.tell(milestones.served(revision, head))

    async def give_up(
        self, name: str, number: int, failure: Failure, *, outcome: str = "rolled_back", unless_it_serves: bool = False
    ) -> bool:
        """What served before goes on. False where the revision is no target any more, or serves where it must not."""
        async with self._locks[name]:
            head, revision = self.ledger.heads.get(name), self.ledger.revision(name, number)
            if head is None or revision is None or head.target != number:
                return False
            if unless_it_serves and head.baking_until is not None:
                return False
            failure = without_secrets(failure, revision.desired)
            await self._write(_given_up(head), replace(revision, outcome=outcome, failure=failure))
            self._journal.tell(milestones.taken_back(revision, head, failure))
            return True

    async def go_on(self, name: str, number: int, *, after: CanaryState, to: CanaryState) -> bool:
        """The target's canaries go on from one step ``to`` the next. False where they are there no more."""
        async with self._locks[name]:
            head = self.ledger.heads.get(name)
            if head is None or head.target != number or head.canary != after:
                return False
            await self._write(replace(head, canary=to), None)
            return True

    async def promote(self, name: str, number: int, *, steps: int) -> bool:
        """All of the requests are to go to the target, whatever is thought of it. False where its canaries are over."""
        async with self._locks[name]:
            head = self.ledger.heads.get(name)
            if head is None or head.target != number or head.baking_until is not None:
                return False
            if head.canary is not None and head.canary.step >= steps and not head.canary.judged:
                return False
            await self._write(replace(head, canary=CanaryState(step=steps, judged=False)), None)
            return True

    async def note_canary(self, name: str, number: int, told: list[dict[str, Any]]) -> None:
        """What both versions have answered so far."""
        async with self._locks[name]:
            revision = self.ledger.revision(name, number)
            if revision is not None and revision.outcome == "applying":
                await self._write(None, replace(revision, canary=told))

    async def pin(self, name: str, caller: Caller = NOBODY, *, pinned: bool) -> bool:
        """Pin the stack, or end its pin. Returns whether it was pinned before. Raises NotFound."""
        async with self._locks[name]:
            head = self.ledger.heads.get(name)
            if head is None:
                raise NotFound(f"there is no stack '{name}'", hint="'serveconf status' lists the stacks")
            if head.pinned != pinned:
                await self._write(replace(head, pinned=pinned), None)
                self._journal.tell(milestones.pin_changed(head, caller, pinned=pinned))
            return head.pinned

    async def confirm(self, name: str, source: str, commit: str | None) -> None:
        """What came from there serves already."""
        async with self._locks[name]:
            head = self.ledger.heads.get(name)
            if head is None or head.target is not None:
                return
            serving = self.ledger.revision(name, head.current)
            if (
                serving is not None
                and head.current == head.last
                and (serving.source, serving.commit) == (source, commit)
            ):
                confirmed = None  # its own revision says so
            else:
                confirmed = Confirmed(source=source, commit=commit, last=head.last)
            if head.confirmed != confirmed:
                await self._write(replace(head, confirmed=confirmed), None)

    async def note_invalid(self, name: str, why: str) -> None:
        """For the status, until something valid is sent. A stack that was never applied has no status."""
        async with self._locks[name]:
            head = self.ledger.heads.get(name)
            if head is not None and head.invalid != why:
                await self._write(replace(head, invalid=why), None)

    async def note_receipt(self, name: str, number: int, receipt: dict[str, Any]) -> None:
        """What the apply of a revision did to the traffic: noted once."""
        async with self._locks[name]:
            revision = self.ledger.revision(name, number)
            if revision is not None and not revision.receipt:
                await self._write(None, replace(revision, receipt=receipt))

    async def take_history(self, name: str, revisions: list[Revision]) -> None:
        """What a backup knows of a stack that is not there. Where a history is kept already, that stays."""
        async with self._locks[name]:
            if name not in self.ledger.heads and not self.ledger.revisions.get(name):
                for revision in revisions:
                    await self._write(None, revision)

    async def forget_outlived(self, sizes: Mapping[str, int], budget: int) -> None:
        """Old revisions go whose packages, together with those of all others, have more bytes than the budget."""
        for revision in outlived(self.ledger.revisions, self.ledger.heads, sizes, budget):
            async with self._locks[revision.stack]:
                head = self.ledger.heads.get(revision.stack)
                if head is None or revision.number not in (head.current, head.target):
                    await self.ledger.forget_revision(revision.stack, revision.number)

    async def forget(self, name: str) -> None:
        """A stack that ends is taken off the books. Nothing happens to one that does not."""
        async with self._locks[name]:
            head = self.ledger.heads.get(name)
            if head is not None and head.ends:
                await self.ledger.forget_stack(name)
                self._journal.tell(milestones.gone(name))
                self.tell(name)

    async def _write(self, head: StackHead | None, revision: Revision | None) -> None:
        """A caller who is cancelled meanwhile hears of it when all is written: the lock is held until then."""
        writing = asyncio.ensure_future(self.ledger.write(head=head, revision=revision))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            raise
        finally:
            self.tell(head.name if head is not None else revision.stack if revision is not None else "")

    def tell(self, name: str) -> None:
        """Wake who waits for news of the stack."""
        news, self._news[name] = self._news[name], asyncio.Event()
        news.set()
        self.on_change(name)


def _settled(head: StackHead) -> StackHead:
    return replace(head, current=head.target, target=None, baking_until=None, canary=None)


def _given_up(head: StackHead) -> StackHead:
    """A stack that never served anything goes."""
    return replace(head, target=None, baking_until=None, canary=None, deleting=head.current is None)


def without_secrets(failure: Failure, stack: DesiredStack) -> Failure:
    """The failure of a stack whose code, or whose proxies' middlewares, may say what they were given."""
    secrets = secrets_of_stack(stack)
    return replace(failure, message=hide(failure.message, secrets), traceback=hide(failure.traceback, secrets))
