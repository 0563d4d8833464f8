"""What the controller remembers, and how it lies in the store.

``stacks/NAME/head`` says which revision serves and which is being applied; ``stacks/NAME/revisions/N`` holds each
revision with all that is needed to serve it again; ``generation`` is the routing table that was committed last.

Everybody reads the ``Ledger``. Two write it: ``stacks.Stacks`` heads and revisions, ``table.Table`` the generation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from serveconf.errors import OperatorError
from serveconf.plan.state import DesiredStack
from serveconf.reconcile.data import forget_beside, forget_data
from serveconf.reconcile.ports import Store
from serveconf.routing import Generation, decode, encode

FORMAT = 1  # of heads and revisions; a newer one is refused, an older one understood
KEPT_REVISIONS = 50
KEPT_OF_DELETED = 3  # revisions of a stack that is gone

T = TypeVar("T")
ALWAYS_KEPT = 5  # newest revisions of a stack, whatever they need


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why an apply did not go through, in the words that its author needs."""

    code: str
    message: str
    deployment: str | None = None
    traceback: str = ""
    hint: str | None = None
    path: str = ""  # the key of the spec that it is about


class CanaryState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a target's canaries are. Past the last of their steps all of the requests are on their way to it."""

    step: int = 0
    until: float | None = (
        None  # seconds since the epoch; the step lasts longer where too few have asked; None: it begins
    )
    judged: bool = True  # False: someone has promoted it, whatever it answers


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One apply: who asked for what when, and how it ended."""

    number: int
    stack: str
    time: float  # seconds since the epoch
    desired: DesiredStack
    spec: dict[str, Any] = {}  # what was said, values from variables masked
    author: str = ""
    token: str = ""  # what let the author in: ``requests.Caller``
    automatic: bool = False  # by what follows the source
    source: str = ""
    commit: str | None = None
    summary: str = ""
    actions: list[dict[str, Any]] = []
    operation: str = ""  # id of the apply, so that it can be followed after a crash of the controller
    at_once: bool = False  # a way back: nothing of it is tried on a share of the requests first
    canary: list[dict[str, Any]] = []  # what both versions answered while its canaries ran
    outcome: str = "applying"
    receipt: dict[str, Any] = {}
    failure: Failure | None = None
    format: int = FORMAT


class Confirmed(msgspec.Struct, frozen=True, kw_only=True):
    """An apply that changed nothing, since what it says serves already: from where it came."""

    source: str
    commit: str | None = None
    last: int  # the stack's last revision then: whatever begins later counts instead


class StackHead(msgspec.Struct, frozen=True, kw_only=True):
    """Where a stack stands: the revision that serves, the one being applied, the last number given out."""

    name: str
    current: int | None = None
    target: int | None = None
    last: int = 0
    pinned: bool = False
    deleting: bool = False
    confirmed: Confirmed | None = None
    invalid: str = ""  # why what was sent last could not even be tried; what serves is untouched
    canary: CanaryState | None = None  # of the target, from its first step on until it serves
    baking_until: float | None = None  # the target serves already, and is watched until then (seconds since the epoch)
    format: int = FORMAT

    @property
    def ends(self) -> bool:
        """The stack is going, and nothing is being applied to it that could keep it."""
        return self.deleting and self.target is None


class _Format(msgspec.Struct):
    format: int = FORMAT


class Ledger:
    """The records of all stacks, mirrored in memory, written through to the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.heads: dict[str, StackHead] = {}
        self.revisions: dict[str, dict[int, Revision]] = {}
        self.generation = Generation(number=0)
        self.scaled: Callable[[DesiredStack], DesiredStack] = lambda stack: stack  # with the numbers of replicas by now

    @property
    def store(self) -> Store:
        """Where it is written."""
        return self._store

    async def load(self) -> None:
        """Read everything from the store: at the controller's start. Raises OperatorError on what it can't understand."""
        for key in await self._store.keys("stacks/"):
            data = await self._store.get(key)
            if data is None:
                continue
            _, name, kind, *_ = key.split("/")
            if kind == "head":
                self.heads[name] = _decode(key, data, StackHead)
            else:
                revision = _decode(key, data, Revision)
                self.revisions.setdefault(name, {})[revision.number] = revision
        data = await self._store.get("generation")
        if data is not None:
            self.generation = decode(data)

    async def write(self, *, head: StackHead | None = None, revision: Revision | None = None) -> None:
        """Both to the store, the revision first, and only then both to memory: readers see all of a change or nothing.

        A controller that dies between the two finds a revision that says how it ended, and a head that does not know
        it yet: ``Stacks.load`` brings that to its end.
        """
        if revision is not None:
            await self._store.put(_revision_key(revision.stack, revision.number), msgspec.json.encode(revision))
        if head is not None:
            await self._store.put(f"stacks/{head.name}/head", msgspec.json.encode(head))
            self.heads[head.name] = head
        if revision is not None:
            self.revisions.setdefault(revision.stack, {})[revision.number] = revision
            await self._thin_out(revision.stack, KEPT_REVISIONS)

    async def forget_stack(self, name: str) -> None:
        """Take the stack's head away; of its history the end stays readable."""
        await self._store.delete(f"stacks/{name}/head")
        await forget_data(self._store, name)
        await forget_beside(self._store, name)
        self.heads.pop(name, None)
        await self._thin_out(name, KEPT_OF_DELETED)

    async def forget_revision(self, stack: str, number: int) -> None:
        """Of the history."""
        kept = self.revisions.get(stack, {})
        kept.pop(number, None)
        if not kept:
            self.revisions.pop(stack, None)
        await self._store.delete(_revision_key(stack, number))

    async def _thin_out(self, stack: str, most: int) -> None:
        """The oldest revisions go, but never one that serves or is being applied."""
        kept = self.revisions.get(stack, {})
        head = self.heads.get(stack)
        needed = {head.current, head.target} if head else set()
        for number in sorted(kept)[:-most]:
            if number not in needed:
                await self.forget_revision(stack, number)

    async def put_generation(self, generation: Generation) -> None:
        """Write the table that a restarted proxy begins with."""
        await self._store.put("generation", encode(generation))
        self.generation = generation

    def revision(self, stack: str, number: int | None) -> Revision | None:
        """That revision, if it is kept."""
        return None if number is None else self.revisions.get(stack, {}).get(number)

    def current(self, stack: str) -> DesiredStack | None:
        """What the stack serves now."""
        head = self.heads.get(stack)
        found = self.revision(stack, head.current) if head else None
        return self.scaled(found.desired) if found else None

    def target(self, stack: str) -> DesiredStack | None:
        """What is being applied to the stack."""
        head = self.heads.get(stack)
        found = self.revision(stack, head.target) if head else None
        return self.scaled(found.desired) if found else None

    def next_number(self, stack: str) -> int:
        """The number after every one that was ever given out for the stack."""
        head = self.heads.get(stack)
        return max([head.last if head else 0, *self.revisions.get(stack, {})], default=0) + 1

    def code_live(self) -> set[str]:
        """Digests of the packages of what serves, or is being applied."""
        goals = [stack for name in self.heads for stack in (self.current(name), self.target(name)) if stack is not None]
        return {digest for stack in goals for digest in code_of(stack)}

    def code_in_use(self) -> set[str]:
        """Digests of all code packages that a kept revision names."""
        return {
            digest
            for revisions in self.revisions.values()
            for revision in revisions.values()
            for digest in code_of(revision.desired)
        }


def _decode(key: str, data: bytes, kind: type[T]) -> T:
    try:
        if msgspec.json.decode(data, type=_Format).format > FORMAT:
            raise OperatorError(
                f"the record {key} was written by a newer serveconf", hint="use that version, or a newer one"
            )
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise OperatorError(f"the record {key} can't be read: {error}", code="bad_record") from error


def code_of(desired: DesiredStack) -> set[str]:
    """Digests of all code packages that a stack names."""
    return {digest for digest in [*(d.code for d in desired.deployments), *_other_code(desired)] if digest}


def _other_code(desired: DesiredStack) -> list[str]:
    """Of middlewares and policies."""
    others = [*desired.http_middlewares, *(m for d in desired.deployments for m in d.middlewares)]
    others += [d.policy for d in desired.deployments if d.policy is not None]
    return [other.code for other in others if other.code]


def _revision_key(stack: str, number: int) -> str:
    return f"stacks/{stack}/revisions/{number:09d}"


def outlived(
    revisions: Mapping[str, Mapping[int, Revision]],
    heads: Mapping[str, StackHead],
    sizes: Mapping[str, int],
    budget: int,
) -> list[Revision]:
    """In the order in which they go. ``sizes``: bytes of each package in the store."""
    named = Counter(digest for kept in revisions.values() for r in kept.values() for digest in code_of(r.desired))
    total = sum(sizes.get(digest, 0) for digest in named)
    going = []
    for revision in sorted(_dispensable(revisions, heads), key=lambda r: (r.time, r.stack, r.number)):
        if total <= budget:
            break
        going.append(revision)
        for digest in code_of(revision.desired):
            named[digest] -= 1
            if not named[digest]:
                total -= sizes.get(digest, 0)
    return going


def _dispensable(revisions: Mapping[str, Mapping[int, Revision]], heads: Mapping[str, StackHead]) -> list[Revision]:
    found = []
    for stack, kept in revisions.items():
        head = heads.get(stack)
        stays = {head.current, head.target, *sorted(kept)[-ALWAYS_KEPT:]} if head else set()
        found += [revision for number, revision in kept.items() if number not in stays]
    return found
