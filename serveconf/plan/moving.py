"""Deployments that have another name than before (``moved`` in the spec), and keep their replicas: pure.

``DesiredDeployment.formerly`` says under which names a deployment was served. While a revision with a new name is on its
way, what serves and what is there are seen with the names that they are to have; when it has settled the replicas are
given theirs, and whoever still finds one under a former name sees it with the new one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from msgspec.structs import replace

from serveconf.plan.state import DesiredDeployment, DesiredStack, Observed

Moves = Mapping[str, str]  # the name that it had → the name that it gets

NO_MOVES: Moves = MappingProxyType({})


class Block(Protocol):
    """One item of the spec's ``moved``."""

    @property
    def from_(self) -> str:
        """The name that it had."""

    @property
    def to(self) -> str:
        """The name that it has."""


def former_names(moved: Iterable[Block], declared: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Of each declared deployment that is the end of moves the names that it had, the latest first."""
    before: dict[str, str] = {block.to: block.from_ for block in moved}
    found = {}
    for name in declared:
        names: list[str] = []
        while (old := before.get(names[-1] if names else name)) is not None and old not in (*names, name):
            names.append(old)
        if former := tuple(old for old in names if old not in declared):
            found[name] = former
    return found


def with_former_names(stack: DesiredStack, former: Mapping[str, Sequence[str]]) -> DesiredStack:
    """The stack whose deployments, those inside of bound applications too, know under which names they were served."""
    deployments = tuple(
        replace(d, formerly=tuple(old + d.name.removeprefix(d.entry) for old in former.get(d.entry, ())))
        for d in stack.deployments
    )
    return replace(stack, deployments=deployments)


def moves_of(current: DesiredStack | None, desired: DesiredStack) -> dict[str, str]:
    """Which deployments of ``current`` go on under another name in ``desired``."""
    moves: dict[str, str] = {}
    for deployment in desired.deployments if current else ():
        if current is not None and current.deployment(deployment.name) is None:
            there = (n for n in deployment.formerly if current.deployment(n) and desired.deployment(n) is None)
            if (old := next(there, None)) is not None:
                moves[old] = deployment.name
    return moves


def entry_moves(current: DesiredStack | None, former: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """``moves_of`` before the deployments inside of bound applications are known: all of an application go with its entry."""
    if current is None:
        return {}
    entries = {d.entry for d in current.deployments}
    moves: dict[str, str] = {}
    for name, names in former.items():
        old = next((one for one in names if one in entries), None)
        if old is not None and name not in entries:
            moves |= {d.name: name + d.name.removeprefix(old) for d in current.deployments if d.entry == old}
    return moves


def with_names(stack: DesiredStack | None, moves: Moves) -> DesiredStack | None:
    """The stack as it would be under the new names."""
    if stack is None or not moves or not any(d.name in moves for d in stack.deployments):
        return stack
    renamed = (named(d, moves[d.name]) if d.name in moves else d for d in stack.deployments)
    return replace(stack, deployments=tuple(sorted(renamed, key=lambda d: d.name)))


def named(deployment: DesiredDeployment, name: str) -> DesiredDeployment:
    """The deployment under that name."""
    return replace(deployment, name=name, spec=deployment.spec | {"name": name})


def seen_with_names(observed: Observed, stack: str, moves: Moves) -> Observed:
    """What is there, under the new names."""
    if not moves or not any(r.deployment in moves for r in observed.of_stack(stack)):
        return observed
    replicas = tuple(
        replace(r, deployment=moves[r.deployment]) if r.stack == stack and r.deployment in moves else r
        for r in observed.replicas
    )
    return Observed(replicas=replicas, proxies=observed.proxies, standbys=observed.standbys)


def left_behind(current: DesiredStack | None, target: DesiredStack | None = None) -> dict[str, str]:
    """The names under which replicas of ``current`` may still be found, of those that ``target`` does not use again."""
    if current is None:
        return {}
    return {
        old: d.name
        for d in current.deployments
        for old in d.formerly
        if current.deployment(old) is None and (target is None or target.deployment(old) is None)
    }


def with_way_back(desired: DesiredStack, current: DesiredStack | None, between: Iterable[DesiredStack]) -> DesiredStack:
    """An earlier revision that is gone back to: what was moved since it goes back to the name that it had.

    ``between``: what was served since, ``current`` among it.
    """
    if current is None:
        return desired
    old_of: dict[str, set[str]] = {}
    for stack in between:
        for deployment in stack.deployments:
            old_of.setdefault(deployment.name, set()).update(deployment.formerly)
    back: dict[str, str] = {}
    for name in (d.name for d in current.deployments if desired.deployment(d.name) is None):
        seen, ahead = {name}, [name]
        while ahead:
            for old in sorted(old_of.get(ahead.pop(), set()) - seen):
                seen.add(old)
                ahead.append(old)
                if desired.deployment(old) is not None and current.deployment(old) is None:
                    back.setdefault(old, name)
    deployments = tuple(
        replace(d, formerly=(back[d.name], *(n for n in d.formerly if n != back[d.name]))) if d.name in back else d
        for d in desired.deployments
    )
    return replace(desired, deployments=deployments)


def seen_on_the_way(
    observed: Observed, stack: str, current: DesiredStack | None, target: DesiredStack | None
) -> Observed:
    """What is there, each replica under the name that it has, or is to have when the target has been reached."""
    observed = seen_with_names(observed, stack, left_behind(current, target))
    return seen_with_names(observed, stack, moves_of(current, target)) if target is not None else observed
