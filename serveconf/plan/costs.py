"""What changing each field of a spec costs, as the models declare it; and the changes between two spec mappings.

``desired`` takes the fields of cost ``roll`` for a deployment's version, ``diff`` names what changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

import msgspec
from pydantic import BaseModel

from serveconf.spec.models import Cost
from serveconf.spec.problems import join


class Absent:
    """A key that is not there, which is not the same as null."""


ABSENT: Final = Absent()


@dataclass(frozen=True)
class FieldCost:
    """The cost of one field, and of the fields inside it where it is a model of its own."""

    cost: Cost
    inside: Mapping[str, FieldCost]


@dataclass(frozen=True)
class Change:
    """One field that differs. ``path`` is as in problems: ``ray_actor_options.num_cpus``, ``init_kwargs.model``."""

    path: str
    cost: Cost
    before: Any
    after: Any


@cache
def field_costs(model: type[BaseModel]) -> Mapping[str, FieldCost]:
    """The declared cost of every field of ``model``."""
    costs = {}
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        if not isinstance(extra, dict):
            raise TypeError(f"{model.__name__}.{name} does not declare what changing it costs")
        nested = next((kind for kind in _kinds(field.annotation) if _is_model(kind)), None)
        inside = field_costs(nested) if nested else {}
        costs[name] = FieldCost(cost=Cost(str(extra["x-change-cost"])), inside=inside)
    return costs


def roll_fields(spec: Mapping[str, Any], fields: Mapping[str, FieldCost]) -> dict[str, Any]:
    """The part of ``spec`` that makes a replica different: its fields of cost ``roll``, nested ones included."""
    found: dict[str, Any] = {}
    for name, field in fields.items():
        value = spec.get(name)
        if field.inside and isinstance(value, Mapping):
            if nested := roll_fields(value, field.inside):
                found[name] = nested
        elif field.cost is Cost.ROLL and not field.inside:
            found[name] = value
    return found


def changes(before: Mapping[str, Any], after: Mapping[str, Any], fields: Mapping[str, FieldCost]) -> list[Change]:
    """Every field that differs between two spec mappings with all defaults filled in, in the order of the model."""
    return [
        change
        for name, field in fields.items()
        for change in _changes(before.get(name, ABSENT), after.get(name, ABSENT), field, name)
    ]


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON. ``==`` is no help: it takes True for 1."""
    return canonical(one) == canonical(other)


def canonical(value: Any) -> bytes:
    """One spelling for each JSON value."""
    return msgspec.json.encode(value, order="deterministic")


def _changes(before: Any, after: Any, field: FieldCost, path: str) -> Iterator[Change]:
    if isinstance(before, Absent) or isinstance(after, Absent):
        if before is not after:
            yield Change(path=path, cost=field.cost, before=before, after=after)
    elif same(before, after):
        return
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in (*before, *(key for key in after if key not in before)):
            inside = field.inside.get(key, FieldCost(field.cost, {}))
            yield from _changes(before.get(key, ABSENT), after.get(key, ABSENT), inside, join(path, key))
    else:
        yield Change(path=path, cost=field.cost, before=before, after=after)


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The annotation, or the alternatives of a union; a list of models is one value, compared as a whole."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
