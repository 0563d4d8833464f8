"""What every field may hold, read off the models: for the loader's typing, for hints, ``explain``, schema and docs."""

from __future__ import annotations

import ast
import enum
import inspect
import itertools
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from serveconf.spec.kinds import Strict
from serveconf.spec.models import Cost, SpecFile


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The kinds of value that may stand somewhere: string, integer, number, boolean, null, list, mapping or any."""

    kinds: frozenset[str]
    model: type[BaseModel] | None = None  # of a mapping with fixed keys
    item: Shape | None = None  # of a list's items, or a free mapping's values
    choices: tuple[str, ...] = ()

    @property
    def fields(self) -> Mapping[str, FieldShape]:
        """The fixed keys of a mapping."""
        return fields_of(self.model) if self.model else {}

    def child(self, key: str | int) -> Shape:
        """The shape of a child; anything goes where the models do not say."""
        if isinstance(key, str) and self.model:
            found = self.fields.get(key)
            return found.shape if found else ANY
        return self.item or ANY


@dataclass(frozen=True, kw_only=True)
class FieldShape:
    """One key of a mapping with fixed keys."""

    name: str
    shape: Shape
    info: FieldInfo
    holder: type[BaseModel]
    attribute: str  # its name in the holder

    @property
    def cost(self) -> Cost:
        """What changing it costs."""
        return Cost(str(self._extra("x-change-cost") or Cost.NONE))

    @property
    def meaning(self) -> str:
        """What it is for."""
        return _meanings(self.holder).get(self.attribute, "")

    @property
    def default_words(self) -> str | None:
        """The default in words, where the value alone does not say it."""
        words = self._extra("x-default")
        return str(words) if words else None

    def _extra(self, key: str) -> object:
        extra = self.info.json_schema_extra
        return extra.get(key) if isinstance(extra, dict) else None


ANY = Shape(kinds=frozenset({"any"}))
_KINDS = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


@cache
def fields_of(model: type[BaseModel]) -> Mapping[str, FieldShape]:
    """The keys of a model, in the order in which an author would write them."""
    return {
        (key := info.alias or name): FieldShape(
            name=key,
            shape=_shape(info.annotation, tuple(info.metadata)),
            info=info,
            holder=model,
            attribute=name,
        )
        for name, info in model.model_fields.items()
    }


@cache
def _meanings(model: type[BaseModel]) -> Mapping[str, str]:
    """The docstring below each field, read from the source: only who explains fields pays for it."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, Strict) or cls is Strict:
            continue
        body = ast.parse(inspect.getsource(cls)).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in itertools.pairwise(body.body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = inspect.cleandoc(text)
                case _:
                    pass
    return found


def _shape(annotation: Any, metadata: tuple[Any, ...] = ()) -> Shape:
    for item in metadata:
        if isinstance(item, BeforeValidator) and item.json_schema_input_type is not None:
            return _shape(item.json_schema_input_type)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _shape(args[0], args[1:])
    if origin in (typing.Union, types.UnionType):
        return _union([_shape(arg) for arg in args])
    if origin is typing.Literal:
        return Shape(kinds=frozenset({"string"}), choices=args)
    if origin is list:
        return Shape(kinds=frozenset({"list"}), item=_shape(args[0]))
    if origin is dict:
        return Shape(kinds=frozenset({"mapping"}), item=_shape(args[1]))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return Shape(kinds=frozenset({"string"}), choices=tuple(member.value for member in annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return Shape(kinds=frozenset({"mapping"}), model=annotation)
    return Shape(kinds=frozenset({_KINDS[annotation]})) if annotation in _KINDS else ANY


def _union(shapes: list[Shape]) -> Shape:
    return Shape(
        kinds=frozenset().union(*(shape.kinds for shape in shapes)),
        model=next((shape.model for shape in shapes if shape.model), None),
        item=next((shape.item for shape in shapes if shape.item), None),
        choices=tuple(choice for shape in shapes for choice in shape.choices),
    )


SPEC_FILE = Shape(kinds=frozenset({"mapping"}), model=SpecFile)


def walk_fields(shape: Shape = SPEC_FILE, path: str = "") -> Iterator[tuple[str, FieldShape]]:
    """Every field with its path, parents first: ``deployments``, ``deployments[].name``, …"""
    for field in shape.fields.values():
        here = f"{path}.{field.name}" if path else field.name
        yield here, field
        inner = field.shape
        if inner.item and inner.item.model:
            yield from walk_fields(inner.item, f"{here}[]")
        elif inner.model:
            yield from walk_fields(inner, here)
