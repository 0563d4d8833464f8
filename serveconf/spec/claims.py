"""What a deployment asks for, claim by claim, and which claims no request can ever win. Pure, on a spec's own mappings.

A claim is one host, one prefix, one method and the conditions beside them: what ``match`` multiplies out to. Two that are
equal contradict each other; one that another always comes before is never reached. The order is that of ``matching``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Conditions = tuple[tuple[str, str | None], ...]


class Claim(NamedTuple):
    """One way to reach a deployment; an empty host or method is any."""

    host: str
    prefix: str
    method: str
    headers: Conditions
    query: Conditions

    def __str__(self) -> str:
        parts = [self.method, f"{self.host}{self.prefix}"]
        parts += [f"{name}: {'any' if value is None else value}" for name, value in self.headers]
        parts += [f"?{name}={'*' if value is None else value}" for name, value in self.query]
        return " ".join(part for part in parts if part)


class Lost(NamedTuple):
    """A claim of ``loser`` that no request reaches, because ``winner`` comes before it."""

    claim: Claim
    loser: str
    winner: str


def claims_of(prefix: Any, match: Any) -> frozenset[Claim]:
    """The claims of a deployment's ``route_prefix`` and ``match``. What is mistyped there claims nothing."""
    if not isinstance(prefix, str):
        return frozenset()
    said = match if isinstance(match, Mapping) else {}
    headers, query = (_conditions(said.get(key)) for key in ("headers", "query"))
    return frozenset(
        Claim(host.lower(), prefix, method, tuple(sorted((n.lower(), v) for n, v in headers)), query)
        for host in _texts(said.get("hosts")) or ("",)
        for method in _texts(said.get("methods")) or ("",)
    )


def lost_claims(claims: Mapping[str, Iterable[Claim]]) -> list[Lost]:
    """Every claim, by deployment name, that another deployment's always comes before."""
    alike: dict[tuple[Any, ...], list[tuple[Claim, str]]] = defaultdict(list)
    for name, own in claims.items():
        for claim in own:
            alike[_looked_at(claim)].append((claim, name))
    return [lost for group in alike.values() if len(group) > 1 for lost in _lost_of(group)]


def _lost_of(group: list[tuple[Claim, str]]) -> Iterable[Lost]:
    """Of claims that look at the same things: each that a wider one, of a name that comes first, takes all from."""
    first: dict[tuple[Conditions, Conditions], str] = {}
    blanks = set()
    for claim, name in group:
        key = claim.headers, claim.query
        first[key] = min(name, first.get(key, name))
        blanks.add(_blank(claim))
    for claim, name in sorted(group, key=lambda one: (one[1], one[0].host, one[0].method)):
        wider = (_widened(claim, blank) for blank in blanks)
        winner = min((first[key] for key in wider if key in first), default=name)
        if winner < name:
            yield Lost(claim, name, winner)


def _looked_at(claim: Claim) -> tuple[Any, ...]:
    names = tuple(tuple(name for name, _ in those) for those in (claim.headers, claim.query))
    return (claim.host, claim.prefix, claim.method, *names)


def _blank(claim: Claim) -> tuple[bool, ...]:
    """Of which conditions any value does."""
    return tuple(value is None for _, value in (*claim.headers, *claim.query))


def _widened(claim: Claim, blank: tuple[bool, ...]) -> tuple[Conditions, Conditions]:
    """The claim's conditions with any value where ``blank`` says so."""
    wide = tuple(
        (name, None if any_value else value)
        for (name, value), any_value in zip((*claim.headers, *claim.query), blank, strict=True)
    )
    return wide[: len(claim.headers)], wide[len(claim.headers) :]


def _texts(values: Any) -> list[str]:
    return [value for value in values if isinstance(value, str)] if isinstance(values, list | tuple) else []


def _conditions(said: Any) -> Conditions:
    pairs = said.items() if isinstance(said, Mapping) else ()
    return tuple(sorted((k, v) for k, v in pairs if isinstance(k, str) and isinstance(v, str | None)))
