"""What the controller remembers, and how it lies in the store.

``stacks/NAME/head`` says which revision serves and which is being applied; ``stacks/NAME/revisions/N`` holds each
revision with all that is needed to serve it again; ``generation`` is the routing table that was committed last.
"""

from __future__ import annotations

from typing import Any

import msgspec

from serveconf.plan.state import DesiredStack
from serveconf.reconcile.ports import Store
from serveconf.routing import Generation, decode, encode

KEPT_REVISIONS = 50


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why an apply did not go through, in the words that its author needs."""

    code: str
    message: str
    deployment: str | None = None
    traceback: str = ""
    hint: str | None = None
    path: str = ""  # the key of the spec that it is about


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One apply: who asked for what when, and how it ended."""

    number: int
    stack: str
    time: float  # seconds since the epoch
    desired: DesiredStack
    spec: dict[str, Any] = {}  # what was said, values from variables masked
    author: str = ""
    source: str = ""
    commit: str | None = None
    summary: str = ""
    actions: list[dict[str, Any]] = []
    operation: str = ""  # id of the apply, so that it can be followed after a crash of the controller
    outcome: str = "applying"
    receipt: dict[str, Any] = {}
    failure: Failure | None = None


class StackHead(msgspec.Struct, frozen=True, kw_only=True):
    """Where a stack stands: the revision that serves, the one being applied, the last number given out."""

    name: str
    current: int | None = None
    target: int | None = None
    last: int = 0
    pinned: bool = False
    deleting: bool = False
    invalid: str = ""  # why what was sent last could not even be tried; what serves is untouched
    baking_until: float | None = None  # the target serves already, and is watched until then (seconds since the epoch)


class Ledger:
    """The records of all stacks, mirrored in memory, written through to the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.heads: dict[str, StackHead] = {}
        self.revisions: dict[str, dict[int, Revision]] = {}
        self.generation = Generation(number=0)

    async def load(self) -> None:
        """Read everything from the store: at the controller's start."""
        for key in await self._store.keys("stacks/"):
            data = await self._store.get(key)
            if data is None:
                continue
            _, name, kind, *_ = key.split("/")
            if kind == "head":
                self.heads[name] = msgspec.json.decode(data, type=StackHead)
            else:
                revision = msgspec.json.decode(data, type=Revision)
                self.revisions.setdefault(name, {})[revision.number] = revision
        data = await self._store.get("generation")
        if data is not None:
            self.generation = decode(data)

    async def put_head(self, head: StackHead) -> None:
        """Write where a stack stands."""
        await self._store.put(f"stacks/{head.name}/head", msgspec.json.encode(head))
        self.heads[head.name] = head

    async def put_revision(self, revision: Revision) -> None:
        """Write a revision; the oldest beyond KEPT_REVISIONS go, but never one that serves or is being applied."""
        await self._store.put(_revision_key(revision.stack, revision.number), msgspec.json.encode(revision))
        kept = self.revisions.setdefault(revision.stack, {})
        kept[revision.number] = revision
        head = self.heads.get(revision.stack)
        needed = {head.current, head.target} if head else set()
        for number in sorted(kept)[:-KEPT_REVISIONS]:
            if number not in needed:
                await self._store.delete(_revision_key(revision.stack, number))
                del kept[number]

    async def forget_stack(self, name: str) -> None:
        """Take the stack's head away; its history stays readable until the last revision is pushed out."""
        await self._store.delete(f"stacks/{name}/head")
        self.heads.pop(name, None)

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
        return found.desired if found else None

    def target(self, stack: str) -> DesiredStack | None:
        """What is being applied to the stack."""
        head = self.heads.get(stack)
        found = self.revision(stack, head.target) if head else None
        return found.desired if found else None

    def next_number(self, stack: str) -> int:
        """The number after every one that was ever given out for the stack."""
        head = self.heads.get(stack)
        return max([head.last if head else 0, *self.revisions.get(stack, {})], default=0) + 1

    def code_in_use(self) -> set[str]:
        """Digests of all code packages that a kept revision names."""
        return {
            digest
            for revisions in self.revisions.values()
            for revision in revisions.values()
            for digest in [*(d.code for d in revision.desired.deployments), *_middleware_code(revision.desired)]
            if digest
        }


def _middleware_code(desired: DesiredStack) -> list[str]:
    middlewares = [*desired.http_middlewares, *(m for d in desired.deployments for m in d.middlewares)]
    return [m.code for m in middlewares if m.code]


def _revision_key(stack: str, number: int) -> str:
    return f"stacks/{stack}/revisions/{number:09d}"
