"""The JSON Schema (draft 2020-12) of spec files, written from the models, as editors and other tools want it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serveconf.spec.fields import FieldShape, fields_of
from serveconf.spec.models import SpecFile

_VARIABLE = r"\$\{"


def json_schema() -> dict[str, Any]:
    """The schema. Where a number, a boolean or a patterned string stands, a text with a variable may stand too."""
    models = _models(SpecFile)
    schema = models_json_schema([(SpecFile, "validation")], by_alias=True)[1]
    definitions: dict[str, Any] = schema["$defs"]
    for model in models:
        definition = definitions[model.__name__]
        for name, field in fields_of(model).items():
            definition["properties"][name] = _property(definition["properties"][name], field)
    root = definitions.pop(SpecFile.__name__)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **root,
        "title": "serveconf spec",
        "$defs": definitions,
    }


def _models(model: type[BaseModel]) -> list[type[BaseModel]]:
    """The model and all models below it, each once."""
    found = [model]
    for holder in found:
        for field in fields_of(holder).values():
            for shape in (field.shape, field.shape.item):
                if shape and shape.model and shape.model not in found:
                    found.append(shape.model)
    return found


def _property(schema: dict[str, Any], field: FieldShape) -> dict[str, Any]:
    """One key's schema, with what every key says in the same way."""
    described: dict[str, Any] = {"title": field.name, "description": field.meaning, **_with_variables(schema)}
    described |= {"title": field.name, "description": field.meaning}
    if field.default_words is not None:
        described.pop("default", None)
    elif "default" in described:
        described["default"] = plain_numbers(described["default"])
    if field.shape.choices and "anyOf" in described:
        described["anyOf"] = [*described["anyOf"], {"type": "string", "pattern": _VARIABLE}]
    return described


def _with_variables(schema: Any) -> Any:
    """Numbers and booleans may also be a text with a variable; a pattern may also be met by one."""
    if isinstance(schema, list):
        return [_with_variables(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    annotations = {key: value for key, value in schema.items() if key in ("default", "examples")}
    changed = {key: _with_variables(value) for key, value in schema.items() if key not in annotations}
    if changed.get("type") in ("integer", "number", "boolean"):
        changed |= {"type": [changed["type"], "string"], "pattern": _VARIABLE}
    elif changed.get("type") == "string" and "pattern" in changed:
        changed["pattern"] = f"{changed['pattern']}|{_VARIABLE}"
    return changed | annotations


def plain_numbers(value: Any) -> Any:
    """The value with whole numbers written as such: 90, not 90.0."""
    match value:
        case dict():
            return {key: plain_numbers(item) for key, item in value.items()}
        case list():
            return [plain_numbers(item) for item in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value
