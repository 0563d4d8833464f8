"""The spec described field by field, from the models: what ``explain`` answers and what docs/spec.md is made of."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from serveconf.spec.fields import SPEC_FILE, FieldShape, Shape, walk_fields
from serveconf.spec.models import Cost
from serveconf.spec.schema import json_schema, plain_numbers

COSTS: dict[Cost, str] = {
    Cost.NONE: "nothing that runs is touched",
    Cost.ROUTE: "the routing table changes; no replica restarts",
    Cost.RECONFIGURE: "reconfigure(user_config) is called on live replicas; no replica restarts",
    Cost.SCALE: "replicas are added or drained",
    Cost.ROLL: "replicas are replaced, new before old",
    Cost.PROXY: "listeners are replaced, new before old",
    Cost.REMOVE: "the deployment is drained and taken away",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One field in words."""

    path: str
    type: str
    default: str | None  # None: the field must be given
    meaning: str
    cost: Cost | None
    examples: tuple[Any, ...]
    keys: tuple[str, ...] = ()  # paths of the fields directly below it

    def as_json(self) -> dict[str, Any]:
        """What ``explain -o json`` prints."""
        return {
            "path": self.path,
            "type": self.type,
            "required": self.default is None,
            "default": self.default,
            "meaning": self.meaning,
            "change_cost": self.cost.value if self.cost else None,
            "examples": list(self.examples),
            "keys": list(self.keys),
        }


@cache
def entries() -> dict[str, Entry]:
    """Every field by its path, in the order of the docs; the whole spec at the empty path."""
    schema = json_schema()
    schemas = dict(_properties(schema, schema))
    top = tuple(SPEC_FILE.fields)
    whole = Entry(path="", type="mapping", default=None, meaning="One YAML file.", cost=None, examples=(), keys=top)
    return {"": whole} | {path: _entry(path, field, schemas[path]) for path, field in walk_fields()}


def _entry(path: str, field: FieldShape, schema: dict[str, Any]) -> Entry:
    info = field.info
    default = (
        None if info.is_required() else field.default_words or _default(info.get_default(call_default_factory=True))
    )
    inner = field.shape.item if field.shape.item and field.shape.item.model else field.shape
    prefix = f"{path}[]" if inner is field.shape.item else path
    return Entry(
        path=path,
        type=type_words(field.shape) + _bounds(schema),
        default=default,
        meaning=field.meaning,
        cost=field.cost,
        examples=tuple(info.examples or ()),
        keys=tuple(f"{prefix}.{name}" for name in inner.fields),
    )


def _default(value: Any) -> str:
    if hasattr(value, "model_dump"):
        return "the defaults of its keys"
    return json.dumps(plain_numbers(value), ensure_ascii=False)


def type_words(shape: Shape) -> str:
    """The kinds of value in words: ``integer or null``, ``list of strings``."""
    kinds = [
        kind for kind in ("boolean", "integer", "number", "string", "list", "mapping", "any") if kind in shape.kinds
    ]
    words = [*(kind for kind in kinds if kind != "string"), *shape.choices] if shape.choices else kinds
    if shape.item and shape.item.kinds != {"any"}:
        words = [f"{word} of {_plural(shape.item)}" if word in ("list", "mapping") else word for word in words]
    return " or ".join([*words, *(["null"] if "null" in shape.kinds else [])])


def _plural(shape: Shape) -> str:
    return " or ".join(sorted(f"{kind}s" for kind in shape.kinds))


def _properties(node: dict[str, Any], schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The schema of every key, by its path."""
    for name, inner in node["properties"].items():
        here = f"{path}.{name}" if path else name
        yield here, inner
        if found := re.search(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(inner)):
            target = schema["$defs"][found[1]]
            if "properties" in target:
                yield from _properties(target, schema, f"{here}[]" if inner.get("type") == "array" else here)


def _bounds(schema: dict[str, Any]) -> str:
    parts = [schema, *(part for part in schema.get("anyOf", ()) if "type" in part)]
    words = []
    for key, phrase in (("minimum", "at least"), ("exclusiveMinimum", "more than"), ("maximum", "at most")):
        bound = next((part[key] for part in parts if key in part), None)
        if bound is not None:
            words.append(f"{phrase} {plain_numbers(bound)}")
    return f", {', '.join(words)}" if words else ""


def find_field(query: str) -> tuple[Entry | None, str | None]:
    """The field of a path as people write it, or the path that may be meant. The end of a path is enough where it is unique."""
    known = entries()
    wanted = _bare(query)
    by_bare = {_bare(path): entry for path, entry in known.items()}
    if wanted in by_bare:
        return by_bare[wanted], None
    ends = [path for path in by_bare if path.endswith(f".{wanted}") and not path.startswith("defaults.")]
    if len(ends) == 1:
        return by_bare[ends[0]], None
    if ends:
        return None, "' or '".join(by_bare[path].path for path in ends[:4])
    return None, _near(wanted, [path for path in by_bare if path and not path.startswith("defaults.")], by_bare)


def _near(wanted: str, paths: list[str], by_bare: dict[str, Entry]) -> str | None:
    """The field with a path like this one, or with such a last part."""
    if "." in wanted and (near := difflib.get_close_matches(wanted, paths, n=1, cutoff=0.6)):
        return by_bare[near[0]].path
    lasts = {path.rpartition(".")[2]: path for path in reversed(paths)}
    near = difflib.get_close_matches(wanted.rpartition(".")[2], lasts, n=1)
    return by_bare[lasts[near[0]]].path if near else None


def _bare(path: str) -> str:
    return re.sub(r"\[[^\]]*\]|^\.|\.$", "", path.strip())


def describe(entry: Entry) -> str:
    """One field as text."""
    lines = [entry.path or "the spec", ""]
    facts = [("type", entry.type)]
    if entry.path:
        facts.append(("default", "none; it must be given" if entry.default is None else entry.default))
    if entry.cost:
        facts.append(("change", f"{entry.cost}: {COSTS[entry.cost]}"))
    lines += [f"  {name:<9} {words}" for name, words in facts]
    lines += ["", f"  {entry.meaning}"]
    if entry.examples:
        lines += ["", "  Examples"]
        lines += [f"    {example_yaml(entry.path, example)}" for example in entry.examples]
    if entry.keys:
        known = entries()
        width = max(len(path.rpartition(".")[2]) for path in entry.keys)
        lines += ["", "  Keys"]
        lines += [f"    {path.rpartition('.')[2]:<{width}}  {known[path].meaning}" for path in entry.keys]
    return "\n".join(lines)


def example_yaml(path: str, example: Any) -> str:
    """An example as one would write it below the field's key."""
    value = yaml.safe_dump(example, sort_keys=False, default_flow_style=True, width=1000).removesuffix("...\n").strip()
    return f"{path.rpartition('.')[2]}: {value}"
