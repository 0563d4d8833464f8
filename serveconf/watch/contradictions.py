"""Files that can't all be true at once: two that claim one stack, one route, or another front. Told at both places; pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from serveconf.spec.load import Loaded
from serveconf.spec.problems import Problem

Claim = tuple[str, Loaded, str]  # what is claimed, by which file, at which path of it


def contradictions(stacks: Iterable[Loaded]) -> dict[Path, list[Problem]]:
    """For each file that takes part in one, its problems; each names the other place. The others can be applied."""
    stacks = sorted(stacks, key=lambda loaded: str(loaded.file))
    found: dict[Path, list[Problem]] = {}
    for one, other, message in _pairs(stacks):
        for mine, theirs in ((one, other), (other, one)):
            text = message.replace("{other}", _place(theirs))
            found.setdefault(mine[1].file, []).append(
                mine[1].problem(mine[2], text, "contradiction", "change one of the two; neither is applied until then")
            )
    return found


def _pairs(stacks: list[Loaded]) -> Iterator[tuple[Claim, Claim, str]]:
    seen: dict[str, Claim] = {}
    for claim in (claim for loaded in stacks for claim in _claims(loaded)):
        first = seen.setdefault(claim[0], claim)
        if first[1].file != claim[1].file:
            yield first, claim, _message(claim[0])
    fronts: dict[str, tuple[Claim, Any]] = {}
    for loaded in stacks:
        said = loaded.spec.http_options.model_dump(mode="json", include=loaded.spec.http_options.model_fields_set)
        for key, value in said.items():
            claim = (f"http_options.{key}", loaded, f"http_options.{key}")
            before, known = fronts.setdefault(key, (claim, value))
            if known != value:
                yield before, claim, f"http_options.{key} is another one in {{other}}; stacks share one HTTP front"


def _claims(loaded: Loaded) -> Iterator[Claim]:
    yield f"stack {loaded.spec.name}", loaded, "name"
    for index, deployment in enumerate(loaded.spec.deployments):
        if deployment.prefix is not None:
            said = deployment.model_dump(mode="json")
            match = json.dumps(said.get("match"), sort_keys=True)
            key = "route_prefix" if "route_prefix" in deployment.model_fields_set else "name"
            yield f"route {deployment.prefix} {match}", loaded, f"deployments[{index}].{key}"


def _message(claim: str) -> str:
    kind, _, what = claim.partition(" ")
    if kind == "stack":
        return f"stack '{what}' is claimed by {{other}} too"
    return f"route_prefix {what.partition(' ')[0]} is claimed by {{other}} too"


def _place(claim: Claim) -> str:
    at = claim[1].position(claim[2])
    return str(at) if at is not None else str(claim[1].file)
