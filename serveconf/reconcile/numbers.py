"""The numbers of replicas that were decided, by the load or by hand, and their place in the store.

``Scaling`` alone changes them. They are written behind: a store that does not answer just now holds up no decision.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from serveconf.plan.processes import process_of
from serveconf.plan.scaling import rule_of
from serveconf.plan.state import DesiredDeployment, DesiredStack
from serveconf.reconcile.ports import Clock, Store

log = logging.getLogger("serveconf.scaling")

PREFIX = "scaling/"
WRITE_S = 0.25  # between two writes


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What of a stack is remembered: numbers by the load, and those that were set by hand."""

    numbers: dict[str, int] = {}
    held: dict[str, int] = {}


class Scaled(NamedTuple):
    """A stack with its numbers, and what it was made of: all three are frozen."""

    stack: DesiredStack
    kept: Kept | None
    scaled: DesiredStack


class Numbers:
    """Those of all stacks. ``write`` has to run for anything to be written by itself."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._kept: dict[str, Kept] = {}
        self._scaled: dict[
            tuple[str, bool], tuple[Scaled, ...]
        ] = {}  # of each stack what was made last: current, target
        self._unwritten: set[str] = set()
        self._to_write = asyncio.Event()

    async def load(self) -> None:
        """Read what a former controller has decided. What can't be read is begun anew."""
        for key in await self._store.keys(PREFIX):
            data = await self._store.get(key)
            try:
                self._kept[key.removeprefix(PREFIX)] = msgspec.json.decode(data or b"{}", type=Kept)
            except msgspec.DecodeError:
                log.warning("numbers of replicas could not be read", extra={"key": key})

    def of(self, stack: str) -> Kept:
        """What is remembered of a stack."""
        return self._kept.get(stack, Kept())

    def scaled(self, stack: DesiredStack, *, held: bool) -> DesiredStack:
        """The stack with its numbers; also without those that were set by hand."""
        kept, made = self._kept.get(stack.name), self._scaled.get((stack.name, held), ())
        found = next((one for one in made if one.stack is stack and one.kept is kept), None)
        if found is None:  # a pass asks several times, and of thousands of deployments
            found = Scaled(stack, kept, self._scale(stack, held=held))
            self._scaled[stack.name, held] = (found, *made[:1])
        return found.scaled

    def _scale(self, stack: DesiredStack, *, held: bool) -> DesiredStack:
        own = [self.scaled_deployment(stack.name, deployment, held=held) for deployment in stack.deployments]
        most: dict[str, int] = {}  # a process has as many replicas as the busiest of its deployments asks for
        for deployment in own:
            if (process := process_of(deployment)) is not None:
                most[process] = max(most.get(process, 0), deployment.num_replicas)
        found = tuple(
            replace(d, num_replicas=most[process]) if (process := process_of(d)) is not None else d for d in own
        )
        return stack if found == stack.deployments else replace(stack, deployments=found)

    def scaled_deployment(self, stack: str, deployment: DesiredDeployment, *, held: bool) -> DesiredDeployment:
        """The deployment with its number."""
        kept = self._kept.get(stack)
        if kept is None:
            return deployment
        rule = rule_of(deployment.spec)
        number = kept.held.get(deployment.name) if held else None
        if rule is not None and not rule.dry_run:
            number = kept.numbers.get(deployment.name, number)
            number = None if number is None else rule.widest.clamp(number)
        return deployment if number in (None, deployment.num_replicas) else replace(deployment, num_replicas=number)

    def decide(self, stack: str, name: str, number: int) -> None:
        """By the load."""
        kept = self.of(stack)
        self._keep(stack, replace(kept, numbers={**kept.numbers, name: number}))

    def hold(self, stack: str, name: str, number: int) -> None:
        """By hand."""
        kept = self.of(stack)
        self._keep(stack, replace(kept, held={**kept.held, name: number}))

    def release(self, stack: str) -> bool:
        """What was set by hand holds no more. Whether there was any."""
        kept = self.of(stack)
        if kept.held:
            self._keep(stack, replace(kept, held={}))
        return bool(kept.held)

    def forget(self, stack: str, name: str) -> None:
        """A deployment has no number of its own any more."""
        kept = self.of(stack)
        if name in kept.numbers or name in kept.held:
            self._keep(stack, Kept(numbers=_without(kept.numbers, name), held=_without(kept.held, name)))

    def forget_stack(self, stack: str) -> None:
        """The stack is gone."""
        self._scaled = {key: made for key, made in self._scaled.items() if key[0] != stack}
        if stack in self._kept:
            self._keep(stack, Kept())
            del self._kept[stack]

    def _keep(self, stack: str, kept: Kept) -> None:
        self._kept[stack] = kept
        self._unwritten.add(stack)
        self._to_write.set()

    async def write(self) -> None:
        """Write what changes, until cancelled."""
        while True:
            await self._to_write.wait()
            await self.flush()
            await self._clock.sleep(WRITE_S)

    async def flush(self) -> None:
        """Write what is not written yet. What the store does not take is tried again with the next."""
        self._to_write.clear()
        for stack in list(self._unwritten):
            self._unwritten.discard(stack)
            kept = self.of(stack)
            try:
                if kept.numbers or kept.held:
                    await self._store.put(f"{PREFIX}{stack}", msgspec.json.encode(kept))
                else:
                    await self._store.delete(f"{PREFIX}{stack}")
            except Exception:  # numbers go on being decided although the store does not answer
                self._unwritten.add(stack)
                log.exception("numbers of replicas could not be written", extra={"stack": stack})


def _without(numbers: Mapping[str, int], name: str) -> dict[str, int]:
    return {key: number for key, number in numbers.items() if key != name}
